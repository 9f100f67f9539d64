"""What drafts cost by a clock that only steps and looking for drafts move: the whole engine, exactly."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import pytest
from history_runner import HistoryRunner

from octavo.decoding.engine import Engine
from octavo.decoding.sampling import SamplingOptions
from octavo.decoding.sequences import TokenSequence
from octavo.decoding.speculation.controller import Estimates
from octavo.decoding.speculation.costs import StepCosts
from octavo.decoding.speculation.draft import ROOT, Draft
from octavo.decoding.speculation.speculation import Speculation

LENGTH, TEXTS, LOOKING = 100, 32, 0.04  # tokens; seconds, where a step of one token takes 1


class Clock:
    def __init__(self) -> None:
        self.now = 1.0

    def __call__(self) -> float:
        return self.now


class Wrong:
    """Never right, sure of it, and slow."""

    name = "wrong"

    def __init__(self, clock: Clock, chance: float) -> None:
        self._clock, self._chance = clock, chance
        self.asked = 0

    def propose(self, sequences: Sequence[TokenSequence], limits: Sequence[int]) -> list[Draft]:
        self.asked += 1
        self._clock.now += LOOKING
        drafts = [Draft() for _ in sequences]
        for draft, limit in zip(drafts, limits, strict=True):
            for depth in range(min(limit, 4)):
                draft.add(31, depth - 1 if depth else ROOT, self._chance, ("wrong",))
        return drafts

    def forget(self, sequence: TokenSequence) -> None:
        pass

    def restart(self) -> None:
        pass


def seconds_of(clock: Clock, true: StepCosts, speculation: Speculation | None) -> float:
    """Of texts of four sequences at once, one batch after the other."""
    runner = HistoryRunner(block_count=512)
    plain = runner.step

    def step(*arguments: Any) -> None:
        plain(*arguments)
        clock.now += true.of(len(arguments[0]))

    runner.step = step  # type: ignore[method-assign]
    engine = Engine(runner, max_sequences=4, speculation=speculation)
    begin, options = clock.now, SamplingOptions(temperature=0, logit_bias={31: -float("inf")})
    for first in range(0, TEXTS, 4):
        generations = [
            engine.submit([text, 2, 3], options, max_tokens=LENGTH) for text in range(first, first + 4)
        ]
        for generation in generations:
            list(generation)
    return clock.now - begin


@pytest.mark.parametrize("believed", [0.25, 0.0001], ids=["right costs", "steps believed to be free"])
@pytest.mark.parametrize("slower", [1.0, 2.0], ids=["of today", "of a busy day"])
def test_drafts_that_are_never_right_cost_less_than_a_hundredth(
    monkeypatch: pytest.MonkeyPatch, believed: float, slower: float
) -> None:
    clock = Clock()
    monkeypatch.setattr(time, "perf_counter", clock)
    true = StepCosts.linear(1.0, 0.25)
    costs = StepCosts([slower * seconds for seconds in StepCosts.linear(1.0, believed).seconds])
    source = Wrong(clock, 0.95)
    speculation = Speculation([source], Estimates(), costs=costs)
    plain, drafted = seconds_of(clock, true, None), seconds_of(clock, true, speculation)
    assert 3 < source.asked < TEXTS / 4 * LENGTH * 0.12
    assert drafted < 1.01 * plain
