"""Rules over tokens as a network: items still to be read, what the lexer remembers, and a context.

A context is a mode (what is ignored, which terminals are forbidden) and, for languages that need it, the
indentation of the block that we are in: a parameter of the position, so that no stack of columns is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from octavo.grammar.expressions import UNBOUNDED
from octavo.grammar.lexing.analysis import Costs, Item, Mode
from octavo.grammar.lexing.lexer import DONE, Lexer
from octavo.grammar.network import BasePosition, Outline, Position, Return, Silent
from octavo.grammar.text_positions import (
    WHOLE,
    Partial,
    begin_utf8,
    continue_utf8,
    representative,
)

MAX_INDENTATION = 80
MAX_INDENT_STEP = 8


class TokenRules:
    """Named rules; sequences of items and contexts are known by number, so that positions are small."""

    def __init__(self, lexer: Lexer, rules: dict[str, Item], modes: list[Mode]) -> None:
        self.lexer = lexer
        self.rules = rules
        self.modes = modes
        self.sequences: list[tuple[Item, ...]] = []
        self._sequence_ids: dict[tuple[Item, ...], int] = {}
        self.contexts: list[tuple[int, bytes]] = []
        self._context_ids: dict[tuple[int, bytes], int] = {}
        self._calls: dict[tuple[int, int, int], Sequence[tuple[Position, Return | None]]] = {}
        self.costs = Costs(rules, modes, lexer)

    def sequence(self, items: tuple[Item, ...]) -> int:
        found = self._sequence_ids.get(items)
        if found is None:
            found = self._sequence_ids[items] = len(self.sequences)
            self.sequences.append(items)
        return found

    def context(self, mode: int, indentation: bytes) -> int:
        key = (mode, indentation)
        if key not in self._context_ids:
            self._context_ids[key] = len(self.contexts)
            self.contexts.append(key)
        return self._context_ids[key]

    def start(self, name: str) -> Position:
        items = (("rule", name), ("finish",))
        # Where indentation counts, white space at the beginning is no token's.
        lex = self.lexer.tight(self.lexer.start) if len(self.modes) > 1 else self.lexer.start
        return Place(self, self.sequence(items), lex, self.context(0, b""))

    def calls(self, place: Place) -> Sequence[tuple[Position, Return | None]]:
        key = (place.sequence, place.lex, place.context)
        found = self._calls.get(key)
        if found is None:
            found = self._calls[key] = self._find_calls(place)
        return found

    def closing_calls(self, place: Place) -> Sequence[tuple[Position, Return | None]]:
        """The calls of the shortest way to an end, as far as it can be told without the lexer."""
        items = self.sequences[place.sequence]
        mode = self.contexts[place.context][0]
        if self.lexer.labels[place.lex].owed != self.lexer.algebra.anything:
            return self.calls(place)
        if items and items[0][0] == "alt":
            best = min(items[0][1], key=lambda option: self.costs.of(option, mode))
            return [(self._at(place, (best, *items[1:])), None)]
        if items and items[0][0] == "repeat" and items[0][2] == 0:
            return [(self._at(place, items[1:]), None)]
        return self.calls(place)

    def _find_calls(self, place: Place) -> list[tuple[Position, Return | None]]:
        items = self.sequences[place.sequence]
        if not items:
            return []
        first, rest = items[0], items[1:]
        kind = first[0]
        if kind == "text":
            return self._leaf(place, first[1], rest)
        if kind == "rule":
            body = Place(self, self.sequence((self.rules[first[1]],)), place.lex, place.context)
            return [(body, self._after(rest, place))]
        if kind == "seq":
            return [(self._at(place, (*first[1], *rest)), None)]
        if kind == "alt":
            return [(self._at(place, (option, *rest)), None) for option in first[1]]
        if kind == "repeat":
            _, body, least, most = first
            result: list[tuple[Position, Return | None]] = []
            if least == 0:
                result.append((self._at(place, rest), None))
            if most == 1:
                result.append((self._at(place, (body, *rest)), None))
            elif most != 0:
                again = ("repeat", body, max(least - 1, 0), most if most == UNBOUNDED else most - 1)
                result.append((self._at(place, (body, again, *rest)), None))
            return result
        assert kind == "finish"
        ending = [(self._at(place, ()), None)] if self.lexer.may_end(place.lex) else []
        return [*ending, *self._ignored(place)]

    def _leaf(self, place: Place, leaf: Item, rest: tuple[Item, ...]) -> list[tuple[Position, Return | None]]:
        kind = leaf[0]
        mode, indentation = self.contexts[place.context]
        if kind == "token":
            token = self._token(leaf[1], place)
            own = [] if token is None else [(token, self._after(rest, place))]
            return [*own, *self._ignored(place)]
        if kind == "mode":
            asked = self.modes[mode].inside(leaf[1])
            inner = self.context(asked, indentation)
            body = Place(self, self.sequence((leaf[2],)), place.lex, inner)
            return [(body, self._after(rest, place))]
        if kind == "end":
            return [(Place(self, self.sequence(rest), DONE, place.context), None)]
        if place.lex == DONE:
            return []
        tight = self.lexer.tight(place.lex)
        if kind == "line":
            begun = Place(self, self.sequence((leaf[1], *rest)), tight, place.context)
            return [(Indentation(self, place.context, indentation, begun), None)]
        assert kind == "block"
        return [(Deeper(self, place.context, b"", leaf[1], tight), self._after(rest, place))]

    def _at(self, place: Place, items: tuple[Item, ...]) -> Place:
        return Place(self, self.sequence(items), place.lex, place.context)

    def _after(self, rest: tuple[Item, ...], place: Place) -> Return | None:
        return After(self, self.sequence(rest), place.context) if rest else None

    def _token(self, terminal: int, place: Place) -> Position | None:
        mode = self.modes[self.contexts[place.context][0]]
        state = self.lexer.begin(terminal, place.lex, mode.ignored, mode.forbidden)
        return None if state is None else TokenText(self.lexer, state)

    def _ignored(self, place: Place) -> list[tuple[Position, Return | None]]:
        mode = self.modes[self.contexts[place.context][0]]
        found = [self._token(terminal, place) for terminal in sorted(mode.ignored)]
        back = After(self, place.sequence, place.context)
        return [(token, back) for token in found if token is not None]


@dataclass(frozen=True, slots=True)
class Place(Silent):
    """Items still to be read in a rule."""

    rules: TokenRules
    sequence: int
    lex: int
    context: int

    def ending(self) -> int | None:
        return None if self.rules.sequences[self.sequence] else self.lex

    def calls(self) -> Sequence[tuple[Position, Return | None]]:
        return self.rules.calls(self)

    def closing_calls(self) -> Sequence[tuple[Position, Return | None]]:
        return self.rules.closing_calls(self)

    def outline(self) -> Outline | None:
        return Outline(ending=self.ending(), calls=self.calls())


@dataclass(frozen=True, slots=True)
class After:
    rules: TokenRules
    sequence: int
    context: int

    def resume(self, label: int) -> Position | None:
        return Place(self.rules, self.sequence, label, self.context)


@dataclass(frozen=True, slots=True)
class TokenText(BasePosition):
    """A token half read; it ends with the lexer's label."""

    lexer: Lexer
    state: int
    partial: Partial = WHOLE

    def ending(self) -> int | None:
        return self.lexer.ending(self.state) if self.partial == WHOLE else None

    def step(self, byte: int) -> Position | None:
        partial = self.partial
        if partial == WHOLE:
            if byte < 0x80:
                return self._character(byte)
            after = begin_utf8(byte)
        else:
            after = continue_utf8(partial, byte)
        if after is None:
            return None
        if after[2] == 0:
            return self._character(after[0])
        low, high, left = after
        reached = [move for move in self.lexer.moves(self.state) if move[0] <= high and move[1] >= low]
        if not reached:
            return None
        if reached[0][0] <= low and reached[0][1] >= high and high - low + 1 == 64**left:
            return Tail(self.lexer, reached[0][2], left)  # whatever follows, it leads to one place
        return TokenText(self.lexer, self.state, after)

    def _character(self, code: int) -> Position | None:
        for low, high, target in self.lexer.moves(self.state):
            if low <= code <= high:
                return TokenText(self.lexer, target)
        return None

    def outline(self) -> Outline | None:
        first, last = (0x80, 0xBF) if self.partial != WHOLE else (0xC2, 0xF4)
        moves: list[tuple[int, Position]] = []
        if self.partial == WHOLE:
            for low, high, target in self.lexer.moves(self.state):
                text = TokenText(self.lexer, target)
                moves += [(byte, text) for byte in range(low, min(high, 0x7F) + 1)]
            if all(high < 0x80 for _, high, _ in self.lexer.moves(self.state)):
                return Outline(ending=self.ending(), moves=moves)
        for byte in range(first, last + 1):
            after = self.step(byte)
            if after is not None:
                moves.append((byte, after))
        return Outline(ending=self.ending(), moves=moves)

    def closing_steps(self) -> list[tuple[bytes, Position]] | None:
        """One step for each way on, whole characters at a time; None inside a character."""
        if self.partial != WHOLE:
            return None
        result: list[tuple[bytes, Position]] = []
        for low, high, target in self.lexer.moves(self.state):
            code = representative(low, high)
            result.append((chr(code).encode(), TokenText(self.lexer, target)))
        return result


