"""Arrays: what the next item must satisfy, how many there are, and which are counted by `contains`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple

from octavo.grammar.errors import GrammarUnsupportedError
from octavo.grammar.json_schema.cases import Case
from octavo.grammar.json_schema.scalars import Goal
from octavo.grammar.layout import NONE, next_space
from octavo.grammar.network import BasePosition, Outline, Position, Return
from octavo.grammar.text_positions import PlainText, StringText, Watch

if TYPE_CHECKING:
    from octavo.grammar.json_schema.goals import Goals


class Progress(NamedTuple):
    """How many items there are (as far as it matters), how many each `contains` counted, which are taken."""

    size: int = 0
    counts: tuple[int, ...] = ()
    used: frozenset[str] = frozenset()


class ArrayShape:
    """One case of an array."""

    def __init__(self, goals: Goals, case: Case) -> None:
        self.goals = goals
        self.least, self.most = 0, None
        self.items: list[tuple[int, int | None, Goal]] = []
        self.contains: list[tuple[int, int | None, tuple[str, bool], int, int | None]] = []
        self.unique = False
        for item in case:
            if item[0] == "count":
                self.least = max(self.least, item[1])
                self.most = (
                    item[2]
                    if self.most is None
                    else self.most
                    if item[2] is None
                    else min(self.most, item[2])
                )
            elif item[0] == "items":
                self.items.append(item[1:])
            elif item[0] == "contains":
                self.contains.append(item[1:])
            else:
                self.unique = True
        edges = [self.least, self.most or 0, *self._edges()]
        #: From this index on all items are alike.
        self.settled = max(edges)
        self._item_goals: dict[int, Goal] = {}
        self._limit: int | None = None
        if self.unique and self.limit() is not None and self.limit() <= 1:  # type: ignore[operator]
            self.unique = False
        if self.unique:
            self._check_unique()

    def _check_unique(self) -> None:
        for index in sorted({0, *self._edges()}):
            goal = self.item_goal(index)
            if self.goals.satisfiable(goal, "array") or self.goals.satisfiable(goal, "object"):
                raise GrammarUnsupportedError(
                    f"{_some_place(goal)}: uniqueItems over arrays or objects cannot be enforced"
                )

    def _edges(self) -> list[int]:
        """The indexes at which something changes."""
        bounds = [(low, high) for low, high, _ in self.items] + [(c[0], c[1]) for c in self.contains]
        return [edge for pair in bounds for edge in pair if edge is not None]

    def value_goals(self) -> list[Goal]:
        """Of all items, without what `contains` asks for."""
        return [self.item_goal(index) for index in sorted({0, *self._edges(), self.settled})]

    def item_goal(self, index: int) -> Goal:
        index = min(index, self.settled)
        if index not in self._item_goals:
            applying = [
                goal for low, high, goal in self.items if low <= index and (high is None or index < high)
            ]
            self._item_goals[index] = self.goals.goal(*applying)
        return self._item_goals[index]

    def limit(self) -> int | None:
        """The most items that there can be: up to the first index at which nothing is possible."""
        if self._limit is None:
            for index in sorted({0, *self._edges(), self.settled}):
                if self.most is not None and index >= self.most:
                    break
                if not self.goals.satisfiable(self.item_goal(index)):
                    return index
        return self.most

    def start(self) -> Progress:
        return Progress(counts=(0,) * len(self.contains))

    def satisfiable(self) -> bool:
        if self.least == 0 and not self.contains:
            return True  # as the empty array, whatever its items would be
        return self.can_finish(self.start())

    def may_close(self, progress: Progress) -> bool:
        enough = all(n >= c[3] for n, c in zip(progress.counts, self.contains, strict=True))
        return progress.size >= self.least and enough

    def can_finish(self, progress: Progress) -> bool:
        limit = self.limit()
        if limit is not None and (limit < self.least or progress.size > limit):
            return False
        for count, (low, high, literal, least, most) in zip(progress.counts, self.contains, strict=True):
            if most is not None and (count > most or most < least):
                return False
            if count < least and not self._can_contain(progress, low, high, literal, least - count, limit):
                return False
        return True

    def _can_contain(
        self,
        progress: Progress,
        low: int,
        high: int | None,
        literal: tuple[str, bool],
        needed: int,
        limit: int | None,
    ) -> bool:
        places = 0
        indexes = sorted(
            {max(progress.size, low), *(e for e in self._edges() if e >= progress.size), self.settled}
        )
        for position, index in enumerate(indexes):
            if index < low or (high is not None and index >= high) or (limit is not None and index >= limit):
                continue
            if not self.goals.satisfiable(self.goals.goal(self.item_goal(index), frozenset({literal}))):
                continue
            following = indexes[position + 1] if position + 1 < len(indexes) else None
            bounds = [bound for bound in (following, high, limit) if bound is not None]
            if not bounds:
                return True
            places += min(bounds) - index
        return places >= needed

    def choices(self, progress: Progress) -> list[tuple[Goal, Progress]]:
        """What the next item may be, and what has been read after it."""
        index = progress.size
        limit = self.limit()
        if limit is not None and index >= limit:
            return []
        base = self.item_goal(index)
        options: list[list[tuple[Goal, int]]] = []
        for count, (low, high, literal, least, most) in zip(progress.counts, self.contains, strict=True):
            inside = low <= index and (high is None or index < high)
            if not inside or (most is None and count >= least):
                options.append([(frozenset(), count)])
                continue
            place, holds = literal
            options.append(
                [(frozenset({(place, holds)}), count + 1), (frozenset({(place, not holds)}), count)]
            )
        after_index = min(index + 1, self.settled + (0 if self.most is None else 1))
        result = []
        for combination in product(*options):
            goal = self.goals.goal(base, *(extra for extra, _ in combination))
            after = Progress(after_index, tuple(count for _, count in combination), progress.used)
            if self.can_finish(after) and self.goals.satisfiable(goal):
                result.append((goal, after))
        return result

    def goes_on(self, progress: Progress) -> bool:
        """Whether there can be a next item."""
        choices = self.choices(progress)
        if not self.unique:
            return bool(choices)
        return any(self.unique_items(goal, after) for goal, after in choices)

    def unique_items(self, goal: Goal, after: Progress) -> list[tuple[Position, Return]]:
        """The beginnings of an item that differs from those before: each kind of scalar by itself."""
        goals, algebra, scalars = self.goals, self.goals.algebra, self.goals.scalars
        result: list[tuple[Position, Return]] = []
        used = after.used

        for word in ("null", "true", "false"):
            if word not in used and scalars.constant(goal, word):
                taken = ItemRead(self, after._replace(used=used | {word}))
                result.append((PlainText(algebra, algebra.literal(word)), taken))
        strings = scalars.strings(goal)
        before = [text[1:] for text in sorted(used) if text.startswith('"')]
        if before:
            strings = algebra.both(strings, algebra.negate(scalars.texts(before)))
        if algebra.live(strings):
            result.append(
                (StringText(algebra, strings, watch=TextWatch(goals, '"')), UniqueRead(self, after))
            )
        numbers = scalars.number(goal)
        if algebra.live(numbers):
            numbers = algebra.both(numbers, scalars.numbers.plain)
            for text in sorted(used):
                if text[0] in "-0123456789":
                    numbers = algebra.both(numbers, algebra.negate(scalars.numbers.compare(text, {0})))
            if algebra.live(numbers):
                result.append(
                    (PlainText(algebra, numbers, watch=TextWatch(goals, "")), UniqueRead(self, after))
                )
        return result


def _some_place(goal: Goal) -> str:
    return min((place for place, _ in goal), default="#")


@dataclass(frozen=True, slots=True)
class TextWatch(Watch):
    """The text of an item, kept so that no later item can be equal."""

    goals: Goals
    text: str

    def native(self) -> tuple[Goals, int, tuple[int, ...], str]:
        return (self.goals, self.goals.algebra.empty, (), self.text)

    def step(self, code_point: int) -> Watch:
        return TextWatch(self.goals, self.text + chr(code_point))

    def label(self) -> int:
        return self.goals.text_label(self.text)


OPEN, FIRST, AFTER, NEXT, CLOSED = range(5)
_DONE: Any = Progress()


@dataclass(frozen=True, slots=True)
class ArrayPosition(BasePosition):
    """A place in an array."""

    shape: ArrayShape
    phase: int
    progress: Progress
    space: int = NONE

    @classmethod
    def begin(cls, shape: ArrayShape) -> Position:
        return cls(shape, OPEN, shape.start())

    @property
    def silent(self) -> bool:
        return self.phase == CLOSED

    def outline(self) -> Outline:
        shape, phase, progress = self.shape, self.phase, self.progress
        layout = shape.goals.layout_number
        if phase == OPEN:
            return Outline(moves=((0x5B, ArrayPosition(shape, FIRST, progress)),))
        if phase == CLOSED:
            return Outline(ending=0)
        closes = phase in (FIRST, AFTER) and shape.may_close(progress)
        moves = ((0x5D, ArrayPosition(shape, CLOSED, _DONE)),) if closes else ()
        if phase == AFTER:
            tight = ((0x2C, ArrayPosition(shape, NEXT, progress)),) if shape.goes_on(progress) else ()
            return Outline(layout=layout if closes else 0, moves=moves, tight=tight)
        return Outline(layout=layout, moves=moves, calls=self.calls())

    def ending(self) -> int | None:
        return 0 if self.phase == CLOSED else None

    def step(self, byte: int) -> Position | None:
        shape, phase = self.shape, self.phase
        if phase == OPEN:
            return ArrayPosition(shape, FIRST, self.progress) if byte == 0x5B else None
        if phase == CLOSED:
            return None
        closes = phase in (FIRST, AFTER) and shape.may_close(self.progress)
        if closes and byte == 0x5D:
            return ArrayPosition(shape, CLOSED, _DONE)
        if phase == AFTER and byte == 0x2C and self.space == NONE:
            return ArrayPosition(shape, NEXT, self.progress) if shape.goes_on(self.progress) else None
        if phase == AFTER and not closes:
            return None
        space = next_space(shape.goals.layout, self.space, byte)
        return None if space is None else replace(self, space=space)

    def calls(self) -> Sequence[tuple[Position, Return | None]]:
        if self.phase not in (FIRST, NEXT):
            return ()
        shape = self.shape
        result: list[tuple[Position, Return | None]] = []
        for goal, after in shape.choices(self.progress):
            if shape.unique:
                result += shape.unique_items(goal, after)
            else:
                result.append((shape.goals.position(goal), ItemRead(shape, after)))
        return result


@dataclass(frozen=True, slots=True)
class ItemRead:
    shape: ArrayShape
    progress: Progress

    def resume(self, label: int) -> Position | None:
        return ArrayPosition(self.shape, AFTER, self.progress)


@dataclass(frozen=True, slots=True)
class UniqueRead:
    """After an item whose text its label tells."""

    shape: ArrayShape
    progress: Progress

    def resume(self, label: int) -> Position | None:
        text = self.shape.goals.labelled_text(label)
        if not text:  # some text that no other is equal to
            return ArrayPosition(self.shape, AFTER, self.progress)
        return ArrayPosition(self.shape, AFTER, self.progress._replace(used=self.progress.used | {text}))
