"""Places in an object, byte by byte: braces, keys, colons, values and commas.

Values like all positions, which nobody changes; a frozen dataclass would say so, but takes four times as long
to make, and each key of a document makes a dozen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from octavo.grammar.json_schema.objects import ObjectShape, Progress
from octavo.grammar.json_schema.scalars import Goal
from octavo.grammar.layout import NONE, next_space
from octavo.grammar.network import BasePosition, Outline, Position, Return

OPEN, FIRST, COLON, VALUE, AFTER, NEXT, CLOSED = range(7)


@dataclass(slots=True, unsafe_hash=True)
class ObjectPosition(BasePosition):
    """A place in an object.  `choices` are the values possible after the key that was read."""

    shape: ObjectShape
    phase: int
    progress: Progress
    space: int = NONE
    choices: tuple[tuple[Goal, Progress], ...] = ()

    @classmethod
    def begin(cls, shape: ObjectShape) -> Position:
        return cls(shape, OPEN, shape.start())

    @property
    def silent(self) -> bool:
        return self.phase == CLOSED

    def outline(self) -> Outline:
        shape, phase, progress = self.shape, self.phase, self.progress
        layout = shape.goals.layout_number
        if phase == OPEN:
            return Outline(moves=((0x7B, ObjectPosition(shape, FIRST, progress)),))
        if phase == COLON:
            return Outline(moves=((0x3A, ObjectPosition(shape, VALUE, progress, NONE, self.choices)),))
        if phase == CLOSED:
            return Outline(ending=0)
        closes = phase in (FIRST, AFTER) and shape.may_close(progress)
        moves = ((0x7D, ObjectPosition(shape, CLOSED, _DONE)),) if closes else ()
        if phase == AFTER:
            goes_on = shape.key(progress) is not None
            tight = ((0x2C, ObjectPosition(shape, NEXT, progress)),) if goes_on else ()
            return Outline(layout=layout if closes else 0, moves=moves, tight=tight)
        return Outline(layout=layout, moves=moves, calls=self.calls())

    def ending(self) -> int | None:
        return 0 if self.phase == CLOSED else None

    def step(self, byte: int) -> Position | None:
        shape, phase = self.shape, self.phase
        if phase == OPEN:
            return ObjectPosition(shape, FIRST, self.progress) if byte == 0x7B else None
        if phase == COLON:
            return ObjectPosition(shape, VALUE, self.progress, NONE, self.choices) if byte == 0x3A else None
        if phase in (FIRST, AFTER) and byte == 0x7D and shape.may_close(self.progress):
            return ObjectPosition(shape, CLOSED, _DONE)
        if phase == AFTER and byte == 0x2C and self.space == NONE and shape.key(self.progress) is not None:
            return ObjectPosition(shape, NEXT, self.progress)
        if phase == CLOSED:
            return None
        if phase == AFTER and not shape.may_close(self.progress):
            return None
        space = next_space(shape.goals.layout, self.space, byte)
        return None if space is None else replace(self, space=space)

    def calls(self) -> Sequence[tuple[Position, Return | None]]:
        shape = self.shape
        if self.phase in (FIRST, NEXT):
            key = shape.key(self.progress)
            return [(key, KeyRead(shape, self.progress))] if key is not None else ()
        if self.phase == VALUE:
            goals = shape.goals
            return [(goals.position(goal), ValueRead(shape, after)) for goal, after in self.choices]
        return ()

    def closing_calls(self) -> Sequence[tuple[Position, Return | None]]:
        """As `calls`, but only keys that the object cannot close without, where there are any."""
        shape = self.shape
        if self.phase in (FIRST, NEXT):
            key = shape.needed_key(self.progress)
            if key is not None:
                return [(key, KeyRead(shape, self.progress))]
        return self.calls()


_DONE = Progress()


@dataclass(slots=True, unsafe_hash=True)
class KeyRead:
    shape: ObjectShape
    progress: Progress

    def resume(self, label: int) -> Position | None:
        choices = self.shape.after_key(self.progress, label)
        return ObjectPosition(self.shape, COLON, self.progress, NONE, choices) if choices else None


@dataclass(slots=True, unsafe_hash=True)
class ValueRead:
    shape: ObjectShape
    progress: Progress

    def resume(self, label: int) -> Position | None:
        return ObjectPosition(self.shape, AFTER, self.progress)
