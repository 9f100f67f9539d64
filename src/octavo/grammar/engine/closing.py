"""How a text can be ended from a state: short outputs, found rule by rule and remembered by position.

A rule's shortest ending does not depend on its callers, so Dijkstra's search runs inside one rule at a time,
a call counting as many bytes as the callee's own shortest ending.  A rule that is being searched is not
entered again: the shortest ending of a rule never needs to pass through itself.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

from octavo.grammar.engine.automaton import ROOT, Automaton
from octavo.grammar.errors import GrammarTooComplexError
from octavo.grammar.network import Position, Return

Ending = tuple[bytes, int]  # the bytes, the label with which the rule then ends
MAX_SEARCHED = 20_000


class Closings:
    def __init__(self, automaton: Automaton) -> None:
        self.automaton = automaton
        self._endings: dict[Position, Ending | None] = {}
        self._active: set[Position] = set()
        self._after: dict[tuple[int, int], bytes | None] = {}

    def find(self, state: int, limit: int) -> bytes | None:
        """Bytes that complete the text from this state; None where none are found within `limit`."""
        here = self.automaton.states[state]
        if here.endings:
            return b""
        try:
            found = [
                text
                for position, continuation in here.pairs
                if (text := self._close(self.automaton.positions[position], continuation)) is not None
            ]
        except RecursionError:
            raise GrammarTooComplexError("the text nests too deep for a closing to be found") from None
        best = min(found, key=len, default=None)
        return best if best is not None and len(best) <= limit else None

    def _close(self, position: Position, continuation: int) -> bytes | None:
        ending = self.ending(position)
        if ending is None:
            return None
        rest = self._from(continuation, ending[1])
        return None if rest is None else ending[0] + rest

    def _from(self, continuation: int, label: int) -> bytes | None:
        if continuation == ROOT:
            return b""
        key = (continuation, label)
        if key not in self._after:
            found = [
                text
                for position, below in self.automaton.pop(continuation, label)
                if (text := self._close(self.automaton.positions[position], below)) is not None
            ]
            self._after[key] = min(found, key=len, default=None)
        return self._after[key]

    def ending(self, start: Position) -> Ending | None:
        """The shortest text from a position to the end of its rule."""
        if start not in self._endings and start not in self._active:
            self._active.add(start)
            found = self._search(start)
            self._active.discard(start)
            # What was found while another rule was closed to us may be missing or long: it is kept only if
            # good.
            if found is not None or not self._active:
                self._endings[start] = found
            return found
        return self._endings.get(start)

    def _search(self, start: Position) -> Ending | None:
        queue: list[tuple[int, int, bytes, Position]] = [(0, 0, b"", start)]
        best: dict[Position, int] = {start: 0}
        order = 0
        while queue and len(best) < MAX_SEARCHED:
            cost, _, text, position = heapq.heappop(queue)
            if cost > best[position]:
                continue
            label = position.ending()
            if label is not None:
                return text, label
            for more, target in self._edges(position):
                order += 1
                reached = cost + len(more)
                if reached < best.get(target, 1 << 60):
                    best[target] = reached
                    heapq.heappush(queue, (reached, order, text + more, target))
        return None

    def _edges(self, position: Position) -> list[tuple[bytes, Position]]:
        steps = getattr(position, "closing_steps", None)
        edges: list[tuple[bytes, Position]] | None = None if steps is None else steps()
        if edges is not None:
            return edges
        edges = []
        if not getattr(position, "silent", False):
            for byte in range(256):
                target = position.step(byte)
                if target is not None:
                    edges.append((bytes((byte,)), target))
        for callee, item in _calls(position):
            if item is None:
                edges.append((b"", callee))
                continue
            ending = self.ending(callee)
            if ending is not None:
                target = item.resume(ending[1])
                if target is not None:
                    edges.append((ending[0], target))
        return edges


def _calls(position: Position) -> Sequence[tuple[Position, Return | None]]:
    """A position may know which of its calls lead to an end: an object then reads the keys it still needs."""
    closing = getattr(position, "closing_calls", None)
    return position.calls() if closing is None else closing()
