"""Of rules over tokens, before any text: which terminals can follow each other, how short a text can be."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from octavo.grammar.expressions import UNBOUNDED
from octavo.grammar.lexing.lexer import START, Lexer

# ("token", terminal), ("rule", name), ("seq", items), ("alt", items), ("repeat", item, least, most),
# ("mode", mode, item), ("lines", item), ("block", item), ("line", item), ("end",), ("finish",)
Item = tuple[Any, ...]


@dataclass(frozen=True)
class Mode:
    """What is ignored between tokens here, and which terminals may not be used."""

    ignored: frozenset[int] = frozenset()
    forbidden: frozenset[int] = frozenset()
    within: dict[int, int] | None = None  # mode that a part asks for -> the one that it gets here

    def inside(self, asked: int) -> int:
        return asked if self.within is None else self.within.get(asked, asked)


class Costs:
    """The shortest text of each item in each mode, in characters (Knuth 1977, "A generalization of Dijkstra's
    algorithm", here by iteration)."""

    def __init__(self, rules: dict[str, Item], modes: list[Mode], lexer: Lexer) -> None:
        self.modes = modes
        self.lexer = lexer
        self._shortest: dict[int, int] = {}
        self._rules: dict[tuple[str, int], float] = {}
        grew = True
        while grew:
            grew = False
            for name, item in rules.items():
                for mode in range(len(modes)):
                    cost = self.of(item, mode)
                    if cost < self._rules.get((name, mode), math.inf):
                        self._rules[name, mode] = cost
                        grew = True

    def of(self, item: Item, mode: int) -> float:
        kind = item[0]
        if kind == "rule":
            return self._rules.get((item[1], mode), math.inf)
        if kind == "alt":
            return min((self.of(part, mode) for part in item[1]), default=math.inf)
        if kind == "seq":
            return sum(self.of(part, mode) for part in item[1])
        if kind == "repeat":
            return self.of(item[1], mode) * item[2] if item[2] else 0
        return self._leaf(item[1], mode)

    def _leaf(self, leaf: Item, mode: int) -> float:
        kind = leaf[0]
        if kind == "token":
            return math.inf if leaf[1] in self.modes[mode].forbidden else self._length(leaf[1])
        if kind == "mode":
            return self.of(leaf[2], self.modes[mode].inside(leaf[1]))
        if kind == "end":
            return 1.5  # behind a line's end: what encloses a line may need another one
        return 1 + self.of(leaf[1], mode)

    def _length(self, terminal: int) -> int:
        if terminal not in self._shortest:
            self._shortest[terminal] = self._search(self.lexer.terminals[terminal].expression)
        return self._shortest[terminal]

    def _search(self, start: int) -> int:
        algebra, seen, row, length = self.lexer.algebra, {start}, [start], 0
        while row and not any(map(algebra.nullable, row)):
            length += 1
            reached = {target for expression in row for _, _, target in algebra.live_moves(expression)}
            row = sorted(reached - seen)
            seen |= reached
        return length


def neighbours(rules: dict[str, Item], start: str, ignored: frozenset[int]) -> dict[int, frozenset[int]]:
    """Which terminals can follow each terminal (START: can begin the text), in any text of the rules."""
    return _Neighbours(rules).run(start, ignored)


class _Neighbours:
    def __init__(self, rules: dict[str, Item]) -> None:
        self.rules = rules
        self.first: dict[str, set[int]] = {name: set() for name in rules}
        self.last: dict[str, set[int]] = {name: set() for name in rules}
        self.nullable: set[str] = set()
        self.follow: dict[int, set[int]] = {}

    def run(self, start: str, ignored: frozenset[int]) -> dict[int, frozenset[int]]:
        grew = True
        while grew:
            grew = False
            for name, item in self.rules.items():
                first, last, nullable = self.ends(item)
                grew |= not (first <= self.first[name] and last <= self.last[name])
                grew |= nullable and name not in self.nullable
                self.first[name] |= first
                self.last[name] |= last
                if nullable:
                    self.nullable.add(name)
        for item in self.rules.values():
            self.ends(item, record=True)
        result = {terminal: frozenset(after) for terminal, after in self.follow.items()}
        return {**result, START: frozenset(self.first[start])}

    def ends(self, item: Item, record: bool = False) -> tuple[set[int], set[int], bool]:
        """(terminals that can begin it, that can end it, whether it can be empty)."""
        kind = item[0]
        if kind == "rule":
            return self.first[item[1]], self.last[item[1]], item[1] in self.nullable
        if kind == "alt":
            parts = [self.ends(part, record) for part in item[1]]
            return (
                set().union(*(p[0] for p in parts)),
                set().union(*(p[1] for p in parts)),
                any(p[2] for p in parts),
            )
        if kind == "seq":
            return self._row(item[1], record)
        if kind == "repeat":
            first, last, nullable = self.ends(item[1], record)
            if record:
                self._join(last, first)
            return first, last, nullable or item[2] == 0
        leaf = item[1]
        if leaf[0] == "token":
            return {leaf[1]}, {leaf[1]}, False
        if leaf[0] == "mode":
            return self.ends(leaf[2], record)
        if leaf[0] == "end":
            return set(), set(), True
        return self.ends(("repeat", leaf[1], 1, UNBOUNDED) if leaf[0] == "block" else leaf[1], record)

    def _row(self, items: Sequence[Item], record: bool) -> tuple[set[int], set[int], bool]:
        first: set[int] = set()
        last: set[int] = set()
        nullable = True
        for item in items:
            begins, ends, empty = self.ends(item, record)
            if record:
                self._join(last, begins)
            if nullable:
                first = first | begins
            last = (last | ends) if empty else set(ends)
            nullable = nullable and empty
        return first, last, nullable

    def _join(self, left: set[int], right: set[int]) -> None:
        for terminal in left:
            self.follow.setdefault(terminal, set()).update(right)
