"""What a step of so many tokens costs on this machine: the measured side of the speed-up formula.

Leviathan et al. 2023 (section 3.3) count a verifying step as one step.  On a CPU it is not: arithmetic binds
after a few tokens.  So the time of a step is measured once for each model and machine, kept in the cache
folder, and followed while the model runs.

A measurement may fall into a busy moment, and a size that looks too dear is never tried, hence never
corrected.  Two things mend that: no step is believed to take longer than two steps of its halves, unless
that was seen; and each draft that is turned down for its price casts a little doubt on the price, until it
is tried and seen anew.  What such tries may lose is bounded elsewhere (budget.py).
"""

from __future__ import annotations

import json
import os
import time
from bisect import bisect_left
from itertools import pairwise
from pathlib import Path

import numpy as np

from octavo.decoding.runner import Runner

# Tokens in a step; what is between two of them costs what is between their costs.  The native kernels work on
# tiles of four tokens (native/ops/panel.h), so the first of a tile is dear and the others are cheap.
SIZES = (1, 2, 3, 4, 5, 6, 8, 12, 16, 24, 32)
_SPLITS = [
    [(SIZES.index(part), SIZES.index(size - part)) for part in SIZES if size - part in SIZES]
    for size in SIZES
]
_REPETITIONS = 3
_BUDGET_SECONDS = 1.0
_PLAIN_WEIGHT, _BATCH_WEIGHT, _DRAFTED_WEIGHT = 0.1, 0.05, 0.4
_ENOUGH_PLAIN_STEPS = 4
_DOUBT = 0.003  # of what a size costs beyond one token, at each time that it is too dear


class StepCosts:
    """Seconds of a step of 1 to many tokens; `seconds` has one for each of SIZES."""

    def __init__(self, seconds: list[float]) -> None:
        if len(seconds) != len(SIZES) or not all(0 < value < 1e4 for value in seconds):
            raise ValueError(f"costs need {len(SIZES)} positive times, one for each of {SIZES}")
        self._remembered: list[float] = np.maximum.accumulate(seconds).tolist()
        self._trust = [1.0] * len(SIZES)
        self._was_seen = [False] * len(SIZES)
        self._level = 1.0
        self._plain_steps = 0
        self._believed: list[float] = []
        self._least_shares: dict[tuple[int, float], float] = {}
        self._settle()

    @property
    def seconds(self) -> list[float]:
        """Of a step of each size."""
        return [self._level * value for value in self._believed]

    @property
    def are_current(self) -> bool:
        """Whether enough plain steps were seen to know how fast the machine is now: what was kept is of
        another day, and beside it a step may seem a gain or a loss and be neither."""
        return self._plain_steps >= _ENOUGH_PLAIN_STEPS

    @classmethod
    def linear(cls, first: float, further: float) -> StepCosts:
        """A step of n tokens takes first + further * (n - 1) seconds."""
        return cls([first + further * (size - 1) for size in SIZES])

    def of(self, tokens: int) -> float:
        """Seconds of a step of so many tokens."""
        return self._level * self._between(self._believed, tokens)

    def least_chance(self, sequences: int, least_gain: float) -> float:
        """Mean chance to come true below which no number of drafted tokens makes a step of so many sequences
        worth `least_gain`, whatever their number."""
        key = (sequences, least_gain)
        if key not in self._least_shares:
            rate = least_gain * sequences / self._between(self._believed, sequences)
            sizes = [*(size for size in SIZES if size > sequences), sequences + SIZES[-1]]
            needed = [rate * self._between(self._believed, size) - sequences for size in sizes]
            shares = [more / (size - sequences) for more, size in zip(needed, sizes, strict=True)]
            self._least_shares[key] = min(shares)
        return self._least_shares[key]

    @staticmethod
    def _between(values: list[float], tokens: int) -> float:
        if tokens >= SIZES[-1]:
            return values[-1] * tokens / SIZES[-1]
        above = bisect_left(SIZES, tokens)
        if SIZES[above] == tokens:
            return values[above]
        below = above - 1
        share = (tokens - SIZES[below]) / (SIZES[above] - SIZES[below])
        return values[below] + share * (values[above] - values[below])

    def observe(self, tokens: int, seconds: float, *, plain: bool) -> None:
        """A step took so long.  A plain one tells how fast the machine is now, at this depth, for all sizes
        alike; one of several tokens tells of its own size too."""
        if not 1 <= tokens <= SIZES[-1] or seconds <= 0:
            return
        above = bisect_left(SIZES, tokens)
        sizes = [above] if SIZES[above] == tokens else [above - 1, above]
        believed = self.of(tokens)
        if seconds < believed:
            for size in sizes:
                self._remembered[size] = self._believed[size]
        else:  # it is as dear as was remembered before it was doubted
            believed = max(believed, self._level * self._between(self._remembered, tokens))
        # A pause of the process is no property of the step.
        change = min(max(seconds / believed, 0.25), 1.5)
        if plain:
            self._plain_steps += 1
            # What was kept is of another day: the first steps count most.
            self._level *= change ** max(_PLAIN_WEIGHT, 1 / self._plain_steps)
        if tokens == 1:
            return
        for size in sizes:
            self._remembered[size] *= change ** (_BATCH_WEIGHT if plain else _DRAFTED_WEIGHT)
            self._was_seen[size] = True
            self._trust[size] = 1.0
        smallest = self._remembered[sizes[0]]
        self._remembered[: sizes[0]] = [min(value, smallest) for value in self._remembered[: sizes[0]]]
        self._settle()

    def doubt(self, taken: int, most: int) -> None:
        """A step took `taken` tokens, since more, up to `most`, seemed too dear."""
        for index, (below, size) in enumerate(pairwise(SIZES), 1):
            if taken < size and below < most:
                self._trust[index] *= 1 - _DOUBT
        self._settle()

    def without_doubt(self) -> StepCosts:
        """As they were seen last."""
        return StepCosts([self._level * value for value in self._remembered])

    def _settle(self) -> None:
        first, values = self._remembered[0], list[float]()
        for index, (remembered, trust) in enumerate(zip(self._remembered, self._trust, strict=True)):
            value = first + (remembered - first) * trust
            if not self._was_seen[index]:
                value = min([value, *(values[one] + values[other] for one, other in _SPLITS[index])])
            values.append(max(value, values[-1]) if values else value)
        self._believed = values
        self._least_shares.clear()


def measure(runner: Runner, block: int) -> StepCosts:
    """Time steps of each size in one block of the cache that nobody uses, each beside a step of one token, so
    that a slow moment is in both; about a second."""
    table = np.array([[block]], np.int32)

    def step(size: int) -> float:
        count = min(size, runner.block_size, runner.max_step_tokens)
        every = np.arange(count, dtype=np.int32)
        logits = np.empty((count, runner.vocabulary_size), np.float32)
        tokens = (every * 7919 % runner.vocabulary_size).astype(np.int32)
        started = time.perf_counter()
        runner.step(tokens, every, np.zeros(count, np.int32), table, every, logits)
        return max(time.perf_counter() - started, 1e-7) * size / count

    begin, ones, ratios = time.perf_counter(), [step(1)], [1.0]
    for before, size in pairwise(SIZES):
        if time.perf_counter() - begin > _BUDGET_SECONDS:
            ratios.append(ratios[-1] * size / before)
            continue
        of_size = []
        for _ in range(_REPETITIONS):
            ones.append(step(1))
            of_size.append(step(size) / ones[-1])
        ratios.append(float(np.median(of_size)))
    return StepCosts([float(np.median(ones)) * ratio for ratio in ratios])


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
