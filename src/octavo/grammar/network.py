"""The form that every front end compiles to: a recursive network of lazily made positions.

A position is a place inside a rule.  It steps deterministically over bytes, may call other rules and may end
its rule with a label; a return says where the caller goes on, given that label.  Positions are values: equal
ones are one state of the engine, so bounded counters and small parameters (which keys were seen, how many
items) are simply their fields.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol


class Return(Protocol):
    """Where a caller goes on once its callee has ended."""

    def resume(self, label: int) -> Position | None: ...


class Position(Protocol):
    """A place in a rule; hashable, immutable, equal to every other position with the same future."""

    def ending(self) -> int | None:
        """The label with which the rule may end here, or None."""
        ...

    def step(self, byte: int) -> Position | None: ...

    def calls(self) -> Sequence[tuple[Position, Return | None]]:
        """(callee, return); a return of None is a tail call: the callee's end is the end of this rule."""
        ...

    def outline(self) -> Outline | None:
        """All of the above at once, for the native engine; None where each byte must be asked for."""
        ...


Calls = Sequence[tuple[Position, Return | None]]


class Outline(NamedTuple):
    """A position whose few bytes, apart from white space of a layout (layout.py), are known beforehand."""

    ending: int | None = None
    layout: int = 0  # LAYOUTS backwards: 2 flexible, 1 line, 0 no white space here
    moves: Sequence[tuple[int, Position]] = ()
    tight: Sequence[tuple[int, Position]] = ()  # only where no white space was read
    calls: Calls = ()

    # A position may also have `closing_calls()`, asked only when a text must end: those that lead there.


class BasePosition:
    """Defaults: a position that does nothing."""

    __slots__ = ()

    def ending(self) -> int | None:
        return None

    def step(self, byte: int) -> Position | None:
        return None

    def calls(self) -> Calls:
        return ()

    def outline(self) -> Outline | None:
        return None


class Silent(BasePosition):
    """A position that takes no byte itself: it only calls or ends."""

    __slots__ = ()
    silent = True

    def outline(self) -> Outline | None:
        return Outline(ending=self.ending(), calls=self.calls())
