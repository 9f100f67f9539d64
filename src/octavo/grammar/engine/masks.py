"""Masks: which tokens a state allows, computed on the vocabulary's trie once for each state.

A token either stays inside the innermost rule or leaves it.  What stays does not depend on what called the
rule, so it is computed once per position with an opaque caller, together with the places in the trie where
the rule could end (its holes); only from those few places is the walk repeated for each caller.
"""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import numpy.typing as npt

from octavo.grammar.engine.automaton import DEAD, ROOT, UNKNOWN, Automaton, Pair
from octavo.grammar.tokens import TokenizerInfo, bools_to_bitmask

Bools = npt.NDArray[np.bool_]
Holes = list[tuple[int, frozenset[int]]]  # node of the trie, labels with which the rule may end there


class MaskCache:
    """Masks of one automaton over one vocabulary, under a budget of bytes."""

    def __init__(self, automaton: Automaton, info: TokenizerInfo, budget: int = 64 << 20) -> None:
        self.automaton = automaton
        self.info = info
        self.budget = budget
        self.bytes = 0
        self._masks: OrderedDict[int, npt.NDArray[np.int32]] = OrderedDict()
        self._inside: OrderedDict[int, tuple[npt.NDArray[np.uint8], Holes]] = OrderedDict()

    def mask(self, state: int) -> npt.NDArray[np.int32]:
        """int32 words, least significant bit first; do not write to it."""
        found = self._masks.get(state)
        if found is not None:
            self._masks.move_to_end(state)
            return found
        allowed = np.zeros(self.info.vocabulary_size, np.bool_)
        allowed[self.info.trie.order[self._sorted(state)]] = True
        if self.automaton.states[state].endings:
            allowed[list(self.info.stop_token_ids)] = True
        mask = bools_to_bitmask(allowed)
        mask.setflags(write=False)
        self._masks[state] = mask
        self.bytes += mask.nbytes
        self._evict()
        return mask

    def _evict(self) -> None:
        while self.bytes > self.budget and len(self._masks) > 1:
            _, dropped = self._masks.popitem(last=False)
            self.bytes -= dropped.nbytes
        while self.bytes > self.budget and len(self._inside) > 1:
            _, (inside, _) = self._inside.popitem(last=False)
            self.bytes -= inside.nbytes

    def _sorted(self, state: int) -> Bools:
        """Which tokens are allowed, in the order of the trie."""
        automaton = self.automaton
        pairs = automaton.states[state].pairs
        count = len(self.info.trie.order)
        allowed = np.zeros(count, np.bool_)
        pending: dict[int, set[Pair]] = {}
        for position, continuation in pairs:
            inside, holes = self._inside_of(position)
            allowed |= np.unpackbits(inside, count=count).view(np.bool_)
            if continuation != ROOT:
                for node, labels in holes:
                    for label in labels:
                        pending.setdefault(node, set()).update(automaton.pop(continuation, label))
        for node, after in pending.items():
            target = automaton.close(after) if after else DEAD
            if target != DEAD:
                self._walk(node, target, allowed)
        return allowed

    def _inside_of(self, position: int) -> tuple[npt.NDArray[np.uint8], Holes]:
        found = self._inside.get(position)
        if found is not None:
            self._inside.move_to_end(position)
            return found
        allowed = np.zeros(len(self.info.trie.order), np.bool_)
        holes = self._walk(0, self.automaton.state_of(position), allowed)
        found = self._inside[position] = (np.packbits(allowed), holes)
        self.bytes += found[0].nbytes
        return found

    def _walk(self, root: int, start: int, allowed: Bools) -> Holes:
        """Marks the tokens below node `root` of the trie that `start` allows; where the text could end."""
        trie, automaton = self.info.trie, self.automaton
        byte, end, first, own, states = trie.byte, trie.end, trie.first, trie.own, automaton.states
        holes: Holes = []
        path: list[tuple[int, int]] = [(end[root], start)]  # where the subtree ends, the state in it
        node, last = root + 1, end[root]
        while node < last:
            while node >= path[-1][0]:
                path.pop()
            state = path[-1][1]
            target = states[state].moves[byte[node]]
            if target == UNKNOWN:
                target = automaton.step(state, byte[node])
            if target == DEAD:
                node = end[node]
                continue
            if own[node]:
                allowed[first[node] : first[node] + own[node]] = True
            if states[target].endings:
                holes.append((node, states[target].endings))
            path.append((end[node], target))
            node += 1
        return holes
