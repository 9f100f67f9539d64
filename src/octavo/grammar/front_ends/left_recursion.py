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
MAX_STEPS = 2_000


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
    """`inside` gives what a text calls before any byte, for those that stand around an item instead."""

    def __init__(
        self,
        items: dict[str, Item],
        nullable_text: Callable[[Item], bool],
        inside: Callable[[Item], Item | None],
    ) -> None:
        self.items = dict(items)
        self.nullable_text = nullable_text
        self.inside = inside
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
            inner = self.inside(item)
            return self.nullable_text(item) if inner is None else self.is_nullable(inner)
        if kind == "rule":
            return item[1] in self.nullable
        if kind == "repeat":
            return item[2] == 0 or self.is_nullable(item[1])
        return (all if kind == "seq" else any)(self.is_nullable(part) for part in item[1])

    def beginnings(self, item: Item) -> set[str]:
        """The rules that can be called before any byte."""
        return {name for name, _ in self._leading(item, True)}

    def nesting(self, item: Item) -> set[str]:
        """Those of them behind which something of the item is still to come, be it empty."""
        return {name for name, last in self._leading(item, True) if not last}

    def _leading(self, item: Item, last: bool) -> set[tuple[str, bool]]:
        kind = item[0]
        if kind == "rule":
            return {(item[1], last)}
        if kind == "repeat":
            return self._leading(item[1], last and item[3] == 1)
        if kind == "text":
            inner = self.inside(item)
            return set() if inner is None else self._leading(inner, last)
        result: set[tuple[str, bool]] = set()
        for index, part in enumerate(item[1]):
            result |= self._leading(part, last and (kind == "alt" or index == len(item[1]) - 1))
            if kind == "seq" and not self.is_nullable(part):
                break
        return result


def remove_left_recursion(
    items: dict[str, Item],
    start: str,
    nullable_text: Callable[[Item], bool],
    inside: Callable[[Item], Item | None] = lambda item: None,
) -> dict[str, Item]:
    """The same language from `start`, without a rule that calls itself before any text; refuses those that do
    so behind something that can be empty.
    """
    written = _without_plain(items, nullable_text, inside)
    grammar = _Grammar(written, nullable_text, inside)
    begins = {name: grammar.beginnings(item) for name, item in written.items()}
    used = {start, *_reachable({name: _rules_in(item) for name, item in written.items()}, start)}
    for name in sorted(used):
        if any(
            name == other or name in _reachable(begins, other) for other in grammar.nesting(written[name])
        ):
            raise _refusal(items, name, _Grammar(items, nullable_text, inside))
    return written


def _refusal(items: dict[str, Item], name: str, grammar: _Grammar) -> GrammarUnsupportedError:
    """With the shortest way from the rule to itself without any text, in the grammar as it was given."""
    row = [[name]]
    for way in row:
        following = sorted(grammar.beginnings(items[way[-1]]))
        if name in following:
            row = [[*way, name]]
            break
        row += [[*way, other] for other in following if all(other not in known for known in row)]
    return GrammarUnsupportedError(
        f"the rule {name!r} calls itself before any text, around something that can be empty: "
        f"{' -> '.join(row[0])}; let it begin with text, or repeat with *"
    )


def _rules_in(item: Item) -> set[str]:
    if item[0] == "rule":
        return {item[1]}
    parts = item[1] if item[0] in ("seq", "alt") else [p for p in item[1:] if isinstance(p, tuple)]
    return set().union(*(_rules_in(part) for part in parts if part and isinstance(part, tuple)))


def _without_plain(
    items: dict[str, Item],
    nullable_text: Callable[[Item], bool],
    inside: Callable[[Item], Item | None],
) -> dict[str, Item]:
    grammar = _Grammar(items, nullable_text, inside)
    begins = {name: grammar.beginnings(item) for name, item in items.items()}
    circular = [name for name in items if name in _reachable(begins, name)]
    done: list[str] = []
    for name in circular:
        circle = {other for other in _reachable(begins, name) if name in _reachable(begins, other)}
        sequences = _sequences(grammar.items[name])
        written = 0
        while True:
            leading = [i for i, s in enumerate(sequences) if s and s[0][0] == "rule" and s[0][1] in done
                       and s[0][1] in circle]  # fmt: skip
            if not leading:
                break
            index = leading[0]
            first, *rest = sequences.pop(index)
            sequences[index:index] = [(*option, *rest) for option in _sequences(grammar.items[first[1]])]
            written += 1
            if written > MAX_STEPS:  # without an end, which takes something empty
                raise _refusal(items, name, _Grammar(items, nullable_text, inside))
            if len(sequences) > MAX_ALTERNATIVES:
                raise GrammarTooComplexError(
                    f"the left recursion of {name!r} cannot be written out within the limits"
                )
        grammar.items[name] = _direct(name, sequences)
        done.append(name)
    return grammar.items


def _direct(name: str, sequences: list[tuple[Item, ...]]) -> Item:
    """A -> A x | b  as  b x*."""
    bases, tails = [], []
    for sequence in sequences:
        if sequence and sequence[0] == ("rule", name):
            if sequence[1:]:
                tails.append(("seq", sequence[1:]))
            continue
        bases.append(("seq", sequence))
    if not bases:
        raise GrammarUnsupportedError(f"the rule {name!r} begins only with itself")
    base: Item = ("alt", tuple(bases))
    return ("seq", (base, ("repeat", ("alt", tuple(tails)), 0, UNBOUNDED))) if tails else base


def _sequences(item: Item) -> list[tuple[Item, ...]]:
    """The alternatives of an item, groups and repeats opened at their beginnings."""
    if item[0] == "alt":
        return [sequence for part in item[1] for sequence in _sequences(part)]
    if item[0] == "seq":
        if not item[1]:
            return [()]
        return [(*first, *item[1][1:]) for first in _sequences(item[1][0])]
    if item[0] == "repeat" and item[3] != 0:
        _, body, least, most = item
        again = ("repeat", body, max(least - 1, 0), most if most == UNBOUNDED else most - 1)
        firsts = _sequences(body)
        begun = [(*first, again) if most != 1 else first for first in firsts if first]
        return [(), *begun] if least == 0 or () in firsts else begun
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
