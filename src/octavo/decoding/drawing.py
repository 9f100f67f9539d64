"""From the logits of a step's rows to its tokens: each row as if it were alone.

Row 0 of a drawing follows the sequence's last token, the others its drafted tokens, and every one sees the
penalties, the grammar and the noise of its own place, as plain decoding would.

R: rows, V: vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from octavo.decoding.constraints.constraint import MaskWorker
from octavo.decoding.sampling import (
    SamplingBatch,
    SamplingError,
    distribution,
    flatten,
    sample,
    sampling_batch,
)
from octavo.decoding.sequences import Drawing, Step, TokenSequence

Row = tuple[TokenSequence, list[int]]  # and the drafted tokens before it


def rows_of(drawings: Sequence[Drawing]) -> list[Row]:
    """What each output of a step follows."""
    rows: list[Row] = []
    for drawing in drawings:
        draft = drawing.draft
        rows.append((drawing.sequence, []))
        rows += [(drawing.sequence, draft.before(node)) for node in range(len(draft))]
    return rows


class Drawer:
    """Draws for steps, one at a time.  begin: while the step runs; draw: after it."""

    def __init__(self) -> None:
        self.masks = MaskWorker()
        self._rows: list[Row] = []
        self._members: list[TokenSequence] = []
        self._batch: SamplingBatch | None = None

    def begin(self, step: Step) -> None:
        """Start on what does not need the logits."""
        self._rows = rows_of(step.drawings)
        self.masks.begin(self._rows)

    def batch(self, logits: NDArray[np.float32]) -> SamplingBatch:
        """How the rows of logits float32 [R, V] are drawn; what a grammar forbids is lowered in them."""
        self.masks.forbid(self._rows, logits)
        members = [sequence for sequence, _ in self._rows]
        batch = self._batch
        if batch is None or members != self._members:
            batch = sampling_batch(
                [s.options for s in members], [s.seed for s in members], [0] * len(members)
            )
            self._batch, self._members = batch, members
        batch.positions[:] = [sequence.length + len(drafted) for sequence, drafted in self._rows]
        recent = [sequence.recent(drafted) for sequence, drafted in self._rows]
        if any(map(len, recent)):
            batch.history, batch.history_offsets = flatten(recent)
        return batch

    def draw(self, logits: NDArray[np.float32]) -> list[int]:
        """A token for each row, or the negative code of why there is none (`sampling_failure`)."""
        try:
            tokens: list[int] = sample(logits, self.batch(logits)).tolist()
        except SamplingError as error:
            tokens = error.tokens.tolist()
        return tokens

    def laws(self, logits: NDArray[np.float32]) -> NDArray[np.float64]:
        """What each row would be drawn from, float64 [R, V]; zeros where there is nothing."""
        return distribution(logits, self.batch(logits))
