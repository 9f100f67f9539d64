"""The times of a run, and how many steps fit into minutes."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from octavo.training.loop import Trainer

# A run by the clock plans its number of steps anew each time that this part of it has passed.
_PLAN_AGAIN = 0.05
# Where pauses take more of the time than this, a run by the clock leaves some out.
_MOST_PAUSES = 0.2
# Steps that are timed before the first plan.
_TRIAL_STEPS = 3


class Clock:
    """Times of a run; for a run by the clock, also how many steps fit."""

    def __init__(self, trainer: Trainer) -> None:
        config = trainer.config
        self._trainer = trainer
        self._began = self._last = self._save = time.perf_counter()
        self._before = self._planned = trainer.state.seconds
        self._step_seconds = self._pause_seconds = 0.0
        self._tenths = 0
        self.by_the_clock = bool(config.minutes) and not (config.steps or config.tokens)
        self.limit = 60 * config.minutes

    @property
    def tokens_per_second(self) -> float:
        return self._trainer.config.batch_tokens / max(self._step_seconds, 1e-9)

    @property
    def since_save(self) -> float:
        return time.perf_counter() - self._save

    def saved(self) -> None:
        self._save = time.perf_counter()
        self.pause_over()

    def pause_over(self) -> None:
        """Validation and checkpoints are no part of a step's time, but of the run's."""
        now = time.perf_counter()
        self._pause_seconds += now - self._last
        self._last = now

    def tenth_passed(self) -> bool:
        """Whether another tenth of the time is over, and pauses have left time for one more."""
        seconds = self._trainer.state.seconds
        tenths = int(10 * seconds / self.limit)
        if tenths <= self._tenths or self._pause_seconds > _MOST_PAUSES * seconds:
            return False
        self._tenths = tenths
        return True

    def plan_first(self) -> None:
        """How many steps fit, by the time of a few whose gradients are thrown away."""
        trainer = self._trainer
        trainer.compute.refresh()
        batches = trainer.task.batches(0)
        for _ in range(_TRIAL_STEPS):
            began = time.perf_counter()
            for batch in batches:
                trainer.task.loss(trainer.compute.module, batch, 1e-4).backward()  # type: ignore[no-untyped-call]
            trainer.optimizer.zero_grad(set_to_none=True)
            self._step_seconds = time.perf_counter() - began
        self._plan()

    def tick(self) -> None:
        """After each step."""
        now, state = time.perf_counter(), self._trainer.state
        seconds = now - self._last
        self._last = now
        self._step_seconds = 0.9 * self._step_seconds + 0.1 * seconds if self._step_seconds else seconds
        state.seconds = self._before + now - self._began
        if self.by_the_clock and state.seconds - self._planned > _PLAN_AGAIN * self.limit:
            self._planned = state.seconds
            self._plan()

    def _plan(self) -> None:
        """The steps that fit into the time left, of which pauses will take the part that they took so far."""
        state = self._trainer.state
        elapsed = state.seconds - self._before
        share = 1.0 - self._pause_seconds / elapsed if elapsed else 0.9
        left = max(0.0, self.limit - state.seconds) * share
        # At least one step in all; once the time is over, none more.
        state.steps = max(1, state.step + int(left / self._step_seconds))
