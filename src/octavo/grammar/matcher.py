"""One text in the making: what it may go on with, step by step, with steps back and copies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from octavo import _native
from octavo.grammar.compiler import CompiledGrammar
from octavo.grammar.engine.python_engine import PythonEngine, PythonMatcher
from octavo.grammar.errors import GrammarStateError
from octavo.grammar.forced import forced_tokens

MAX_FORCED_BYTES = 4096


class GrammarMatcher(_native.GrammarMatcher):
    """Follows one text through a compiled grammar.  Cheap: a list of states; all else is shared.

    The rest of its methods is native (native/bind/grammar.cpp) and the same as PythonMatcher's, which one
    gets here for a grammar compiled for the engine in Python.
    """

    def __new__(cls, compiled: CompiledGrammar) -> Any:
        if isinstance(compiled.engine, PythonEngine):
            return PythonMatcher(compiled)
        return super().__new__(cls)

    def __init__(self, compiled: CompiledGrammar) -> None:
        assert isinstance(compiled.engine, _native.GrammarEngine)
        super().__init__(compiled.engine)
        self.compiled = compiled

    def forced_bytes(self) -> bytes:
        """What the text must go on with: as long as one byte only is possible and the text cannot end."""
        return bytes(self.native_forced_bytes(MAX_FORCED_BYTES))

    def forced_tokens(
        self, mode: str = "exact", encode: Callable[[bytes], list[int]] | None = None
    ) -> list[int]:
        """Tokens that need no sampling; they are not accepted yet.  See forced.py for the modes."""
        return forced_tokens(self, self.compiled.info, mode, encode)

    def rollback(self, steps: int = 1) -> None:
        """Undo the last accepted steps (a stop token counts as one)."""
        if steps < 0 or not self.roll_back(steps):
            raise GrammarStateError(f"there are {self.steps} steps to undo, not {steps}")

    def fork(self) -> GrammarMatcher:
        """An independent copy at the same place."""
        other = GrammarMatcher(self.compiled)
        other.copy_from(self)
        return other
