"""Early stopping (Prechelt 1998, Early Stopping - But When?): keep the best, end when no better comes."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass
class EarlyStopping:
    """Fed with validation losses; `should_stop` once `patience` of them in a row were no better.

    better: lower than the best by more than `margin`.  A loss that is not a number is never better.
    The state is its fields: `dataclasses.asdict` saves it, `EarlyStopping(**saved)` goes on.
    """

    patience: int
    margin: float = 0.0
    best: float = math.inf
    best_step: int = -1
    waited: int = 0

    def update(self, loss: float, step: int) -> bool:
        """Takes the loss at a step; True if it is the best so far: the time to keep a checkpoint."""
        if loss < self.best - self.margin:
            self.best, self.best_step, self.waited = loss, step, 0
            return True
        self.waited += 1
        return False

    @property
    def should_stop(self) -> bool:
        return self.waited >= self.patience
