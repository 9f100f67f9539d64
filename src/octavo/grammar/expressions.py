"""Regular expressions as hash-consed terms with derivatives: a lazy automaton closed under and, or and not.

The derivative of r by a character c is the expression of all w such that cw is in r (Brzozowski 1964; Owens,
Reppy and Turon 2009, "Regular-expression derivatives re-examined").  Characters are Unicode code points
without the surrogates. An expression is an int; equal ids mean equal terms.  Counters r{m,n} stay counters: a
derivative lowers them by one.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

from octavo import _native

Interval = tuple[int, int]
Transition = tuple[int, int, int]  # low, high (inclusive), expression

CODE_POINTS: tuple[Interval, ...] = ((0, 0xD7FF), (0xE000, 0x10FFFF))
UNBOUNDED = -1


class Leaf(Protocol):
    """A deterministic automaton given by a hashable state: tries of literals, numbers, remainders."""

    @property
    def nullable(self) -> bool: ...

    def moves(self) -> Iterable[tuple[int, int, Any]]:
        """(low, high, next leaf) in rising order, without overlap; what is missing is a dead end."""
        ...

    # Where the native core knows the leaf by itself it may also have `native()`: ("texts", texts),
    # ("multiple", modulus, places) or ("comparison", negative, whole, fraction, bits); any other leaf is
    # asked, state by state.


def merge_intervals(intervals: Iterable[Interval]) -> tuple[Interval, ...]:
    """Sorted, disjoint, adjacent ones joined, the surrogates left out."""
    merged: list[list[int]] = []
    for low, high in sorted(intervals):
        if merged and low <= merged[-1][1] + 1:
            merged[-1][1] = max(merged[-1][1], high)
        else:
            merged.append([low, high])
    return intersect_intervals(tuple((low, high) for low, high in merged), CODE_POINTS)


def intersect_intervals(left: tuple[Interval, ...], right: tuple[Interval, ...]) -> tuple[Interval, ...]:
    result = [(max(a, c), min(b, d)) for a, b in left for c, d in right if max(a, c) <= min(b, d)]
    return tuple(sorted(result))


def invert_intervals(intervals: Iterable[Interval]) -> tuple[Interval, ...]:
    result, start = [], 0
    for low, high in sorted(intervals):
        if low > start:
            result.append((start, low - 1))
        start = max(start, high + 1)
    if start <= 0x10FFFF:
        result.append((start, 0x10FFFF))
    return merge_intervals(result)


class Algebra(_native.Algebra):
    """The arena of expressions, with their derivatives and whether each denotes any text at all.

    Its slow twin, with the same methods, is engine/reference_algebra.py.
    """
