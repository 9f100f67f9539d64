"""The engine in Python: the native one's slow twin, with the same methods."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from octavo.grammar.engine.automaton import DEAD, Automaton, Limits
from octavo.grammar.engine.closing import Closings
from octavo.grammar.engine.masks import MaskCache
from octavo.grammar.errors import GrammarStateError
from octavo.grammar.forced import forced_tokens
from octavo.grammar.network import Position
from octavo.grammar.tokens import TokenizerInfo

if TYPE_CHECKING:
    from octavo.grammar.compiler import CompiledGrammar

MAX_FORCED_BYTES = 4096


class PythonEngine:
    """The states, masks and closings of one grammar over one vocabulary."""

    def __init__(self, start: Position, info: TokenizerInfo, limits: Limits, mask_bytes: int) -> None:
        self.info = info
        self.automaton = Automaton(start, limits)
        self.masks = MaskCache(self.automaton, info, mask_bytes)
        self.closings = Closings(self.automaton)


class PythonMatcher:
    """Follows one text through a compiled grammar.  Cheap: a list of states; all else is shared."""

    def __init__(self, compiled: CompiledGrammar) -> None:
        assert isinstance(compiled.engine, PythonEngine)
        self.compiled, self.engine = compiled, compiled.engine
        engine = self.engine
        self._states = [engine.automaton.start]  # after each accepted step
        self._stopped = False

    @property
    def stopped(self) -> bool:
        return self._stopped

    @property
    def state(self) -> int:
        """The number of the present state: equal numbers mean equal futures."""
        return self._states[-1]

    def accept_token(self, token: int) -> bool:
        """Advance by one token; False, and nothing changes, where it is not allowed."""
        info = self.engine.info
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
        for byte in data if state != DEAD else b"":
            state = self.engine.automaton.step(state, byte)
            if state == DEAD:
                break
        return state

    def is_token_allowed(self, token: int) -> bool:
        info = self.engine.info
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
        if row.shape[0] < self.engine.info.mask_words:
            raise GrammarStateError(
                f"the bitmask has {row.shape[0]} words a row; it needs {self.engine.info.mask_words}"
            )
        row[:] = 0
        if not self._stopped:
            row[: self.engine.info.mask_words] = self.engine.masks.mask(self.state)
        return True

    def forced_bytes(self) -> bytes:
        """What the text must go on with: as long as one byte only is possible and the text cannot end."""
        automaton, state = self.engine.automaton, self.state
        result = bytearray()
        while not self._stopped and len(result) < MAX_FORCED_BYTES and not automaton.states[state].endings:
            byte = automaton.only_byte(state)
            if byte is None:
                break
            result.append(byte)
            state = automaton.step(state, byte)
        return bytes(result)

    def forced_tokens(
        self, mode: str = "exact", encode: Callable[[bytes], list[int]] | None = None
    ) -> list[int]:
        """See forced.py."""
        return forced_tokens(self, self.engine.info, mode, encode)

    def rollback(self, steps: int = 1) -> None:
        """Undo the last accepted steps (a stop token counts as one)."""
        if self._stopped and steps > 0:
            self._stopped = False
            steps -= 1
        if not 0 <= steps < len(self._states):
            raise GrammarStateError(f"there are {len(self._states) - 1} steps to undo, not {steps}")
        if steps:
            del self._states[-steps:]

    def allowed_count(self) -> tuple[int, int]:
        """How many tokens may follow, and one of them (or -1)."""
        mask = np.zeros(self.engine.info.mask_words, np.int32)
        self.fill_next_token_bitmask(mask)
        allowed = np.flatnonzero(np.unpackbits(mask.view(np.uint8), bitorder="little"))
        return len(allowed), int(allowed[-1]) if len(allowed) else -1

    def longer_token(self, before: bytes, tail: bytes) -> bool:
        """Whether, after some bytes, some allowed token begins with `tail` and goes on after it."""
        trie, node = self.engine.info.trie, 0
        for byte in tail:
            child = trie.child(node, byte)
            if child is None:
                return False
            node = child
        after = self._after(self._after(self.state, before), tail)
        if after == DEAD:
            return False
        allowed = np.zeros(len(trie.order), np.bool_)
        self.engine.masks._walk(node, after, allowed)
        return bool(allowed.any())

    def fork(self) -> PythonMatcher:
        """An independent copy at the same place."""
        other = PythonMatcher(self.compiled)
        other._states, other._stopped = list(self._states), self._stopped
        return other

    def reset(self) -> None:
        self._states, self._stopped = [self.engine.automaton.start], False

    def is_completed(self) -> bool:
        """Whether the text may end here."""
        return bool(self.engine.automaton.states[self.state].endings)

    def is_terminated(self) -> bool:
        """Whether a stop token was accepted, or nothing but one can follow."""
        return self._stopped or (self.is_completed() and not self.engine.automaton.states[self.state].pairs)

    def closing_bytes(self, limit: int = 4096) -> bytes | None:
        """A short text with which this one can end; None where none is found within `limit` bytes."""
        return self.engine.closings.find(self.state, limit)
