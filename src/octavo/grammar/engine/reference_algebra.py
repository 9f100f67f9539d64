"""The slow, obvious twin of the native algebra (native/grammar/expressions.cpp): the oracle of the tests."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any

from octavo.grammar.errors import GrammarTooComplexError
from octavo.grammar.expressions import (
    CODE_POINTS,
    UNBOUNDED,
    Interval,
    Leaf,
    Transition,
    intersect_intervals,
    invert_intervals,
    merge_intervals,
)


class ReferenceAlgebra:
    """The arena of expressions, with their derivatives and whether each denotes any text at all."""

    def __init__(self, max_expressions: int = 400_000, search_budget: int = 60_000) -> None:
        self.max_expressions = max_expressions
        self.search_budget = search_budget
        self._terms: list[tuple[Any, ...]] = []
        self._ids: dict[tuple[Any, ...], int] = {}
        self._nullable: list[bool] = []
        self._plain: list[bool] = []  # neither and, not nor leaf inside: then only EMPTY is empty
        self._definitions: dict[int, int] = {}
        self._moves: dict[int, tuple[Transition, ...]] = {}
        self._live: dict[int, bool] = {}
        self._live_moves: dict[int, tuple[Transition, ...]] = {}
        self.empty = self._intern(("empty",), False, True)
        self.epsilon = self._intern(("epsilon",), True, True)
        self.any_character = self.characters(CODE_POINTS)
        self.anything = self.repeat(self.any_character, 0, UNBOUNDED)

    def __len__(self) -> int:
        return len(self._terms)

    def term(self, expression: int) -> tuple[Any, ...]:
        return self._terms[expression]

    def nullable(self, expression: int) -> bool:
        """Whether the empty text matches."""
        return self._nullable[expression]

    def _intern(self, term: tuple[Any, ...], nullable: bool, plain: bool) -> int:
        found = self._ids.get(term)
        if found is not None:
            return found
        if len(self._terms) >= self.max_expressions:
            raise GrammarTooComplexError(
                f"a regular part of the grammar needs over {self.max_expressions} states"
            )
        self._ids[term] = len(self._terms)
        self._terms.append(term)
        self._nullable.append(nullable)
        self._plain.append(plain)
        return len(self._terms) - 1

    # Constructors: each returns the simplest equal term that it knows.

    def characters(self, intervals: Iterable[Interval]) -> int:
        merged = merge_intervals(intervals)
        return self._intern(("characters", merged), False, True) if merged else self.empty

    def literal(self, text: str) -> int:
        return self.concat(*(self.characters([(ord(c), ord(c))]) for c in text))

    def leaf(self, leaf: Leaf) -> int:
        return self._intern(("leaf", leaf), leaf.nullable, False)

    def concat(self, *parts: int) -> int:
        result = self.epsilon
        for part in reversed(parts):
            result = self._concat(part, result)
        return result

    def _concat(self, left: int, right: int) -> int:
        stack = []
        while True:
            if self.empty in (left, right):
                return self.empty
            term = self._terms[left]
            if term[0] != "concat":
                break
            stack.append(term[1])
            left = term[2]
        while True:
            if left == self.epsilon:
                joined = right
            elif right == self.epsilon:
                joined = left
            elif left == right == self.anything:
                joined = left
            else:
                nullable = self._nullable[left] and self._nullable[right]
                joined = self._intern(
                    ("concat", left, right), nullable, self._plain[left] and self._plain[right]
                )
            if not stack:
                return joined
            left, right = stack.pop(), joined

    def either(self, *parts: int) -> int:
        members: set[int] = set()
        intervals: list[Interval] = []
        for part in parts:
            term = self._terms[part]
            for member in term[1] if term[0] == "either" else (part,):
                inner = self._terms[member]
                if inner[0] == "characters":
                    intervals.extend(inner[1])
                elif member != self.empty:
                    members.add(member)
        if intervals:
            members.add(self.characters(intervals))
        if self.anything in members:
            return self.anything
        if self.epsilon in members and any(self._nullable[m] for m in members if m != self.epsilon):
            members.discard(self.epsilon)
        if len(members) < 2:
            return next(iter(members), self.empty)
        ordered = tuple(sorted(members))
        return self._intern(
            ("either", ordered), any(self._nullable[m] for m in ordered), all(self._plain[m] for m in ordered)
        )

    def both(self, *parts: int) -> int:
        members: set[int] = set()
        for part in parts:
            term = self._terms[part]
            members.update(term[1] if term[0] == "both" else (part,))
        members.discard(self.anything)
        if self.empty in members:
            return self.empty
        sets = [self._terms[m][1] for m in members if self._terms[m][0] == "characters"]
        if len(sets) > 1:
            members = {m for m in members if self._terms[m][0] != "characters"}
            common = sets[0]
            for other in sets[1:]:
                common = intersect_intervals(common, other)
            members.add(self.characters(common))
            if self.empty in members:
                return self.empty
        if not members:
            return self.anything
        if len(members) == 1:
            return next(iter(members))
        if any(self._terms[m][0] == "not" and self._terms[m][1] in members for m in members):
            return self.empty
        if self.epsilon in members:
            return self.epsilon if all(self._nullable[m] for m in members) else self.empty
        ordered = tuple(sorted(members))
        return self._intern(("both", ordered), all(self._nullable[m] for m in ordered), False)

    def negate(self, part: int) -> int:
        if part == self.empty:
            return self.anything
        if part == self.anything:
            return self.empty
        term = self._terms[part]
        if term[0] == "not":
            return int(term[1])
        return self._intern(("not", part), not self._nullable[part], False)

    def repeat(self, part: int, least: int, most: int) -> int:
        """part{least,most}; most is UNBOUNDED for no upper bound."""
        if most == 0 or part == self.epsilon:
            return self.epsilon
        if part == self.empty:
            return self.epsilon if least == 0 else self.empty
        if most == 1 and least == 1:
            return part
        if self._nullable[part]:
            least = 0
        term = self._terms[part]
        if term[0] == "repeat" and term[1:] == (term[1], 0, UNBOUNDED) and least <= 1:
            return part
        return self._intern(("repeat", part, least, most), least == 0, self._plain[part])

    def optional(self, part: int) -> int:
        return self.either(part, self.epsilon)

    def recursive(self, nullable: bool) -> int:
        """A name for an expression that `define` gives later; it may contain the name, after a character."""
        return self._intern(("recursive", len(self._terms)), nullable, False)

    def define(self, name: int, expression: int) -> None:
        self._definitions[name] = expression

    # Derivatives.

    def moves(self, expression: int) -> tuple[Transition, ...]:
        """The derivatives as (low, high, expression), rising and disjoint; what is missing leads to EMPTY."""
        found = self._moves.get(expression)
        if found is None:
            try:
                found = self._moves[expression] = self._derive(expression)
            except RecursionError:  # as of a lookahead in a repetition, whose derivatives nest without end
                raise GrammarTooComplexError("the expression nests too deep to be followed") from None
        return found

    def _derive(self, expression: int) -> tuple[Transition, ...]:
        term = self._terms[expression]
        kind = term[0]
        if kind == "characters":
            return tuple((low, high, self.epsilon) for low, high in term[1])
        if kind == "leaf":
            return tuple((low, high, self.leaf(target)) for low, high, target in term[1].moves())
        if kind == "concat":
            first = tuple((low, high, self.concat(d, term[2])) for low, high, d in self.moves(term[1]))
            return self._combine([first, self.moves(term[2])], "either") if self._nullable[term[1]] else first
        if kind == "repeat":
            _, part, least, most = term
            rest = self.repeat(part, max(least - 1, 0), most if most == UNBOUNDED else most - 1)
            return tuple((low, high, self.concat(d, rest)) for low, high, d in self.moves(part))
        if kind in ("either", "both"):
            return self._combine([self.moves(part) for part in term[1]], kind)
        if kind == "not":
            return self._complement(self.moves(term[1]))
        if kind == "recursive":
            return self.moves(self._definitions[expression])
        return ()

    def _complement(self, moves: tuple[Transition, ...]) -> tuple[Transition, ...]:
        result = [(low, high, self.negate(target)) for low, high, target in moves]
        gaps = invert_intervals([(low, high) for low, high, _ in moves])
        result.extend((low, high, self.anything) for low, high in gaps)
        return self._tidy(result)

    def _combine(self, lists: list[tuple[Transition, ...]], kind: str) -> tuple[Transition, ...]:
        """All lists at once, by one sweep over their bounds."""
        if len(lists) == 1:
            return lists[0]
        events: dict[int, list[tuple[int, int]]] = {}
        for index, moves in enumerate(lists):
            for low, high, target in moves:
                events.setdefault(low, []).append((index, target))
                events.setdefault(high + 1, []).append((index, -1))
        active: dict[int, int] = {}
        result: list[Transition] = []
        bounds = sorted(events)
        for position, bound in enumerate(bounds[:-1]):
            # Ends before beginnings: a list may go on with another target at the same bound.
            for index, target in sorted(events[bound], key=lambda event: event[1]):
                if target < 0:
                    active.pop(index, None)
                else:
                    active[index] = target
            if not active or (kind == "both" and len(active) < len(lists)):
                continue
            joined = self.either(*active.values()) if kind == "either" else self.both(*active.values())
            result.append((bound, bounds[position + 1] - 1, joined))
        return self._tidy(result)

    def _tidy(self, moves: list[Transition]) -> tuple[Transition, ...]:
        result: list[Transition] = []
        for low, high, target in sorted(moves):
            if target == self.empty:
                continue
            if result and result[-1][2] == target and result[-1][1] + 1 == low:
                result[-1] = (result[-1][0], high, target)
            else:
                result.append((low, high, target))
        return tuple(result)

    # Emptiness.

    def live(self, expression: int) -> bool:
        """Whether any text matches; exact, by a search that is bounded and remembered."""
        if self._plain[expression] or self._nullable[expression]:
            return expression != self.empty
        found = self._live.get(expression)
        return self._search(expression) if found is None else found

    def _search(self, start: int) -> bool:
        parents: dict[int, int] = {start: -1}
        queue = deque([start])
        while queue:
            current = queue.popleft()
            for _, _, target in self.moves(current):
                if target in parents:
                    continue
                parents[target] = current
                if self._nullable[target] or self._plain[target] or self._live.get(target):
                    while target >= 0:
                        self._live[target] = True
                        target = parents[target]
                    return True
                if target not in self._live:
                    queue.append(target)
                if len(parents) > self.search_budget:
                    raise GrammarTooComplexError(
                        "it could not be decided within the limits whether a pattern can be satisfied"
                    )
        for seen in parents:
            self._live.setdefault(seen, False)
        return False

    def live_moves(self, expression: int) -> tuple[Transition, ...]:
        """The derivatives from which some text can still match."""
        found = self._live_moves.get(expression)
        if found is None:
            found = tuple(move for move in self.moves(expression) if self.live(move[2]))
            self._live_moves[expression] = found
        return found

    def matches(self, expression: int, text: str) -> bool:
        for character in text:
            expression = self.step(expression, ord(character))
        return self._nullable[expression]

    def step(self, expression: int, code_point: int) -> int:
        for low, high, target in self.moves(expression):
            if low <= code_point <= high:
                return target
        return self.empty