@dataclass(frozen=True, slots=True)
class Tail(BasePosition):
    """The last bytes of a character that leads to one state, whatever they are."""

    lexer: Lexer
    state: int
    left: int

    def step(self, byte: int) -> Position | None:
        return self._after() if 0x80 <= byte <= 0xBF else None

    def _after(self) -> Position:
        return (
            Tail(self.lexer, self.state, self.left - 1)
            if self.left > 1
            else TokenText(self.lexer, self.state)
        )

    def outline(self) -> Outline | None:
        after = self._after()
        return Outline(moves=[(byte, after) for byte in range(0x80, 0xC0)])

    def closing_steps(self) -> list[tuple[bytes, Position]] | None:
        return [(b"\x80" * self.left, TokenText(self.lexer, self.state))]


@dataclass(frozen=True, slots=True)
class Indentation(BasePosition):
    """The white space at the beginning of a line of the block that we are in."""

    rules: TokenRules
    context: int
    left: bytes
    then: Place

    def calls(self) -> Sequence[tuple[Position, Return | None]]:
        return () if self.left else ((self.then, None),)

    def step(self, byte: int) -> Position | None:
        if not self.left or self.left[0] != byte:
            return None
        return Indentation(self.rules, self.context, self.left[1:], self.then)

    def outline(self) -> Outline | None:
        if not self.left:
            return Outline(calls=self.calls())
        after = Indentation(self.rules, self.context, self.left[1:], self.then)
        return Outline(moves=((self.left[0], after),))


