"""What the training of a draft head is: a frozen dataclass over the one of training.  No PyTorch here."""

from __future__ import annotations

import math
from dataclasses import dataclass

from octavo.errors import UnsupportedError
from octavo.training.config import TrainingConfig

_LEARNING_RATE = 1e-3  # at 576 wide; scaled by the inverse root of the width


@dataclass(frozen=True, slots=True)
class DraftConfig(TrainingConfig):
    """A run of `octavo train-draft`.  0 means "derived".

    base: the model's name.  depths: tokens ahead that are learned.  draft_tokens: how many of the vocabulary
    the head can say, the commonest in the answers.  inner_size: of its gated layer; by default twice the
    hidden size.  segments, length: an update learns from so many stretches of so many places.
    """

    base: str = ""
    depths: int = 4
    draft_tokens: int = 4096
    inner_size: int = 0
    segments: int = 16
    length: int = 32

    optimizer: str = "adamw"
    schedule: str = "cosine"
    warmup: float = 0.03
    weight_decay: float = 0.01
    save_minutes: float = 0.0

    def __post_init__(self) -> None:
        if not 1 <= self.depths <= 16:
            raise UnsupportedError(f"depths: {self.depths}; from 1 to 16")
        for name in ("draft_tokens", "segments", "length"):
            if getattr(self, name) < 1:
                raise UnsupportedError(f"{name}: {getattr(self, name)}; it must be at least 1")
        if self.inner_size < 0 or self.inner_size % 32:
            raise UnsupportedError(f"inner_size: {self.inner_size}; a multiple of 32")

    def default_learning_rate(self, hidden: int) -> float:
        """See `TrainingConfig`."""
        return _LEARNING_RATE * math.sqrt(576 / hidden)
