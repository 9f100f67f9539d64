"""What a step of so many tokens costs on this machine: the measured side of the speed-up formula.

Leviathan et al. 2023 (section 3.3) count a verifying step as one step.  On a CPU it is not: arithmetic binds
after a few tokens.  So the time of a step is measured once for each model and machine, kept in the cache
folder, and followed while the model runs.
"""

from __future__ import annotations

import json
import os
import time
from bisect import bisect_left
from pathlib import Path

import numpy as np

from octavo.decoding.runner import Runner

# Tokens in a step.  The native kernels work on tiles of these widths (native/ops/panel.h): what is between
# two of them costs as much as the larger one.
SIZES = (1, 2, 4, 6, 8, 12, 16, 24, 32)
_REPETITIONS = 3
_BUDGET_SECONDS = 1.0
_OWN_WEIGHT, _SHARED_WEIGHT = 0.1, 0.05


class StepCosts:
    """Seconds of a step of 1 to many tokens; `seconds` has one for each of SIZES."""

    def __init__(self, seconds: list[float]) -> None:
        if len(seconds) != len(SIZES) or not all(0 < value < 1e4 for value in seconds):
            raise ValueError(f"costs need {len(SIZES)} positive times, one for each of {SIZES}")
        self.seconds: list[float] = np.maximum.accumulate(seconds).tolist()

    @classmethod
    def linear(cls, first: float, further: float) -> StepCosts:
        """A step of n tokens takes first + further * (n - 1) seconds."""
        return cls([first + further * (size - 1) for size in SIZES])

    def of(self, tokens: int) -> float:
        """Seconds of a step of so many tokens."""
        if tokens > SIZES[-1]:
            return self.seconds[-1] * tokens / SIZES[-1]
        return self.seconds[bisect_left(SIZES, tokens)]

    def observe(self, tokens: int, seconds: float) -> None:
        """A step took so long.  All sizes follow a little (the machine is busier, the context deeper), this
        one more."""
        if not 1 <= tokens <= SIZES[-1] or seconds <= 0:
            return
        ratio = min(max(seconds / self.of(tokens), 0.25), 4.0)
        own = bisect_left(SIZES, tokens)
        for index in range(len(SIZES)):
            self.seconds[index] *= ratio**_SHARED_WEIGHT * (ratio**_OWN_WEIGHT if index == own else 1.0)


def measure(runner: Runner, block: int) -> StepCosts:
    """Time steps of each size in one block of the cache that nobody uses; about half a second for 1.5B
    parameters."""
    best = [float("inf")] * len(SIZES)
    table = np.array([[block]], np.int32)
    begin = time.perf_counter()
    for repetition in range(_REPETITIONS):
        for index, size in enumerate(SIZES):
            count = min(size, runner.block_size, runner.max_step_tokens)
            every = np.arange(count, dtype=np.int32)
            logits = np.empty((count, runner.vocabulary_size), np.float32)
            tokens = (every * 7919 % runner.vocabulary_size).astype(np.int32)
            started = time.perf_counter()
            runner.step(tokens, every, np.zeros(count, np.int32), table, every, logits)
            seconds = (time.perf_counter() - started) * size / count
            best[index] = min(best[index], seconds)
        if time.perf_counter() - begin > _BUDGET_SECONDS and repetition:
            break
    return StepCosts([max(seconds, 1e-7) for seconds in best])


def load(path: Path, key: str) -> StepCosts | None:
    """Costs that were measured before; None where there are none, or the file is not ours."""
    try:
        return StepCosts([float(value) for value in json.loads(path.read_text(encoding="utf-8"))[key]])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def save(path: Path, key: str, costs: StepCosts) -> None:
    """Keep costs, by one rename; a folder that cannot be written costs a measurement next time."""
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        known = {}
    known = known if isinstance(known, dict) else {}
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(known | {key: costs.seconds}), encoding="utf-8")
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