@dataclass(frozen=True, slots=True)
class Deeper(BasePosition):
    """The white space at the beginning of a block: the lines' own, and more."""

    rules: TokenRules
    context: int
    read: bytes
    item: Item
    lex: int

    def calls(self) -> Sequence[tuple[Position, Return | None]]:
        mode, base = self.rules.contexts[self.context]
        if len(self.read) <= len(base):
            return ()
        inner = self.rules.context(mode, self.read)
        lines = ("repeat", ("text", ("line", self.item)), 0, UNBOUNDED)
        return ((Place(self.rules, self.rules.sequence((self.item, lines)), self.lex, inner), None),)

    def step(self, byte: int) -> Position | None:
        base, read = self.rules.contexts[self.context][1], self.read
        if len(read) < len(base):
            allowed = byte == base[len(read)]
        else:
            extra = read[len(base) :]
            allowed = (byte == 0x20 and b"\t" not in extra and len(extra) < MAX_INDENT_STEP) or (
                byte == 0x09 and not extra
            )
            allowed = allowed and len(read) < MAX_INDENTATION
        return (
            Deeper(self.rules, self.context, read + bytes((byte,)), self.item, self.lex) if allowed else None
        )

    def outline(self) -> Outline | None:
        found = [(byte, self.step(byte)) for byte in (0x09, 0x20)]
        return Outline(moves=[(b, after) for b, after in found if after is not None], calls=self.calls())
