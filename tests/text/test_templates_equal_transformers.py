"""Our renderer against transformers' own, on the templates of real files and of well-known families."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from known_templates import CONVERSATIONS, TEMPLATES, TOOLS

from octavo.errors import TemplateError
from octavo.text.templates import ChatTemplate

_TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}
_VARIABLES: list[dict[str, Any]] = [
    {"add_generation_prompt": True},
    {"add_generation_prompt": False},
    {"add_generation_prompt": True, "enable_thinking": False},
    {"add_generation_prompt": True, "date_string": "1 Jan 2025"},
]


def _theirs(source: str, messages: Any, tools: Any, variables: dict[str, Any]) -> str | None:
    """What transformers renders; None where the template fails."""
    rendering = pytest.importorskip("transformers.utils.chat_template_utils")
    try:
        texts, _ = rendering.render_jinja_template(
            conversations=[messages], tools=tools, chat_template=source, **variables, **_TOKENS
        )
    except Exception:
        return None
    return str(texts[0])


def _ours(source: str, messages: Any, tools: Any, variables: dict[str, Any]) -> str | None:
    try:
        return ChatTemplate(source, tokens=_TOKENS).render(messages, tools=tools, **variables)
    except TemplateError:
        return None


def _compare(source: str) -> None:
    rendered = 0
    for messages in CONVERSATIONS.values():
        for tools in (None, TOOLS):
            for variables in _VARIABLES:
                theirs = _theirs(source, messages, tools, variables)
                assert _ours(source, messages, tools, variables) == theirs
                rendered += theirs is not None
    assert rendered > 20  # most conversations suit most templates


@pytest.mark.parametrize("name", TEMPLATES)
def test_well_known_templates(name: str) -> None:
    _compare(TEMPLATES[name])


@pytest.mark.real
@pytest.mark.parametrize(
    "file",
    [
        "SmolLM2-135M-Instruct.Q4_1.gguf",
        "Qwen2.5-Coder-0.5B-Instruct.Q4_K_M.gguf",
        "Qwen2.5-Coder-1.5B-Instruct.Q4_K_M.gguf",
    ],
)
def test_templates_of_real_files(file: str, real_metadata: Callable[[str], dict[str, Any]]) -> None:
    _compare(real_metadata(file)["tokenizer.chat_template"])
