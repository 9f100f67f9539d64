"""How near two models' predictions are: mean KL divergence and top-1 agreement, position by position.

Sums are in float64 and a few rows at a time, so that a vocabulary of 262,144 needs little memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Logits = NDArray[np.float32]

# Elements of one float64 scratch array (32 MB).
_SCRATCH_ELEMENTS = 1 << 22


@dataclass(slots=True)
class Agreement:
    """What `update` has seen so far.  KL is KL(reference || other) in nats for each position."""

    divergences: list[float] = field(default_factory=list)
    same_top: int = 0

    def update(self, reference: Logits, other: Logits) -> None:
        """Adds positions: the logits of both, each float[T, V]."""
        if reference.shape != other.shape or reference.ndim != 2:
            raise ValueError(f"logits of shapes {reference.shape} and {other.shape} are not both [T, V]")
        for rows in _row_slices(reference):
            self.divergences.extend(divergences(reference[rows], other[rows]).tolist())
            self.same_top += int(np.sum(reference[rows].argmax(axis=1) == other[rows].argmax(axis=1)))

    @property
    def positions(self) -> int:
        return len(self.divergences)

    @property
    def mean_kl(self) -> float:
        """Mean over positions in nats."""
        return float(np.mean(self.divergences)) if self.divergences else float("nan")

    @property
    def max_kl(self) -> float:
        return max(self.divergences, default=float("nan"))

    @property
    def top1(self) -> float:
        """The share of positions where both rank the same token first."""
        return self.same_top / self.positions if self.positions else float("nan")


def agreement(reference: Iterable[Logits], other: Iterable[Logits]) -> Agreement:
    """The agreement of two streams of logits, chunk by chunk; chunks must be of the same sizes."""
    result = Agreement()
    for reference_chunk, other_chunk in zip(reference, other, strict=True):
        result.update(reference_chunk, other_chunk)
    return result


def divergences(reference: Logits, other: Logits) -> NDArray[np.float64]:
    """KL(softmax(reference) || softmax(other)) in nats for each row: [T, V] twice -> float64[T]."""
    log_p = reference.astype(np.float64) - log_normalizers(reference)[:, None]
    log_q = other.astype(np.float64) - log_normalizers(other)[:, None]
    p = np.exp(log_p)
    # A token that is impossible for both (logits of -inf) adds nothing.
    log_ratio = np.subtract(log_p, log_q, out=np.zeros_like(log_p), where=p > 0)
    kl: NDArray[np.float64] = np.sum(p * log_ratio, axis=1)
    return np.maximum(kl, 0.0)  # rounding can leave -1e-17


def log_normalizers(logits: Logits) -> NDArray[np.float64]:
    """log(sum(exp(row))) of each row, in float64 without overflow: [T, V] -> float64[T]."""
    result = np.empty(len(logits))
    for rows in _row_slices(logits):
        values = logits[rows].astype(np.float64)
        top = values.max(axis=1, keepdims=True)
        result[rows] = np.log(np.exp(values - top).sum(axis=1)) + top[:, 0]
    return result


def _row_slices(logits: Logits) -> Iterator[slice]:
    step = max(1, _SCRATCH_ELEMENTS // max(1, logits.shape[1]))
    for start in range(0, len(logits), step):
        yield slice(start, start + step)
