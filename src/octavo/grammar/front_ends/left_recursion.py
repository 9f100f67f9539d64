"""Rules without endless beginnings: unproductive parts are cut, and left recursion becomes repetition.

A -> A x | b accepts the same texts as A -> b x*; a recursion through several rules is first written out until
each rule begins only with itself or with rules outside of the circle (Paull's algorithm, on the circle
alone).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from octavo.grammar.errors import GrammarTooComplexError, GrammarUnsupportedError
from octavo.grammar.expressions import UNBOUNDED

Item = tuple[Any, ...]
MAX_ALTERNATIVES = 20_000


def trim(items: dict[str, Item], alive: Callable[[Item], bool]) -> dict[str, Item]:
    """The rules that some text completes, without the alternatives that none does."""
    productive: set[str] = set()
    grew = True
    while grew:
        grew = False
        for name, item in items.items():
            if name not in productive and _productive(item, productive, alive):
                productive.add(name)
                grew = True
    return {name: _cut(item, productive, alive) for name, item in items.items() if name in productive}


def _productive(item: Item, rules: set[str], alive: Callable[[Item], bool]) -> bool:
    kind = item[0]
    if kind == "text":
        return alive(item)
    if kind == "rule":
        return item[1] in rules
    if kind == "repeat":
        return item[2] == 0 or _productive(item[1], rules, alive)
    check = all if kind == "seq" else any
    return check(_productive(part, rules, alive) for part in item[1])


def _cut(item: Item, rules: set[str], alive: Callable[[Item], bool]) -> Item:
    kind = item[0]
    if kind == "alt":
        return ("alt", tuple(_cut(part, rules, alive) for part in item[1] if _productive(part, rules, alive)))
    if kind == "seq":
        return ("seq", tuple(_cut(part, rules, alive) for part in item[1]))
    if kind == "repeat":
        if not _productive(item[1], rules, alive):
            return ("seq", ())
        return ("repeat", _cut(item[1], rules, alive), item[2], item[3])
    return item


class _Grammar:
    def __init__(self, items: dict[str, Item], nullable_text: Callable[[Item], bool]) -> None:
        self.items = dict(items)
        self.nullable_text = nullable_text
        self.nullable: set[str] = set()
        grew = True
        while grew:
            grew = False
            for name, item in items.items():
                if name not in self.nullable and self.is_nullable(item):
                    self.nullable.add(name)
                    grew = True

    def is_nullable(self, item: Item) -> bool:
        kind = item[0]
        if kind == "text":
            return self.nullable_text(item)
        if kind == "rule":
            return item[1] in self.nullable
        if kind == "repeat":
            return item[2] == 0 or self.is_nullable(item[1])
        return (all if kind == "seq" else any)(self.is_nullable(part) for part in item[1])

    def beginnings(self, item: Item) -> set[str]:
        """The rules that can be called before any byte."""
        kind = item[0]
        if kind == "rule":
            return {item[1]}
        if kind == "repeat":
            return self.beginnings(item[1])
        result: set[str] = set()
        if kind in ("seq", "alt"):
            for part in item[1]:
                result |= self.beginnings(part)
                if kind == "seq" and not self.is_nullable(part):
                    break
        return result


def remove_left_recursion(items: dict[str, Item], nullable_text: Callable[[Item], bool]) -> dict[str, Item]:
    grammar = _Grammar(items, nullable_text)
    begins = {name: grammar.beginnings(item) for name, item in items.items()}
    circular = [name for name in items if name in _reachable(begins, name)]
    done: list[str] = []
    for name in circular:
        circle = {other for other in _reachable(begins, name) if name in _reachable(begins, other)}
        sequences = _sequences(grammar.items[name])
        while True:
            leading = [i for i, s in enumerate(sequences) if s and s[0][0] == "rule" and s[0][1] in done
                       and s[0][1] in circle]  # fmt: skip
            if not leading:
                break
            index = leading[0]
            first, *rest = sequences.pop(index)
            sequences[index:index] = [(*option, *rest) for option in _sequences(grammar.items[first[1]])]
            if len(sequences) > MAX_ALTERNATIVES:
                raise GrammarTooComplexError(
                    f"the left recursion of {name!r} cannot be written out within the limits"
                )
        grammar.items[name] = _direct(grammar, name, sequences, circle)
        done.append(name)
    return grammar.items


def _direct(grammar: _Grammar, name: str, sequences: list[tuple[Item, ...]], circle: set[str]) -> Item:
    """A -> A x | b  as  b x*."""
    bases, tails = [], []
    for sequence in sequences:
        if sequence and sequence[0] == ("rule", name):
            if sequence[1:]:
                tails.append(("seq", sequence[1:]))
            continue
        first = 0
        while first < len(sequence) and grammar.is_nullable(sequence[first]):
            first += 1
        if first and grammar.beginnings(("seq", sequence)) & circle:
            raise GrammarUnsupportedError(
                f"the rule {name!r} calls itself behind something that can be empty"
            )
        bases.append(("seq", sequence))
    if not bases:
        raise GrammarUnsupportedError(f"the rule {name!r} begins only with itself")
    base: Item = ("alt", tuple(bases))
    return ("seq", (base, ("repeat", ("alt", tuple(tails)), 0, UNBOUNDED))) if tails else base


def _sequences(item: Item) -> list[tuple[Item, ...]]:
    """The alternatives of an item, groups at their beginnings opened."""
    if item[0] == "alt":
        return [sequence for part in item[1] for sequence in _sequences(part)]
    if item[0] == "seq":
        if not item[1]:
            return [()]
        return [(*first, *item[1][1:]) for first in _sequences(item[1][0])]
    return [(item,)]


def _reachable(edges: dict[str, set[str]], start: str) -> set[str]:
    seen: set[str] = set()
    work = list(edges.get(start, ()))
    while work:
        name = work.pop()
        if name not in seen:
            seen.add(name)
            work.extend(edges.get(name, ()))
    return seen
