"""Regular expressions against Python's own, on every short text."""

from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octavo.grammar import GrammarSyntaxError, GrammarTooComplexError, GrammarUnsupportedError
from octavo.grammar.expressions import Algebra
from octavo.grammar.front_ends.regex import compile_regex

TEXTS = ["".join(letters) for size in range(5) for letters in itertools.product("ab-c", repeat=size)]

PATTERNS = [
    r"^a(?!b)[ab]*$", r"a|b", r"^(?:(?!ab).)*$", r"\bab\b", r"^a{2,3}b?$", r"(?=a)b?",
    r"(?=.*a)(?=.*b)^.{2,3}$",
    r"^$", r"a\B", r"(^a|b)+$", r"\b", r"(?:a$|b)", r"[^a]", r"^a*?b+", r"^\w+$", r"(a|^b)c*", r"(?:\ba|-)+$",
    r"^(?!.*(a|b)\b).*-$", r"(?i)^A+$", r"^[a-b\-]{2}$",
]  # fmt: skip


@pytest.mark.parametrize("search", [True, False])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_matches_what_python_matches(pattern: str, search: bool) -> None:
    algebra = Algebra()
    expression = compile_regex(algebra, pattern, "ecma", search)
    for text in TEXTS:
        expected = re.search(pattern, text) if search else re.fullmatch(pattern, text)
        assert algebra.matches(expression, text) == bool(expected), text


@st.composite
def patterns(draw: st.DrawFn, depth: int = 3) -> str:
    if depth == 0:
        return draw(st.sampled_from(["a", "b", ".", "[^a]", "-"]))
    inner = patterns(depth - 1)
    kind = draw(st.sampled_from(["both", "either", "star", "count", "ahead", "not ahead", "plain"]))
    if kind == "both":
        return draw(inner) + draw(inner)
    if kind == "either":
        return f"(?:{draw(inner)}|{draw(inner)})"
    if kind == "plain":
        return draw(inner)
    form = {"star": "(?:{})*", "count": "(?:{}){{1,2}}", "ahead": "(?={}){}", "not ahead": "(?!{}){}"}[kind]
    return form.format(draw(inner), draw(inner))


@settings(max_examples=150, deadline=None)
@given(patterns())
def test_random_patterns_match_what_python_matches(pattern: str) -> None:
    algebra = Algebra()
    try:
        expression = compile_regex(algebra, pattern, "ecma", search=False)
    except GrammarUnsupportedError:
        return
    try:
        assert algebra.live(expression) or not any(re.fullmatch(pattern, text) for text in TEXTS)
        for text in TEXTS[:85]:
            assert algebra.matches(expression, text) == bool(re.fullmatch(pattern, text)), (pattern, text)
    except GrammarTooComplexError:
        assert "(?=" in pattern or "(?!" in pattern, pattern


@pytest.mark.parametrize(
    ("pattern", "error"),
    [
        (r"(a)\1", GrammarUnsupportedError),
        ("(a", GrammarSyntaxError),
        ("a)", GrammarSyntaxError),
        ("[a", GrammarSyntaxError),
        ("*a", GrammarSyntaxError),
        ("a{3,2}", GrammarSyntaxError),
        ("(" * 5000, GrammarTooComplexError),
        ("a" * 200_000, GrammarTooComplexError),
        ("a{99999999}", GrammarTooComplexError),
    ],
)
def test_what_cannot_be_is_an_error(pattern: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        compile_regex(Algebra(), pattern)


def test_counters_are_not_unrolled() -> None:
    algebra = Algebra()
    expression = compile_regex(algebra, "^[a-z]{3,900000}$", "ecma", search=True)
    assert algebra.matches(expression, "abc") and not algebra.matches(expression, "ab")
    assert len(algebra) < 100


def test_long_patterns_are_no_trouble() -> None:
    algebra = Algebra()
    expression = compile_regex(algebra, "^" + "ab?" * 3000 + "$", "ecma", search=True)
    assert algebra.matches(expression, "a" * 3000) and not algebra.matches(expression, "a" * 2999)
