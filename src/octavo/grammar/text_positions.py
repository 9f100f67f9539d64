"""Expressions over characters as positions over bytes: plain UTF-8, or within a JSON string, with escapes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from octavo.grammar.expressions import Algebra
from octavo.grammar.network import BasePosition, Position

# A character that has begun: the code points it may still become, and how many bytes (or hex digits) are to
# come.
Partial = tuple[int, int, int]
WHOLE: Partial = (0, 0, 0)

# One spelling for each printable ASCII character, so that known keys are forced: no \/ and no \u0061.
_ESCAPES = {0x22: 0x22, 0x5C: 0x5C, 0x62: 8, 0x66: 12, 0x6E: 10, 0x72: 13, 0x74: 9}


def begin_utf8(byte: int) -> Partial | None:
    """The code points that a first byte of several can lead to (without overlong forms)."""
    if 0xC2 <= byte <= 0xDF:
        return ((byte & 0x1F) << 6, ((byte & 0x1F) << 6) | 0x3F, 1)
    if 0xE0 <= byte <= 0xEF:
        low = (byte & 0x0F) << 12
        return (max(low, 0x800), low | 0xFFF, 2)
    if 0xF0 <= byte <= 0xF4:
        low = (byte & 0x07) << 18
        return (max(low, 0x10000), min(low | 0x3FFFF, 0x10FFFF), 3)
    return None


def continue_utf8(partial: Partial, byte: int) -> Partial | None:
    low, high, left = partial
    if byte & 0xC0 != 0x80:
        return None
    shift = 6 * (left - 1)
    base = (high >> (shift + 6)) << (shift + 6)
    start = base | ((byte & 0x3F) << shift)
    end = start | ((1 << shift) - 1)
    low, high = max(low, start), min(high, end)
    return (low, high, left - 1) if low <= high else None


def reachable(algebra: Algebra, expression: int, low: int, high: int) -> bool:
    """Whether some code point in [low, high] leads on to a match."""
    return any(start <= high and end >= low for start, end, _ in algebra.live_moves(expression))


def live_step(algebra: Algebra, expression: int, code_point: int) -> int | None:
    for low, high, target in algebra.live_moves(expression):
        if low <= code_point <= high:
            return target
    return None


# What four hex digits may stand for: no printable ASCII but the quote and the backslash, no half of a pair.
_ESCAPED = ((0, 0x1F), (0x22, 0x22), (0x5C, 0x5C), (0x7F, 0xD7FF), (0xE000, 0xFFFF))
_HEX_DIGITS = {ord(c): int(c, 16) for c in "0123456789abcdefABCDEF"}


class Watch(ABC):
    """An automaton that only looks on; a value, like a position."""

    __slots__ = ()

    def native(self) -> Any:
        """What the native engine needs to follow the texts by itself; None where it cannot.

        (whom to ask for the label by `native_label`, a leaf of texts, other expressions, the text so far or
        None if it does not matter).
        """
        return None

    @abstractmethod
    def step(self, code_point: int) -> Watch:
        """The automaton after one more character."""

    @abstractmethod
    def label(self) -> int:
        """What the text so far is, for whoever watches."""


def representative(low: int, high: int) -> int:
    """A character of the range, one that needs no escape where there is one."""
    return next(
        (code for code in (0x61, 0x30, 0x20, *range(0x23, 0x7F)) if low <= code <= high and code != 0x5C), low
    )


def written(code: int) -> bytes:
    """A character inside a JSON string."""
    if code in (0x22, 0x5C):
        return b"\\" + bytes((code,))
    return f"\\u{code:04x}".encode() if code < 0x20 else chr(code).encode()


@dataclass(frozen=True, slots=True)
class PlainText(BasePosition):
    """Text outside of any string: numbers, literals, and whole grammars given as one regex."""

    algebra: Algebra
    expression: int
    partial: Partial = WHOLE
    watch: Watch | None = None

    @property
    def silent(self) -> bool:
        return self.partial == WHOLE and not self.algebra.live_moves(self.expression)

    def ending(self) -> int | None:
        if self.partial != WHOLE or not self.algebra.nullable(self.expression):
            return None
        return 0 if self.watch is None else self.watch.label()

    def step(self, byte: int) -> Position | None:
        if self.partial == WHOLE:
            if byte < 0x80:
                return self._character(byte)
            partial = begin_utf8(byte)
        else:
            partial = continue_utf8(self.partial, byte)
        if partial is None:
            return None
        if partial[2] == 0:
            return self._character(partial[0])
        if not reachable(self.algebra, self.expression, partial[0], partial[1]):
            return None
        return PlainText(self.algebra, self.expression, partial, self.watch)

    def closing_steps(self) -> list[tuple[bytes, Position]] | None:
        """One step for each way on, whole characters at a time; None inside a character."""
        if self.partial != WHOLE:
            return None
        codes = [representative(low, high) for low, high, _ in self.algebra.live_moves(self.expression)]
        found = [(chr(code).encode(), self._character(code)) for code in codes]
        return [(text, target) for text, target in found if target is not None]

    def _character(self, code_point: int) -> Position | None:
        target = live_step(self.algebra, self.expression, code_point)
        if target is None:
            return None
        watch = None if self.watch is None else self.watch.step(code_point)
        return PlainText(self.algebra, target, WHOLE, watch)


# Where we are in a character of a JSON string.
BODY, BEFORE, UTF8, ESCAPE, HEX, LOW_ESCAPE, LOW_U, LOW_HEX, CLOSED = range(9)


@dataclass(frozen=True, slots=True)
class StringText(BasePosition):
    """A JSON string whose decoded value matches `expression`.

    `watch` is a second automaton of the value, without influence on what is allowed, whose state is told at
    the end: `labels(watch)` is the label with which the rule ends.  Object keys use it to say which key was
    read.
    """

    algebra: Algebra
    expression: int
    mode: int = BEFORE
    partial: Partial = WHOLE
    watch: Watch | None = None

    @property
    def silent(self) -> bool:
        return self.mode == CLOSED

    def ending(self) -> int | None:
        if self.mode != CLOSED:
            return None
        return 0 if self.watch is None else self.watch.label()

    def _at(self, mode: int, partial: Partial = WHOLE) -> Position:
        return StringText(self.algebra, self.expression, mode, partial, self.watch)

    def step(self, byte: int) -> Position | None:
        mode = self.mode
        if mode == BODY:
            return self._body(byte)
        if mode == BEFORE:
            return self._at(BODY) if byte == 0x22 else None
        if mode == UTF8:
            return self._partial(UTF8, continue_utf8(self.partial, byte))
        if mode == ESCAPE:
            if byte == 0x75:
                return self._partial(HEX, (0, 0xFFFF, 4))
            return self._character(_ESCAPES[byte]) if byte in _ESCAPES else None
        if mode == HEX:
            return self._hex(byte)
        if mode == LOW_ESCAPE:
            return self._at(LOW_U, self.partial) if byte == 0x5C else None
        if mode == LOW_U:
            return self._at(LOW_HEX, self.partial) if byte == 0x75 else None
        if mode == LOW_HEX:
            return self._low_hex(byte)
        return None

    def closing_steps(self) -> list[tuple[bytes, Position]] | None:
        """One step for each way on, whole characters at a time; None inside a character."""
        if self.mode != BODY:
            return None
        codes = [representative(low, high) for low, high, _ in self.algebra.live_moves(self.expression)]
        found = [(b'"', self._body(0x22)), *((written(code), self._character(code)) for code in codes)]
        return [(text, target) for text, target in found if target is not None]

    def _body(self, byte: int) -> Position | None:
        if byte == 0x22:
            return self._at(CLOSED) if self.algebra.nullable(self.expression) else None
        if byte == 0x5C:
            return self._at(ESCAPE) if self._escapable(0, 0xFFFF) else None
        if byte < 0x20:
            return None
        if byte < 0x80:
            return self._character(byte)
        return self._partial(UTF8, begin_utf8(byte))

    def _partial(self, mode: int, partial: Partial | None) -> Position | None:
        if partial is None:
            return None
        low, high, left = partial
        if left == 0:
            return self._character(low)
        live = (
            self._escapable(low, high) if mode == HEX else reachable(self.algebra, self.expression, low, high)
        )
        return self._at(mode, partial) if live else None

    def _escapable(self, low: int, high: int) -> bool:
        """Whether a character that may be an escape leads on: by four hex digits from `low` to `high`."""
        for first, last in _ESCAPED:
            start, end = max(low, first), min(high, last)
            if start <= end and reachable(self.algebra, self.expression, start, end):
                return True
        return self._surrogates(low, high)

    def _surrogates(self, low: int, high: int) -> bool:
        first, last = max(low, 0xD800), min(high, 0xDBFF)
        if first > last:
            return False
        start, end = 0x10000 + ((first - 0xD800) << 10), 0x10000 + ((last - 0xD800) << 10) + 0x3FF
        return reachable(self.algebra, self.expression, start, end)

    def _hex(self, byte: int) -> Position | None:
        digit = _HEX_DIGITS.get(byte)
        if digit is None:
            return None
        low, _, left = self.partial
        shift = 4 * (left - 1)
        low |= digit << shift
        high = low | ((1 << shift) - 1)
        if left > 1:
            return self._partial(HEX, (low, high, left - 1))
        if 0xD800 <= low <= 0xDBFF:
            start = 0x10000 + ((low - 0xD800) << 10)
            if not reachable(self.algebra, self.expression, start, start + 0x3FF):
                return None
            return self._at(LOW_ESCAPE, (start, start + 0x3FF, 4))
        return self._character(low) if any(a <= low <= b for a, b in _ESCAPED) else None

    def _low_hex(self, byte: int) -> Position | None:
        """The second half of a surrogate pair, DC00 to DFFF: partial holds the code points of the pair."""
        digit = _HEX_DIGITS.get(byte)
        low, high, left = self.partial
        if digit is None or (left == 4 and digit != 0xD):
            return None
        if left == 4:
            return self._at(LOW_HEX, (low, high, 3))
        if left == 3:
            if digit < 0xC:
                return None
            digit -= 0xC
        shift = 4 * (left - 1)
        low |= digit << shift
        high = low | ((1 << shift) - 1)
        if left == 1:
            return self._character(low)
        live = reachable(self.algebra, self.expression, low, high)
        return self._at(LOW_HEX, (low, high, left - 1)) if live else None

    def _character(self, code_point: int) -> Position | None:
        target = live_step(self.algebra, self.expression, code_point)
        if target is None:
            return None
        watch = None if self.watch is None else self.watch.step(code_point)
        return StringText(self.algebra, target, BODY, WHOLE, watch)
