"""Grammars that begin later: behind bytes that are there already, or behind a trigger in free text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from octavo.grammar.errors import GrammarSyntaxError
from octavo.grammar.expressions import Algebra
from octavo.grammar.network import BasePosition, Outline, Position, Return, Silent
from octavo.grammar.text_positions import PlainText


@dataclass(frozen=True, slots=True)
class Beginning(BasePosition):
    """Bytes still to come, then a rule."""

    data: bytes
    then: Position

    def step(self, byte: int) -> Position | None:
        return Beginning(self.data[1:], self.then) if self.data[:1] == bytes((byte,)) else None

    def calls(self) -> Sequence[tuple[Position, Return | None]]:
        return () if self.data else ((self.then, None),)

    def outline(self) -> Outline | None:
        moves = ((self.data[0], Beginning(self.data[1:], self.then)),) if self.data else ()
        return Outline(moves=moves, calls=self.calls())


@dataclass(frozen=True, slots=True)
class FreeText(Silent):
    """Text without the trigger to the end, or up to it and then what it triggers.

    until: the texts that end with the trigger and do not have it before; without: those that never have it.
    end: what comes behind a text of `inner`.
    """

    algebra: Algebra
    until: int
    without: int
    inner: Position
    end: int

    def calls(self) -> Sequence[tuple[Position, Return | None]]:
        return (
            (PlainText(self.algebra, self.without), None),
            (PlainText(self.algebra, self.until), Behind(self, "trigger")),
        )

    def closing_calls(self) -> Sequence[tuple[Position, Return | None]]:
        return self.calls()


@dataclass(frozen=True, slots=True)
class Behind:
    """Where to go on behind the trigger, behind what it triggers, and behind the end: in free text again."""

    text: FreeText
    part: Literal["trigger", "inner", "end"]

    def resume(self, label: int) -> Position | None:
        return self.text if self.part == "end" else Part(self.text, self.part)


@dataclass(frozen=True, slots=True)
class Part(Silent):
    """The place behind a trigger or behind what it triggers."""

    text: FreeText
    behind: Literal["trigger", "inner"]

    def calls(self) -> Sequence[tuple[Position, Return | None]]:
        if self.behind == "trigger":
            return ((self.text.inner, Behind(self.text, "inner")),)
        return ((PlainText(self.text.algebra, self.text.end), Behind(self.text, "end")),)


def tagged(trigger: str, inner: Position, end: str) -> Position:
    """Raises GrammarSyntaxError for an empty trigger."""
    if not trigger:
        raise GrammarSyntaxError("a trigger must not be the empty text")
    algebra = Algebra()
    ends = algebra.concat(algebra.anything, algebra.literal(trigger))
    has = algebra.concat(ends, algebra.anything)
    before = algebra.concat(ends, algebra.any_character, algebra.anything)
    until = algebra.both(ends, algebra.negate(before))
    return FreeText(algebra, until, algebra.negate(has), inner, algebra.literal(end))
