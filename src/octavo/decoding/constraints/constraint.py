"""Generation within a grammar, as the engine sees it: which tokens may follow, which must, when it is over.

A constraint is asked with the tokens generated so far and follows them by itself: after an interrupt or a
preemption the tokens are the truth, and nothing else has to be mended.

V: vocabulary, W: words of a mask, ceil(V / 32).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from octavo.errors import OctavoError

ForcedMode = Literal["exact", "canonical", "off"]
FORBIDDEN = np.float32(
    -1e30
)  # the logit of what cannot follow: finite, since an infinite one means damaged weights


class Constraint(Protocol):
    """What the engine asks.  generated: all tokens after the prompt; remaining: how many more have room."""

    shortened: bool  # the text was led to its end because max_tokens or its deadline came near

    def mask(self, generated: Sequence[int]) -> NDArray[np.int32] | None: ...
    def admit(self, generated: Sequence[int], token: int, remaining: int) -> int | None: ...
    def forced(self, generated: Sequence[int], remaining: int) -> list[int]: ...
    def ending(self, generated: Sequence[int]) -> list[int] | None: ...
    def finished(self, generated: Sequence[int]) -> bool: ...
    def admissible(self, generated: Sequence[int], tokens: Sequence[int]) -> int: ...
    def places(self, generated: Sequence[int]) -> Sequence[Hashable]: ...


class Constrained(Protocol):
    """What of a sequence matters here."""

    constraint: Constraint | None
    generated: list[int]
    closing: Literal["length", "deadline"] | None
    error: Exception | None

    @property
    def remaining(self) -> int: ...


class MaskWorker:
    """The masks of a step's sequences, computed by a thread of their own while the native step runs."""

    def __init__(self) -> None:
        self._executor: ThreadPoolExecutor | None = None
        self._masks: list[Future[NDArray[np.int32] | None] | None] = []

    def begin(self, rows: Sequence[tuple[Constrained, Sequence[int]]]) -> None:
        """Start on the masks of the next tokens: of a sequence after what it has and what is drafted."""
        self._masks = []
        if all(sequence.constraint is None for sequence, _ in rows):
            return
        if self._executor is None:
            self._executor = ThreadPoolExecutor(1, "octavo-masks")
        for sequence, drafted in rows:
            if sequence.constraint is None:
                self._masks.append(None)
            else:
                tokens = [*sequence.generated, *drafted]
                self._masks.append(self._executor.submit(sequence.constraint.mask, tokens))

    def forbid(self, rows: Sequence[tuple[Constrained, Sequence[int]]], logits: NDArray[np.float32]) -> None:
        """FORBIDDEN in float32 [R, V] outside the masks.  A grammar's failure ends its sequence only; in a
        row after drafted tokens it waits until those have come true."""
        for (sequence, drafted), mask, row in zip(rows, self._masks, logits, strict=False):
            if mask is None:
                continue
            try:
                words = mask.result()
            except OctavoError as error:
                if drafted:
                    row[:] = np.nan
                else:
                    sequence.error = error
                continue
            if words is None:
                continue
            row[np.unpackbits(words.view(np.uint8), count=len(row), bitorder="little") == 0] = FORBIDDEN

    def close(self) -> None:
        if self._executor is not None:
            self._executor.shutdown(wait=False, cancel_futures=True)


def continuation(sequence: Constrained, emitted: Sequence[int], token: int) -> list[int]:
    """After the tokens `emitted` since the step began: the drawn token, or what the grammar has in its place,
    and those forced after it.  A sequence that is out of time gets its ending and no more."""
    constraint = sequence.constraint
    if constraint is None or sequence.error is not None:
        return [token]
    generated, remaining = [*sequence.generated, *emitted], sequence.remaining - len(emitted)
    try:
        if sequence.closing == "deadline":
            ending = constraint.ending(generated)
            return [token] if ending is None else ending
        first = constraint.admit(generated, token, remaining)
        if first is None:
            sequence.closing = "length"
            return []
        return [first, *constraint.forced([*generated, first], remaining - 1)]
    except OctavoError as error:
        sequence.error = error
        return [token]
