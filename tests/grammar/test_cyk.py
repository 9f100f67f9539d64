"""Small context-free languages, exhaustively, against the algorithm of Cocke, Younger and Kasami.

Of every text over a few letters: it is accepted exactly if CYK derives it, it may be begun exactly if CYK
derives a text that begins so, and the native engine's masks say the same of each token.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from octavo.grammar import (
    CompiledGrammar,
    Grammar,
    GrammarCompiler,
    GrammarEmptyError,
    GrammarMatcher,
    GrammarUnsupportedError,
    TokenizerInfo,
    allocate_token_bitmask,
)
from octavo.grammar.engine.automaton import DEAD, Automaton
from octavo.grammar.tokens import bitmask_to_bools

Rules = dict[str, list[tuple[str, ...]]]  # symbols: letters, capital letters for rules, either with ? or *


class Cyk:
    """Which symbols derive a text, and which derive some text that begins with it.

    The tail of a sequence is a symbol of its own, so that every production has at most two parts; either may
    be empty, for which the parts of a text include the empty one and the text itself, up to a fixpoint.
    """

    def __init__(self, rules: Rules) -> None:
        self.productions: set[tuple[object, object, object]] = set()  # head, first, tail
        self.empty: set[object] = {()}
        for name, options in rules.items():
            for option in options:
                self._sequence(option)
                self.productions.add((name, option, ()))
        self.texts = cache(self._texts)
        self.beginnings = cache(self._beginnings)

    def _sequence(self, symbols: tuple[str, ...]) -> None:
        for index, symbol in enumerate(symbols):
            self.productions.add((symbols[index:], symbol, symbols[index + 1 :]))
            if symbol[1:]:
                self.empty.add(symbol)
                self.productions.add((symbol, symbol[0], symbol if symbol[1] == "*" else ()))

    def _grow(
        self, found: set[object], holds: Callable[[set[object], object, object], bool]
    ) -> frozenset[object]:
        grew = True
        while grew:
            heads = {head for head, first, tail in self.productions if holds(found, first, tail)}
            grew = not heads <= found
            found |= heads
        return frozenset(found)

    def _texts(self, text: str) -> frozenset[object]:
        splits = [(text[:k], text[k:]) for k in range(1, len(text))]

        def holds(found: set[object], first: object, tail: object) -> bool:
            if not text:
                return first in found and tail in found
            empty = self.texts("")
            return (
                (first in empty and tail in found)
                or (first in found and tail in empty)
                or any(first in self.texts(left) and tail in self.texts(right) for left, right in splits)
            )

        return self._grow(set(self.empty) if not text else {text}, holds)

    def _beginnings(self, text: str) -> frozenset[object]:
        def holds(found: set[object], first: object, tail: object) -> bool:
            if not text:
                return first in found and tail in found
            return (first in found and tail in self.beginnings("")) or any(
                first in self.texts(text[:k]) and tail in (found if k == 0 else self.beginnings(text[k:]))
                for k in range(len(text))
            )

        # Of the empty text: whatever derives anything at all.
        return self._grow({*self.empty, *"abc"} if not text else set(self.texts(text)), holds)


def gbnf(rules: Rules) -> str:
    def written(symbol: str) -> str:
        return (symbol[0] if symbol[0].isupper() else f'"{symbol[0]}"') + symbol[1:]

    lines = []
    for name, options in rules.items():
        bodies = [" ".join(map(written, option)) or '""' for option in options]
        lines.append(f"{name} ::= {' | '.join(bodies)}")
    return "\n".join(lines)


def grammars(letters: str) -> st.SearchStrategy[Rules]:
    symbols = st.tuples(st.sampled_from([*letters, *"STU"]), st.sampled_from(["", "", "", "?", "*"]))
    option = st.lists(symbols.map("".join), max_size=3).map(tuple)
    return st.fixed_dictionaries({name: st.lists(option, min_size=1, max_size=3) for name in "STU"})


def check(rules: Rules, letters: str, size: int) -> None:
    oracle = Cyk(rules)
    tokens = [*letters, *map("".join, itertools.product(letters, repeat=2)), letters[0] * 3, ""]
    info = TokenizerInfo([token.encode() for token in tokens], stop_token_ids=[len(tokens) - 1])
    try:
        grammar = Grammar.from_gbnf(gbnf(rules), root="S")
        automaton, compiled = Automaton(grammar.start), GrammarCompiler(info).compile(grammar)
    except GrammarEmptyError:
        assert "S" not in oracle.beginnings("")
        return
    except GrammarUnsupportedError as error:
        assert calls_itself_behind_nothing(rules, oracle), error
        return
    compare(oracle, automaton, compiled, tokens, letters, size)


def calls_itself_behind_nothing(rules: Rules, oracle: Cyk) -> bool:
    """Whether some rule comes to itself behind symbols that may all be empty: that is refused."""
    plain: dict[str, set[str]] = {name: set() for name in rules}
    hidden = [
        (name, option[index][0])
        for name, options in rules.items()
        for option in options
        for index in range(len(option))
        if option[index][0] in rules
        and all(symbol in oracle.texts("") for symbol in option[:index])
        and not plain[name].add(option[index][0])  # type: ignore[func-returns-value]
        and (index > 0 or (option[index][1:] == "*" and option[index][0] in oracle.texts("")))
    ]

    def reaches(start: str, end: str, seen: frozenset[str] = frozenset()) -> bool:
        return start == end or any(
            reaches(other, end, seen | {start}) for other in plain[start] if other not in seen | {start}
        )

    return any(reaches(other, name) for name, other in hidden)


def compare(
    oracle: Cyk, automaton: Automaton, compiled: CompiledGrammar, tokens: list[str], letters: str, size: int
) -> None:
    """Every text of up to `size` letters: begun, accepted, and its mask."""
    mask = allocate_token_bitmask(1, len(tokens))
    for text in ("".join(text) for n in range(size + 1) for text in itertools.product(letters, repeat=n)):
        state = automaton.start
        for byte in text.encode():
            state = automaton.step(state, byte) if state != DEAD else DEAD
        begun, accepted = "S" in oracle.beginnings(text), "S" in oracle.texts(text)
        matcher = GrammarMatcher(compiled)
        assert (state != DEAD) == begun == (not text or matcher.accept_bytes(text.encode())), text
        if not begun:
            continue
        assert bool(automaton.states[state].endings) == accepted == matcher.is_completed(), text
        matcher.fill_next_token_bitmask(mask)
        expected = ["S" in oracle.beginnings(text + token) for token in tokens[:-1]] + [accepted]
        assert np.array_equal(bitmask_to_bools(mask, len(tokens)), expected), text


@pytest.mark.parametrize(
    ("rules", "circle"),
    [
        ({"S": [("a", "T")], "T": [(), ("T", "T")]}, "T -> T"),
        ({"S": [("T", "S", "a"), ("b",)], "T": [("b",), ()]}, "S -> S"),
        ({"S": [("a", "T")], "T": [("U*", "U", "a"), ()], "U": [("T", "b"), ()]}, "U -> T -> U"),
    ],
)
def test_a_rule_that_calls_itself_behind_nothing_is_named_at_once(rules: Rules, circle: str) -> None:
    with pytest.raises(GrammarUnsupportedError, match=circle):
        Grammar.from_gbnf(gbnf(rules), root="S")
    texts = {"a": "A", "b": "B"}
    lark = ['A: "a"', 'B: "b"']
    for name, options in rules.items():
        bodies = [" ".join(texts.get(s[0], s[0].lower()) + s[1:] for s in option) for option in options]
        lark.append(f"{name.lower()}: {' | '.join(bodies)}")
    with pytest.raises(GrammarUnsupportedError, match=circle.lower()):
        Grammar.from_lark("\n".join(lark), start="s")


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(grammars("ab"))
def test_two_letters(rules: Rules) -> None:
    check(rules, "ab", 6)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(grammars("abc"))
def test_three_letters(rules: Rules) -> None:
    check(rules, "abc", 4)


@pytest.mark.parametrize(
    ("rules", "good", "bad"),
    [
        ({"S": [("a", "S", "b"), ()]}, ["", "aabb"], ["aab", "ba"]),
        ({"S": [("S", "S"), ("a",)]}, ["a", "aaaa"], ["", "b"]),
        ({"S": [("T*", "b?")], "T": [("a", "T"), ("b",)]}, ["", "abbb"], ["a"]),
    ],
)
def test_the_oracle_itself(rules: Rules, good: list[str], bad: list[str]) -> None:
    oracle = Cyk(rules)
    for text in good:
        assert "S" in oracle.texts(text) and all("S" in oracle.beginnings(text[:k]) for k in range(len(text)))
    assert not any("S" in oracle.texts(text) for text in bad)
