"""Chat templates: what they render, what they are given, and what they may not do."""

# ruff: noqa: E501 (a template is easier to read on one line)

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from hostile_templates import BOMBS, ESCAPES

from octavo.errors import TemplateError
from octavo.text.templates import ChatTemplate

_MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi <there> & 'you'"},
    {"role": "assistant", "content": "Hello!"},
    {"role": "user", "content": "Bye \u00e9\U0001f600"},
]


def _render(source: str, messages: Any = (), **variables: Any) -> str:
    return ChatTemplate(source, tokens={"bos_token": "<s>", "eos_token": "</s>"}).render(
        messages, **variables
    )


def test_without_a_template_chatml() -> None:
    template = ChatTemplate(None, tokens={})
    assert template.is_fallback
    assert template.render(_MESSAGES[:2]) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi <there> & 'you'<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    assert template.render(_MESSAGES[2:3], add_generation_prompt=False) == (
        "<|im_start|>assistant\nHello!<|im_end|>\n"
    )


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{{ bos_token }}{% if true %}\n  a\n{% endif %}\n", "<s>  a\n"),  # trim_blocks, lstrip_blocks
        ("{% for a in [1,2,3] %}{% if a == 2 %}{% continue %}{% endif %}{{ a }}{% endfor %}", "13"),
        ("{% for a in [1,2,3] %}{% if a == 2 %}{% break %}{% endif %}{{ a }}{% endfor %}", "1"),
        ("{% for a in [1,2] %}{{ loop.index }}{{ loop.last }}{{ loop.length }}{% endfor %}", "1False22True2"),
        ("{% for k, v in {'a': 1, 'b': 2}.items() %}{{ k }}{{ v }}{% endfor %}", "a1b2"),
        ("{% for k, v in {'b': 2, 'a': 1}|dictsort %}{{ k }}{{ v }}{% endfor %}", "a1b2"),
        ("{% generation %}{% set a = 1 %}x{% endgeneration %}{{ a is defined }}", "xFalse"),
        ("{{ {'a': '<\u00e9>', 'b': [1, none, true]} | tojson }}", '{"a": "<\u00e9>", "b": [1, null, true]}'),
        ("{{ {'b': 1, 'a': 2} | tojson(indent=2, sort_keys=true) }}", '{\n  "a": 2,\n  "b": 1\n}'),
        ("{{ [1, 'a', none, 1.5] }}{{ none }}{{ missing }}", "[1, 'a', None, 1.5]None"),
        (
            "{{ ' a '|trim }}{{ 'ab'.replace('b', 'c') }}{{ 'a-b'.split('-')[-1] }}{{ 'a' ~ 1 ~ none }}",
            "aacba1None",
        ),
        (
            "{{ '\\n a\\n'.lstrip('\\n').rstrip() }}{{ 'abc'.startswith('ab') }}{{ 'x</t>y'.split('</t>')[0] }}",
            " aTruex",
        ),
        ("{{ ['b','a']|sort|join(',') }}{{ [1,2]|length }}{{ [[1],[2]]|map('first')|sum }}", "a,b23"),
        ("{{ [{'a': 1}, {'b': 2}]|selectattr('a', 'defined')|list|length }}", "1"),
        ("{{ [{'r': 'u'}, {'r': 's'}]|rejectattr('r', 'equalto', 's')|map(attribute='r')|join }}", "u"),
        (
            "{{ 'a\\nb'|indent(2) }}{{ 'x' * 3 }}{{ 7 % 4 }}{{ '%s-%d' % ('a', 1) }}{{ '{}:{x}'.format(1, x=2) }}",
            "a\n  bxxx3a-11:2",
        ),
        (
            "{% set ns = namespace(n=0) %}{% for a in [1,2] %}{% set ns.n = ns.n + a %}{% endfor %}{{ ns.n }}",
            "3",
        ),
        (
            "{% macro m(a, b=2) %}{{ a }}{{ b }}{{ caller() }}{% endmacro %}{% call m(1) %}x{% endcall %}",
            "12x",
        ),
        (
            "{% macro f(x) %}{% for y in x %}{{ f(y) if y is iterable else y }}{% endfor %}{% endmacro %}{{ f([1,[2]]) }}",
            "12",
        ),
        ("{% for x in [[1,[]],[2,[]]] recursive %}{{ x[0] }}{{ loop(x[1]) }}{% endfor %}", "12"),
        (
            "{% set c = cycler('a', 'b') %}{{ c.next() }}{{ c.next() }}{% set j = joiner(',') %}{{ j() }}{{ j() }}",
            "ab,",
        ),
        (
            "{{ [1,2,3][1:] }}{{ 'abc'[::-1] }}{{ 'b' in 'abc' }}{{ 3 not in [1] }}{{ 1 < 2 < 3 }}",
            "[2, 3]cbaTrueTrueTrue",
        ),
        (
            "{{ 'a' is string }}{{ {} is mapping }}{{ none is none }}{{ x is not defined }}{{ 1|string is string }}",
            "True" * 5,
        ),
        (
            "{{ 'A'|lower }}{{ 'a'|upper|e }}{{ 'a b'|title|safe }}{{ none|default('d', true) }}{{ '7'|int + 1 }}",
            "aAA Bd8",
        ),
        (
            "{{ [3,1]|first }}{{ [3,1]|last }}{{ [3,1]|max }}{{ [1,1]|unique|list }}{{ [1,2]|reverse|list }}",
            "313[1][2, 1]",
        ),
        ("{{ 2 ** 3 }}{{ 7 // 2 }}{{ 7 / 2 }}{{ -1 }}{{ 1.5|round }}", "833.5-12.0"),
        (
            "{% set x %}a{{ 1 }}{% endset %}{{ x }}{% filter upper %}b{% endfilter %}{% with y = 1 %}{{ y }}{% endwith %}",
            "a1B1",
        ),
        ("{{ messages|length }}{{ tools is none }}{{ add_generation_prompt }}", "0TrueTrue"),
    ],
)
def test_what_templates_use_works_as_in_jinja(source: str, expected: str) -> None:
    assert _render(source) == expected


