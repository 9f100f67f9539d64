"""Real models write the same with every source of drafts as without, greedy and sampled.

OCTAVO_SPECULATION_PROMPTS: prompts for each model and source; docs/speculation.md says how many were tried.
"""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest

import octavo
from octavo.decoding.speculation.speculation import DRAFT_MAX
from octavo.errors import ModelNotFoundError

PROMPTS = int(os.environ.get("OCTAVO_SPECULATION_PROMPTS", "8"))
MODELS = Path(os.environ.get("OCTAVO_TEST_MODELS", "~/.cache/octavo-models")).expanduser()
SHARED = Path(os.environ.get("OCTAVO_SHARED", Path(__file__).resolve().parents[3].parent / "shared"))
SMOLLM2, GEMMA = "SmolLM2-135M-Instruct.Q4_1.gguf", "gemma3-270m.Q4_K_M.gguf"
QWEN, LARGER_QWEN = (f"Qwen2.5-Coder-{size}-Instruct.Q4_K_M.gguf" for size in ("0.5B", "1.5B"))
CASES = [
    *((model, source) for model in (SMOLLM2, GEMMA, QWEN) for source in ("suffix", "head", "grammar")),
    (LARGER_QWEN, "suffix"),
    (LARGER_QWEN, QWEN),
    # These have no smaller one: each is its own draft model.
    *((model, model) for model in (SMOLLM2, GEMMA, QWEN)),
]
SCHEMA = {
    "type": "object",
    "properties": {
        "topic": {"type": "string", "maxLength": 40},
        "kind": {"enum": ["code", "arithmetic", "other"]},
        "difficulty": {"type": "integer", "minimum": 1, "maximum": 5},
        "steps": {"type": "array", "items": {"type": "string"}, "maxItems": 4},
    },
    "required": ["topic", "kind", "difficulty", "steps"],
}


def prompts(count: int) -> list[str]:
    """HumanEval's, then questions of GSM8K."""
    folder = SHARED / "data" / "reasoning"
    files = folder / "HumanEval.jsonl.gz", folder / "gsm8k-train.jsonl"
    for path in files:
        if not path.exists():
            pytest.skip(f"{path} is not there: OCTAVO_SHARED names the folder")
    with gzip.open(files[0], "rt", encoding="utf-8") as lines:
        code = [str(json.loads(line)["prompt"]) for line in lines]
    with files[1].open(encoding="utf-8") as lines:
        questions = [str(json.loads(line)["question"]) for _, line in zip(range(count), lines, strict=False)]
    mixed = [text for pair in zip(code, questions, strict=False) for text in pair]
    return [*mixed, *questions[len(code) :]][:count]


@pytest.mark.real
@pytest.mark.timeout(0)
@pytest.mark.parametrize("sampling", [{"temperature": 0.0}, {"temperature": 0.9}], ids=["greedy", "sampled"])
@pytest.mark.parametrize(("stem", "draft"), CASES)
def test_the_same_text_with_drafts(stem: str, draft: str, sampling: dict[str, float]) -> None:
    for path in (MODELS / stem, *([MODELS / draft] if draft.endswith("gguf") else [])):
        if not path.exists():
            pytest.skip(f"{path} is not there: OCTAVO_TEST_MODELS names the folder")
    options: dict[str, Any] = {"max_tokens": 48, **sampling}
    if draft == "grammar":
        options["grammar"] = SCHEMA
    drafted_tokens = accepted = 0
    with _load(stem, draft) as model:
        engine = model.engine
        # What was seen before seldom comes again: of few prompts no draft of the text itself may come true.
        least = 24 if draft in ("suffix", "grammar") else 0
        speculation, texts = engine.speculation, prompts(max(PROMPTS, least))
        assert speculation is not None
        speculation._least_gain = 0.0  # drafts that do not pay have to be right as well
        for first in range(0, len(texts), 4):
            batch = texts[first : first + 4]
            # In turns: the controller's choice, and whatever is proposed, no matter what that has cost.
            speculation._always, speculation._resting = first % 8 == 4, 0
            speculation._draft_max = 4 if speculation._always else DRAFT_MAX
            engine.speculation = None
            plain = model.generate(batch, seed=first, **options)
            engine.speculation = speculation
            drafted = model.generate(batch, seed=first, **options)
            assert [one.tokens for one in drafted] == [one.tokens for one in plain]
            drafted_tokens += sum(one.timings.drafted for one in drafted)
            accepted += sum(one.timings.accepted for one in drafted)
    print(f"{stem}, {draft}, {sampling}: {drafted_tokens} drafted, {accepted} accepted")
    assert accepted > 0


def _load(stem: str, draft: str) -> octavo.Model:
    # Where there is a grammar, it drafts beside the suffix automaton.
    source = str(MODELS / draft) if draft.endswith("gguf") else draft.replace("grammar", "suffix")
    try:
        return octavo.load(MODELS / stem, max_sequences=4, context=2048, draft=source)
    except ModelNotFoundError as error:
        pytest.skip(f"{error}")
