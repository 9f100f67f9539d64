"""Terminals as a lexer cuts them: the first of its order that matches, and of that the longest text.

A lexer looks ahead to decide where a token ends; an automaton that reads byte by byte cannot.  So the token
is ended wherever it may end, and what could still have won keeps running beside the text that follows: a
*shadow*.  If the shadow ever matches, the lexer would have cut otherwise, and this reading is over.

The order is Lark's (its documentation, "Grammar Reference", Priority): priority, then the longest possible
match, then the length of the pattern, then the name; a string that a regex of equal priority matches in full
wins over it (keywords).  Which terminals compete at a place: those that can follow the terminal before.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from typing import NamedTuple

from octavo.grammar.expressions import UNBOUNDED, Algebra

MAX_IGNORED_RUN = 16  # ignored tokens between two others
MAX_IGNORED_TEXT = 64  # characters of one ignored token of white space


@dataclass(frozen=True)
class Terminal:
    """`text`: what it is if it is one fixed text.  `ahead`: (wanted?, expression) of lookaheads past its end.
    `pure`: without lookaheads of any kind.  `reserved`: texts that it may not be."""

    name: str
    expression: int
    text: str | None
    priority: int
    width: float
    length: int
    ahead: tuple[tuple[bool, int], ...]
    pure: bool
    reserved: int


class Label(NamedTuple):
    """What the lexer remembers between tokens."""

    previous: int  # the terminal before, or START, or another that the same can follow
    shadow: int  # an expression whose match would have been a longer token
    owed: int  # an expression that the rest of the text must match
    run: int  # ignored tokens since `previous`


class TokenState(NamedTuple):
    """A token half read.  `mine`: what is left of it; `above`: of terminals that win whenever they match;
    `equal`: of those that win if they match just this; `longer`: of those that win if they match more."""

    terminal: int
    mine: int
    above: int
    equal: int
    longer: int
    shadow: int
    owed: int
    previous: int  # of an ignored token, what it leaves as it was
    run: int


Move = tuple[int, int, int]  # low, high, number of a TokenState

START = -1
DONE = 0  # the label after which nothing may come


class Lexer:
    """The states of tokens and the labels between them, by number."""

    def __init__(self, algebra: Algebra, terminals: list[Terminal], ignored: frozenset[int]) -> None:
        self.algebra = algebra
        self.terminals = terminals
        self.ignored = ignored
        self.followers: dict[int, frozenset[int]] = {}
        self._alike: dict[int, int] = {}  # terminal -> the first with the same followers
        # What has reserved words is cut everywhere, as in a language whose names end where their letters end.
        self._everywhere = frozenset(i for i, t in enumerate(terminals) if t.reserved != algebra.empty)
        ordered = sorted(range(len(terminals)), key=self._rank)
        self.place = {terminal: place for place, terminal in enumerate(ordered)}
        self.keywords = {i: self._keywords(i) for i, t in enumerate(terminals) if t.text is None}
        self.labels: list[Label] = [Label(START, algebra.empty, algebra.anything, 0)]
        self._label_ids: dict[Label, int] = {}
        self.states: list[TokenState] = []
        self._state_ids: dict[TokenState, int] = {}
        self._moves: dict[int, tuple[Move, ...]] = {}
        self._rivals: dict[tuple[int, frozenset[int]], tuple[int, int, int]] = {}
        self._short = algebra.repeat(algebra.any_character, 0, MAX_IGNORED_TEXT)
        blank = algebra.repeat(
            algebra.characters([(9, 13), (32, 32), (0x85, 0x85), (0xA0, 0xA0)]), 0, UNBOUNDED
        )
        self._blank = {
            i
            for i in ignored
            if not algebra.live(algebra.both(terminals[i].expression, algebra.negate(blank)))
        }
        self.start = self.label(Label(START, algebra.empty, algebra.anything, 0))

    def _rank(self, index: int) -> tuple[float, float, float, str]:
        terminal = self.terminals[index]
        return (-terminal.priority, -terminal.width, -terminal.length, terminal.name)

    def _keywords(self, index: int) -> frozenset[int]:
        """The fixed texts (in any case, if they are so) that this regex matches in full."""
        regex, algebra = self.terminals[index], self.algebra
        return frozenset(
            i
            for i, other in enumerate(self.terminals)
            if other.text is not None
            and other.priority == regex.priority
            and algebra.matches(regex.expression, other.text)
            and not algebra.live(algebra.both(other.expression, algebra.negate(regex.expression)))
        )

    def let_follow(self, followers: dict[int, frozenset[int]]) -> None:
        """Which terminals can follow which."""
        first: dict[frozenset[int], int] = {}
        self.followers = followers
        self._alike = {
            terminal: first.setdefault(after, terminal) for terminal, after in sorted(followers.items())
        }

    # Labels.

    def label(self, label: Label) -> int:
        found = self._label_ids.get(label)
        if found is None:
            found = self._label_ids[label] = len(self.labels)
            self.labels.append(label)
        return found

    def tight(self, label: int) -> int:
        """The label behind which no ignored token may come, and whose shadow is over."""
        old = self.labels[label]
        return self.label(Label(old.previous, self.algebra.empty, old.owed, MAX_IGNORED_RUN))

    def may_end(self, label: int) -> bool:
        return label == DONE or self.algebra.nullable(self.labels[label].owed)

    # Tokens.

    def begin(
        self, terminal: int, label: int, ignored: frozenset[int], forbidden: frozenset[int]
    ) -> int | None:
        """The state before the first character of a token; None where it may not come here."""
        before = self.labels[label]
        if label == DONE or terminal in forbidden:
            return None
        is_ignored = terminal in ignored
        if is_ignored and before.run >= MAX_IGNORED_RUN:
            return None
        rivals = self.followers.get(before.previous, frozenset()) | ignored | self._everywhere
        above, equal, longer = self._compete(terminal, rivals - forbidden)
        mine = self.terminals[terminal].expression
        if is_ignored and terminal in self._blank:
            longer = self.algebra.either(longer, mine)
            mine = self.algebra.both(mine, self._short)
        kept = (before.previous, before.run) if is_ignored else (START, -1)
        return self._number(
            TokenState(terminal, mine, above, equal, longer, before.shadow, before.owed, *kept)
        )

    def _compete(self, terminal: int, rivals: frozenset[int]) -> tuple[int, int, int]:
        key = (terminal, rivals)
        found = self._rivals.get(key)
        if found is None:
            found = self._rivals[key] = self._find_rivals(terminal, rivals)
        return found

    def _find_rivals(self, terminal: int, rivals: frozenset[int]) -> tuple[int, int, int]:
        algebra, terminals = self.algebra, self.terminals
        # Keywords take the place of the regex that matches them, and are no patterns of their own.
        owner: dict[int, int] = {}
        for regex in sorted((r for r in rivals if r in self.keywords), key=self.place.__getitem__):
            for keyword in self.keywords[regex] & (rivals | {terminal}):
                owner.setdefault(keyword, regex)
        own = owner.get(terminal, terminal)
        before = [r for r in rivals if r not in owner and r != own and self.place[r] < self.place[own]]
        above = [terminals[r].expression for r in before if terminals[r].pure]
        equal = [terminals[k].expression for k in self.keywords.get(terminal, ()) if owner.get(k) == terminal]
        longer = [terminals[own].expression] if own != terminal else []
        # A beginning may match by itself and not before what follows: such rivals win by length only.
        guarded = [terminals[r].expression for r in before if not terminals[r].pure]
        equal += [terminals[terminal].reserved, *guarded]
        longer += guarded
        return algebra.either(*above), algebra.either(*equal), algebra.either(*longer)

    def _number(self, state: TokenState) -> int:
        found = self._state_ids.get(state)
        if found is None:
            found = self._state_ids[state] = len(self.states)
            self.states.append(state)
        return found

    def ending(self, number: int) -> int | None:
        """The label with which the token may end here."""
        state, algebra = self.states[number], self.algebra
        if not algebra.nullable(state.mine) or algebra.nullable(state.equal):
            return None
        terminal = self.terminals[state.terminal]
        shadow = algebra.either(state.shadow, state.above, state.longer, state.mine)
        owed = state.owed
        for wanted, expression in terminal.ahead:
            if wanted:
                owed = algebra.both(owed, algebra.concat(expression, algebra.anything))
            else:
                shadow = algebra.either(shadow, expression)
        if not algebra.live_moves(shadow):
            shadow = algebra.empty
        if state.run >= 0:
            return self.label(Label(state.previous, shadow, owed, state.run + 1))
        return self.label(Label(self._alike.get(state.terminal, state.terminal), shadow, owed, 0))

    def moves(self, number: int) -> tuple[Move, ...]:
        """(low, high, next state), rising and disjoint."""
        found = self._moves.get(number)
        if found is None:
            found = self._moves[number] = tuple(self._sweep(self.states[number]))
        return found

    def _sweep(self, state: TokenState) -> list[Move]:
        algebra = self.algebra
        mine = algebra.live_moves(state.mine)
        others = [
            algebra.moves(part) for part in (state.above, state.equal, state.longer, state.shadow, state.owed)
        ]
        free = state.owed == algebra.anything
        bounds = sorted({b for moves in others for low, high, _ in moves for b in (low, high + 1)})
        starts = [[low for low, _, _ in moves] for moves in others]
        result: list[Move] = []
        for low, high, target in mine:
            first, last = bisect_right(bounds, low), bisect_right(bounds, high)
            cuts = [low, *bounds[first:last], high + 1]
            for begin, end in zip(cuts, cuts[1:], strict=False):
                if begin >= end:
                    continue
                parts = [
                    _at(moves, start, begin, algebra.empty)
                    for moves, start in zip(others, starts, strict=True)
                ]
                above, equal, longer, shadow, owed = parts
                if algebra.nullable(above) or algebra.nullable(shadow):
                    continue
                if free:
                    owed = algebra.anything
                elif not algebra.live(owed):
                    continue
                following = state._replace(
                    mine=target, above=above, equal=equal, longer=longer, shadow=shadow, owed=owed
                )
                number = self._number(following)
                if result and result[-1][2] == number and result[-1][1] + 1 == begin:
                    result[-1] = (result[-1][0], end - 1, number)
                else:
                    result.append((begin, end - 1, number))
        return result


def _at(moves: tuple[tuple[int, int, int], ...], starts: list[int], code: int, empty: int) -> int:
    index = bisect_right(starts, code) - 1
    return moves[index][2] if index >= 0 and moves[index][1] >= code else empty