def test_variables_tools_and_special_tokens_reach_the_template() -> None:
    source = "{{ bos_token }}{{ thinking }}{{ tools[0].function.name }}{{ eos_token }}"
    tools = [{"type": "function", "function": {"name": "f"}}]
    assert _render(source, tools=tools, thinking=False) == "<s>Falsef</s>"


def test_the_date_is_now() -> None:
    assert re.fullmatch(r"\d\d \w{3} \d{4}", _render("{{ strftime_now('%d %b %Y') }}"))


def test_keys_that_are_names_of_methods_are_still_keys() -> None:
    assert _render("{{ messages[0].pop }}{{ messages[0]['keys'] }}", [{"pop": "a", "keys": "b"}]) == "ab"


def test_the_callers_messages_stay_theirs() -> None:
    messages = [{"role": "user", "content": ["a"]}]
    with pytest.raises(TemplateError):
        _render("{{ messages[0].content.append('b') }}", messages)
    assert messages == [{"role": "user", "content": ["a"]}]


def test_a_refusal_is_the_templates_own_words() -> None:
    with pytest.raises(TemplateError, match="roles must alternate"):
        _render("{{ raise_exception('roles must alternate') }}")


def test_an_error_names_the_line() -> None:
    with pytest.raises(TemplateError, match="line 3.*missing"):
        _render("a\nb\n{{ missing.attribute }}")
    with pytest.raises(TemplateError, match="line 2"):
        _render("a\n{% if %}")


@pytest.mark.parametrize("name", ["messages", "tools", "chat_template", "tokenize", "documents"])
def test_variables_cannot_take_the_templates_own_names(name: str) -> None:
    with pytest.raises((TemplateError, TypeError)):
        ChatTemplate("a", tokens={}).render(
            [], **{name: 1}, **({"messages": []} if name != "messages" else {})
        )


def _nested(depth: int) -> Any:
    return [_nested(depth - 1)] if depth else 1


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (object(), "JSON-like"),
        (b"bytes", "JSON-like"),
        ({1: 2}, "keys"),
        (_nested(80), "nest deeper"),
        ("x" * (33 << 20), "larger"),
        ([0] * 1_000_001, "larger"),
    ],
)
def test_only_plain_bounded_values_go_in(value: object, said: str) -> None:
    with pytest.raises(TemplateError, match=said):
        _render("a", [{"role": "user", "content": value}])


def test_a_long_conversation_renders() -> None:
    messages = [{"role": "user" if i % 2 else "assistant", "content": "x" * 1000} for i in range(5000)]
    text = ChatTemplate(None, tokens={}).render(messages)
    assert text.count("<|im_end|>") == 5000


def test_threads_render_with_budgets_of_their_own() -> None:
    template = ChatTemplate("{% for m in messages %}{{ m.content }}{% endfor %}", tokens={})
    results: dict[int, str] = {}

    def render(index: int) -> None:
        for _ in range(20):
            results[index] = template.render([{"content": str(index)}] * 50)

    threads = [threading.Thread(target=render, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {index: str(index) * 50 for index in range(4)}


def test_hostile_templates_end_in_an_error_and_stay_small(tmp_path: Path) -> None:
    """All of the corpus in one process of its own; the timeout only keeps a failure from hanging the suite."""
    script = Path(__file__).with_name("hostile_templates.py")
    search_path = os.pathsep.join(map(os.path.abspath, filter(None, sys.path)))
    run = subprocess.run(
        [sys.executable, str(script)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": search_path},
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    report = json.loads(run.stdout)
    assert set(report["outcomes"]) == set(ESCAPES) | set(BOMBS)
    survivors = {
        name: out for name, (out, _) in report["outcomes"].items() if not out.startswith("TemplateError")
    }
    assert survivors == {}
    assert report["growth"] < 200 << 20
    assert list(tmp_path.iterdir()) == []  # no canary


def test_there_is_one_place_that_renders() -> None:
    """No other file of the package makes a Jinja environment or template."""
    package = Path(__file__).parents[2] / "src" / "octavo"
    makers = re.compile(r"\b(?:Environment|SandboxedEnvironment|Template)\(|from_string\(")
    users = {
        path.name
        for path in package.rglob("*.py")
        if "jinja2" in (text := path.read_text()) and makers.search(text)
    }
    assert users <= {"templates.py", "template_sandbox.py"}
