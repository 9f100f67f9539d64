"""The lazy pushdown automaton over a network, with hash-consed states: equal futures are one integer.

state         = set of (position, continuation), after closing over calls and ends
continuation  = set of (return, continuation): callers of one rule at one place are merged, which is sound
because R.K1 | R.K2 = R.(K1 | K2); continuation ROOT is the end of the whole text

Nothing in a state says where in the text it was reached, so everything computed for a state holds for ever.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from octavo.grammar.errors import GrammarTooComplexError, GrammarUnsupportedError
from octavo.grammar.network import Position, Return

ROOT = 0
DEAD = -1
UNKNOWN = -2

Pair = tuple[int, int]  # position, continuation
Frame = tuple[int, int]  # return, continuation


@dataclass(frozen=True)
class Limits:
    """Bounds on the work and memory of one compiled grammar.

    max_work: of one call of a matcher in the native engine, in steps of 10 to 100 ns (native/grammar/work.h).
    """

    max_states: int = 1_000_000
    max_positions: int = 1_000_000
    max_pairs: int = 4_000
    max_depth: int = 1_000
    max_work: int = 60_000_000


@dataclass(slots=True)
class State:
    """A set of places that the text so far may have reached, and the labels with which it may end here."""

    pairs: tuple[Pair, ...]
    endings: frozenset[int]
    moves: list[int]  # byte -> state, DEAD or UNKNOWN


class Automaton:
    def __init__(self, start: Position, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self.positions: list[Position] = []
        self.returns: list[Return] = []
        self.frames: list[tuple[Frame, ...]] = [()]  # by continuation
        self.depths: list[int] = [0]
        self.states: list[State] = []
        self._position_ids: dict[Position, int] = {}
        self._return_ids: dict[Return, int] = {}
        self._frame_ids: dict[tuple[Frame, ...], int] = {(): ROOT}
        self._state_ids: dict[tuple[tuple[Pair, ...], frozenset[int]], int] = {}
        self._steps: list[dict[int, int]] = []  # position -> byte -> position
        self._ends: list[int | None] = []
        self._calls: list[tuple[tuple[int, int], ...] | None] = []
        self._only: dict[int, int] = {}
        self.start = self.close([(self.position(start), ROOT)])

    # Interning.

    def position(self, position: Position) -> int:
        found = self._position_ids.get(position)
        if found is not None:
            return found
        if len(self.positions) >= self.limits.max_positions:
            raise GrammarTooComplexError(
                f"the grammar reached {self.limits.max_positions} positions, its limit"
            )
        self._position_ids[position] = number = len(self.positions)
        self.positions.append(position)
        self._steps.append({})
        self._ends.append(position.ending())
        self._calls.append(None)
        return number

    def _return(self, item: Return | None) -> int:
        if item is None:
            return -1
        found = self._return_ids.get(item)
        if found is None:
            found = self._return_ids[item] = len(self.returns)
            self.returns.append(item)
        return found

    def calls_of(self, position: int) -> tuple[tuple[int, int], ...]:
        found = self._calls[position]
        if found is None:
            made = [
                (self.position(callee), self._return(item))
                for callee, item in self.positions[position].calls()
            ]
            found = self._calls[position] = tuple(made)
        return found

    def continuation(self, frames: Iterable[Frame]) -> int:
        key = tuple(sorted(frames))
        found = self._frame_ids.get(key)
        if found is None:
            depth = 1 + max(self.depths[below] for _, below in key)
            if depth > self.limits.max_depth:
                raise GrammarTooComplexError(f"the text nests over {self.limits.max_depth} rules deep")
            found = self._frame_ids[key] = len(self.frames)
            self.frames.append(key)
            self.depths.append(depth)
        return found

    # Steps.

    def step(self, state: int, byte: int) -> int:
        """The state after one more byte; DEAD where the byte is not allowed."""
        found = self.states[state].moves[byte]
        if found == UNKNOWN:
            after = []
            for position, continuation in self.states[state].pairs:
                target = self._step_position(position, byte)
                if target >= 0:
                    after.append((target, continuation))
            found = self.close(after) if after else DEAD
            self.states[state].moves[byte] = found
        return found

    def _step_position(self, position: int, byte: int) -> int:
        steps = self._steps[position]
        found = steps.get(byte)
        if found is None:
            target = self.positions[position].step(byte)
            found = steps[byte] = DEAD if target is None else self.position(target)
        return found

    def close(self, pairs: Iterable[Pair]) -> int:
        """The state of these places and of all that they reach without a byte."""
        kernel, endings = _Closure(self).run(pairs)
        if not kernel and not endings:
            return DEAD
        key = (kernel, endings)
        found = self._state_ids.get(key)
        if found is None:
            if len(self.states) >= self.limits.max_states:
                raise GrammarTooComplexError(
                    f"the grammar reached {self.limits.max_states} states, its limit"
                )
            found = self._state_ids[key] = len(self.states)
            self.states.append(State(kernel, endings, [UNKNOWN] * 256))
        return found

    def state_of(self, position: int) -> int:
        """The state of one position alone, with the end of the text as its caller."""
        return self.close([(position, ROOT)])

    def only_byte(self, state: int) -> int | None:
        """The byte that must come next; None where there are several (or none)."""
        found = self._only.get(state, UNKNOWN)
        if found == UNKNOWN:
            live = []
            for byte in range(256):
                if self.step(state, byte) != DEAD:
                    live.append(byte)
                    if len(live) > 1:
                        break
            found = self._only[state] = live[0] if len(live) == 1 else DEAD
        return None if found == DEAD else found

    def pop(self, continuation: int, label: int) -> list[Pair]:
        """Where the callers go on after a rule ended with this label."""
        result = []
        for item, below in self.frames[continuation]:
            target = self.returns[item].resume(label)
            if target is not None:
                result.append((self.position(target), below))
        return result


class _Closure:
    """One closing over calls and ends.  While it runs, the context of a callee is its own name (the negative
    of its position, minus one): its set of callers may still grow; in the end the names become
    continuations."""

    def __init__(self, automaton: Automaton) -> None:
        self.automaton = automaton
        self.seen: set[Pair] = set()
        self.work: list[Pair] = []
        self.callers: dict[int, set[Frame]] = {}
        self.ended: dict[int, set[int]] = {}
        self.endings: set[int] = set()

    def run(self, pairs: Iterable[Pair]) -> tuple[tuple[Pair, ...], frozenset[int]]:
        for position, context in pairs:
            self._add(position, context)
        automaton = self.automaton
        while self.work:
            position, context = self.work.pop()
            label = automaton._ends[position]
            if label is not None:
                self._end(context, label)
            for callee, item in automaton.calls_of(position):
                if item < 0:
                    self._add(callee, context)
                else:
                    self._call(callee, item, context)
        resolved: dict[int, int] = {}
        kernel = {(p, self._resolve(c, resolved)) for p, c in self.seen}
        return tuple(sorted(pair for pair in kernel if self._moves(pair[0]))), frozenset(self.endings)

    def _moves(self, position: int) -> bool:
        return not getattr(self.automaton.positions[position], "silent", False)

    def _add(self, position: int, context: int) -> None:
        pair = (position, context)
        if pair not in self.seen:
            if len(self.seen) >= self.automaton.limits.max_pairs:
                raise GrammarTooComplexError(
                    f"the grammar is too ambiguous: over {self.automaton.limits.max_pairs} readings at once"
                )
            self.seen.add(pair)
            self.work.append(pair)

    def _call(self, callee: int, item: int, context: int) -> None:
        name = -1 - callee
        callers = self.callers.setdefault(name, set())
        if (item, context) in callers:
            return
        callers.add((item, context))
        for label in self.ended.get(name, ()):
            self._resume(item, context, label)
        self._add(callee, name)

    def _end(self, context: int, label: int) -> None:
        if context == ROOT:
            self.endings.add(label)
        elif context > 0:
            for target, below in self.automaton.pop(context, label):
                self._add(target, below)
        else:
            ended = self.ended.setdefault(context, set())
            if label not in ended:
                ended.add(label)
                for item, below in tuple(self.callers[context]):
                    self._resume(item, below, label)

    def _resume(self, item: int, context: int, label: int) -> None:
        target = self.automaton.returns[item].resume(label)
        if target is not None:
            self._add(self.automaton.position(target), context)

    def _resolve(self, context: int, resolved: dict[int, int], active: frozenset[int] = frozenset()) -> int:
        if context >= 0:
            return context
        if context in resolved:
            return resolved[context]
        if context in active:
            raise GrammarUnsupportedError("a rule calls itself before any text (left recursion)")
        inner = active | {context}
        frames = {(item, self._resolve(below, resolved, inner)) for item, below in self.callers[context]}
        resolved[context] = self.automaton.continuation(frames)
        return resolved[context]
