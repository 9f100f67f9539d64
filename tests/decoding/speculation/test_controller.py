"""The controller drafts where it pays by the measured costs, and not where it does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from octavo.decoding.speculation import costs as step_costs
from octavo.decoding.speculation.controller import (
    Estimates,
    Trial,
    best_length,
    choose,
    learn_from,
    promise,
    speedup,
)
from octavo.decoding.speculation.costs import SIZES, StepCosts
from octavo.decoding.speculation.draft import ROOT, Draft


def chain(*chances: float) -> Draft:
    draft = Draft()
    for index, chance in enumerate(chances):
        draft.add(index, index - 1 if index else ROOT, chance, ("b",))
    return draft


def test_free_steps_take_every_token_and_dear_ones_take_none() -> None:
    free, dear = StepCosts.linear(1.0, 1e-9), StepCosts.linear(1.0, 1.0)
    assert choose([chain(0.9, 0.5, 0.1)], 1, free, 1.0) == [[0, 1, 2]]
    assert choose([chain(0.9, 0.9, 0.9)], 1, dear, 1.0) == [[]]
    assert best_length(0.9, 8, dear) == 0
    assert best_length(0.9, 8, free) == 8


def test_one_budget_goes_where_the_chances_are() -> None:
    costs = StepCosts.linear(1.0, 0.2)
    good, bad = choose([chain(0.95, 0.95, 0.95), chain(0.1, 0.1)], 2, costs, 1.0)
    assert good
    assert not bad


def test_a_node_is_never_kept_without_its_parent() -> None:
    draft = chain(0.5, 1.0, 1.0)
    draft.add(9, 0, 1.0, ("b",))
    for further in (0.01, 0.1, 0.3):
        kept = choose([draft], 1, StepCosts.linear(1.0, further), 1.0)[0]
        assert all(draft.parents[node] == ROOT or draft.parents[node] in kept for node in kept)


def test_the_formula_of_the_paper_where_a_step_is_a_step() -> None:
    flat = StepCosts.linear(1.0, 1e-9)
    assert speedup(0.8, 4, flat) == pytest.approx((1 - 0.8**5) / (1 - 0.8), rel=1e-6)
    assert speedup(0.8, 4, flat, 0.1) == pytest.approx((1 - 0.8**5) / (1 - 0.8) / 1.4, rel=1e-6)
    assert promise(chain(0.8, 0.8, 0.8, 0.8), flat) == pytest.approx(speedup(0.8, 4, flat))


def test_estimates_follow_what_came_true_also_where_nothing_was_tried() -> None:
    estimates = Estimates()
    draft = chain(0.5, 0.5)
    for _ in range(200):
        learn_from(estimates, draft, [0])
    assert estimates.chance(("b",), prior=0.5) > 0.95
    for _ in range(200):
        learn_from(estimates, draft, [7])
    assert estimates.chance(("b",), prior=0.5) < 0.15


def test_a_source_that_loses_is_off_most_of_the_time() -> None:
    trial, tried = Trial(), 0
    for _ in range(5000):
        if trial.is_on:
            tried += 1
            trial.observe(0.6)
        else:
            trial.pass_by(1)
    assert tried < 40
    while not trial.is_on:
        trial.pass_by(1)
    for _ in range(50):
        trial.observe(1.6)
    assert trial.is_on
    assert trial.gain > 1.5


def test_costs_rise_and_follow_the_machine_and_are_kept(tmp_path: Path) -> None:
    costs = StepCosts([2.0, 1.0, *(3.0,) * (len(SIZES) - 2)])
    assert costs.of(2) == 2.0  # a larger step never takes less: that was noise
    for _ in range(100):
        costs.observe(1, 4.0)
    assert costs.of(1) == pytest.approx(4.0, rel=0.01)
    path = tmp_path / "folder" / "costs.json"
    assert step_costs.load(path, "model") is None
    step_costs.save(path, "model", costs)
    loaded = step_costs.load(path, "model")
    assert loaded is not None
    assert loaded.seconds == pytest.approx(StepCosts(costs.seconds).seconds)
    path.write_text('{"model": [1, "x"]}')
    assert step_costs.load(path, "model") is None
