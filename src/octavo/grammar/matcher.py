"""One text in the making: what it may go on with, step by step, with steps back and copies."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from octavo.grammar.compiler import CompiledGrammar
from octavo.grammar.engine.automaton import DEAD
from octavo.grammar.errors import GrammarStateError

MODES = ("exact", "canonical", "off")
MAX_FORCED_BYTES = 4096


class GrammarMatcher:
    """Follows one text through a compiled grammar.  Cheap: a list of states; all else is shared."""

    def __init__(self, compiled: CompiledGrammar) -> None:
        self.compiled = compiled
        self._states = [compiled.automaton.start]  # after each accepted step
        self._stopped = False

    @property
    def state(self) -> int:
        """The number of the present state: equal numbers mean equal futures."""
        return self._states[-1]

    def accept_token(self, token: int) -> bool:
        """Advance by one token; False, and nothing changes, where it is not allowed."""
        info = self.compiled.info
        if self._stopped:
            return False
        if token in info.stop_token_ids:
            self._stopped = self.is_completed()
            return self._stopped
        data = info.token_bytes[token] if 0 <= token < len(info.token_bytes) else b""
        return bool(data) and self.accept_bytes(data)

    def accept_bytes(self, data: bytes) -> bool:
        """Advance by some bytes, as one step; False, and nothing changes, where they are not allowed."""
        target = DEAD if self._stopped else self._after(self.state, data)
        if target == DEAD:
            return False
        self._states.append(target)
        return True

    def _after(self, state: int, data: bytes) -> int:
        for byte in data:
            state = self.compiled.automaton.step(state, byte)
            if state == DEAD:
                break
        return state

    def is_token_allowed(self, token: int) -> bool:
        info = self.compiled.info
        if self._stopped or not 0 <= token < info.vocabulary_size:
            return False
        if token in info.stop_token_ids:
            return self.is_completed()
        data = info.token_bytes[token] if token < len(info.token_bytes) else b""
        return bool(data) and self._after(self.state, data) != DEAD

    def fill_next_token_bitmask(self, bitmask: npt.NDArray[np.int32], index: int = 0) -> bool:
        """Write the next token's mask into row `index` of `bitmask` [rows, words] (or into a single row).

        Returns whether anything is forbidden, so that the mask must be applied.
        """
        row = bitmask[index] if bitmask.ndim == 2 else bitmask
        if row.shape[0] < self.compiled.info.mask_words:
            raise GrammarStateError(
                f"the bitmask has {row.shape[0]} words a row; it needs {self.compiled.info.mask_words}"
            )
        row[:] = 0
        if not self._stopped:
            row[: self.compiled.info.mask_words] = self.compiled.masks.mask(self.state)
        return True

    def forced_bytes(self) -> bytes:
        """What the text must go on with: as long as one byte only is possible and the text cannot end."""
        automaton, state = self.compiled.automaton, self.state
        result = bytearray()
        while not self._stopped and len(result) < MAX_FORCED_BYTES and not automaton.states[state].endings:
            byte = automaton.only_byte(state)
            if byte is None:
                break
            result.append(byte)
            state = automaton.step(state, byte)
        return bytes(result)

    def forced_tokens(self, mode: str = "exact", encode: object = None) -> list[int]:
        """Tokens that need no sampling; they are not accepted yet.

        "exact": while one token alone is allowed.  "canonical": the forced bytes as `encode(bytes) -> ids`
        writes them, without the tokens at the end that could be parts of a longer one.  "off": none.
        """
        if mode not in MODES:
            raise GrammarStateError(f"forced_tokens has the modes {', '.join(MODES)}, not {mode!r}")
        if mode == "off" or self._stopped:
            return []
        if mode == "exact":
            return self._exact_tokens()
        if not callable(encode):
            raise GrammarStateError(
                'forced_tokens("canonical") needs encode, which turns bytes into token ids'
            )
        return self._canonical_tokens(list(encode(self.forced_bytes())))

    def _exact_tokens(self) -> list[int]:
        result: list[int] = []
        probe = self.fork()
        while len(result) < MAX_FORCED_BYTES:
            mask = self.compiled.masks.mask(probe.state)
            allowed = np.flatnonzero(np.unpackbits(mask.view(np.uint8), bitorder="little"))
            if len(allowed) != 1 or int(allowed[0]) in self.compiled.info.stop_token_ids:
                break
            result.append(int(allowed[0]))
            probe.accept_token(result[-1])
        return result

    def _canonical_tokens(self, tokens: list[int]) -> list[int]:
        """Without the tail that an allowed longer token could span."""
        info = self.compiled.info
        pieces = [info.token_bytes[token] for token in tokens]
        kept = len(tokens)
        for start in range(len(tokens) - 1, -1, -1):
            tail = b"".join(pieces[start:])
            if len(tail) > info.trie.max_token_bytes:
                break
            before = self._after(self.state, b"".join(pieces[:start]))
            if self._longer_token(before, tail):
                kept = start
        return tokens[:kept]

    def _longer_token(self, state: int, tail: bytes) -> bool:
        """Whether some allowed token begins with `tail` and goes on after it."""
        trie = self.compiled.info.trie
        node = 0
        for byte in tail:
            child = node + 1
            while child < trie.end[node] and trie.byte[child] != byte:
                child = trie.end[child]
            if child >= trie.end[node]:
                return False
            node = child
        after = self._after(state, tail)
        if after == DEAD:
            return False
        allowed = np.zeros(len(trie.order), np.bool_)
        self.compiled.masks._walk(node, after, allowed)
        return bool(allowed.any())

    def rollback(self, steps: int = 1) -> None:
        """Undo the last accepted steps (a stop token counts as one)."""
        if self._stopped and steps > 0:
            self._stopped = False
            steps -= 1
        if not 0 <= steps < len(self._states):
            raise GrammarStateError(f"there are {len(self._states) - 1} steps to undo, not {steps}")
        if steps:
            del self._states[-steps:]

    def fork(self) -> GrammarMatcher:
        """An independent copy at the same place."""
        other = GrammarMatcher(self.compiled)
        other._states, other._stopped = list(self._states), self._stopped
        return other

    def reset(self) -> None:
        self._states, self._stopped = [self.compiled.automaton.start], False

    def is_completed(self) -> bool:
        """Whether the text may end here."""
        return bool(self.compiled.automaton.states[self.state].endings)

    def is_terminated(self) -> bool:
        """Whether a stop token was accepted, or nothing but one can follow."""
        return self._stopped or (self.is_completed() and not self.compiled.automaton.states[self.state].pairs)

    def closing_bytes(self, limit: int = 4096) -> bytes | None:
        """A short text with which this one can end; None where none is found within `limit` bytes."""
        return self.compiled.closings.find(self.state, limit)
