"""The native algebra against its slow twin: the same expressions made in both, the same texts tried."""

from __future__ import annotations

import random
from typing import Any

import pytest

from octavo.grammar.engine.reference_algebra import ReferenceAlgebra
from octavo.grammar.errors import GrammarTooComplexError
from octavo.grammar.expressions import UNBOUNDED, Algebra
from octavo.grammar.json_schema.numbers import NumberLanguage
from octavo.grammar.literals import LiteralTrie


def random_expression(algebra: Any, generator: random.Random, depth: int) -> int:
    kind = generator.randrange(9 if depth else 3)
    if kind == 0:
        return int(algebra.characters([(97, 96 + generator.randint(1, 3))]))
    if kind == 1:
        return int(algebra.literal(generator.choice(["a", "ab", "", "ba"])))
    if kind == 2:
        return int(algebra.leaf(LiteralTrie.build(["ab", "a", "cab"])))
    parts = [random_expression(algebra, generator, depth - 1) for _ in range(2)]
    if kind == 3:
        return int(algebra.negate(parts[0]))
    if kind == 4:
        least = generator.randrange(3)
        return int(algebra.repeat(parts[0], least, generator.choice([UNBOUNDED, least, least + 2])))
    return int((algebra.concat, algebra.either, algebra.both, algebra.concat)[kind - 5](*parts))


def test_random_expressions_match_the_same_texts() -> None:
    texts = ["", *"abc", "ab", "ba", "cab", "abab", "aabb", "abcabc", "d", "\u00e9"]
    for seed in range(300):
        fast, slow = Algebra(), ReferenceAlgebra()
        one = random_expression(fast, random.Random(seed), 4)
        two = random_expression(slow, random.Random(seed), 4)
        assert [fast.matches(one, t) for t in texts] == [slow.matches(two, t) for t in texts], seed
        assert fast.live(one) == slow.live(two), seed
        assert [move[:2] for move in fast.live_moves(one)] == [move[:2] for move in slow.live_moves(two)], (
            seed
        )


@pytest.mark.parametrize("value", [0, -7, 12.5, -0.03, 1e3, 100, 0.1])
def test_comparisons_and_remainders_match_the_same_numbers(value: float) -> None:
    fast, slow = Algebra(), ReferenceAlgebra()
    expressions = []
    for algebra in (fast, slow):
        numbers = NumberLanguage(algebra)  # type: ignore[arg-type]
        parts = [numbers.compare(value, {0, 1}), numbers.compare(value, {-1}), numbers.compare(value, {0})]
        if value:
            parts.append(numbers.multiple(abs(value)))
        expressions.append([algebra.both(numbers.plain, part) for part in parts])
    for text in (
        "0",
        "-1",
        "7",
        "-7",
        "12.5",
        "12.50",
        "100",
        "1000",
        "0.1",
        "-0.03",
        "-0.3",
        "99",
        "25",
        "3.",
    ):
        for one, two in zip(*expressions, strict=True):
            assert fast.matches(one, text) == slow.matches(two, text), (value, text)


def test_limits_end_in_an_error() -> None:
    for algebra in (Algebra(max_expressions=50), ReferenceAlgebra(max_expressions=50)):
        with pytest.raises(GrammarTooComplexError):
            algebra.literal("a" * 100)
