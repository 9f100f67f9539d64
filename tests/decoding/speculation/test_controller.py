"""The controller drafts where it pays by the measured costs, and not where it does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from octavo.decoding.speculation import costs as step_costs
from octavo.decoding.speculation.controller import (
    Budget,
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


def test_what_drafts_lose_is_bounded_whatever_is_believed_of_them() -> None:
    """Estimates that never learn, costs that are wrong, drafts that are never right."""
    believed, true = StepCosts.linear(1.0, 0.05), StepCosts.linear(1.0, 0.8)
    budget, seconds, tries = Budget(), 0.0, 0
    for _ in range(1000):
        nodes = choose([chain(*(0.9,) * 16)], 1, believed, 1.03, budget.steps)[0] if budget.may_look else []
        taken = true.of(1 + len(nodes))
        seconds += taken
        if nodes:
            tries += 1
            budget.add_drafted(1, taken)
        else:
            budget.add_plain(0.002)
    assert tries > 0
    assert seconds < 1000 * 1.01 + 16 * 0.8  # a hundredth, and the last try


def test_drafts_that_are_right_pay_for_longer_ones() -> None:
    costs, budget = StepCosts.linear(1.0, 0.15), Budget()
    lengths = []
    for _ in range(8):
        nodes = choose([chain(*(0.97,) * 16)], 1, costs, 1.03, budget.steps)[0]
        lengths.append(len(nodes))
        budget.add_drafted(1 + len(nodes), costs.of(1 + len(nodes)))
    assert lengths[0] < 4
    assert lengths[-1] == 15


def test_looking_that_costs_too_much_becomes_rare_and_ends_no_drafts() -> None:
    budget, looked = Budget(), 0
    for _ in range(1000):
        looked += budget.may_look
        budget.add_plain(0.05 if budget.may_look else 0.0)
    assert 150 < looked < 260  # a hundredth of the time
    assert choose([chain(0.97, 0.97)], 1, StepCosts.linear(1.0, 0.2), 1.03, budget.steps)[0]


def test_costs_rise_and_follow_the_machine_and_are_kept(tmp_path: Path) -> None:
    costs = StepCosts([2.0, 1.0, *(3.0,) * (len(SIZES) - 2)])
    assert costs.of(2) == 2.0  # a larger step never takes less: that was noise
    for _ in range(100):
        costs.observe(1, 4.0, plain=True)
    assert costs.of(1) == pytest.approx(4.0, rel=0.01)
    assert costs.of(32) == pytest.approx(6.0, rel=0.01)  # the machine is half as fast for all of them
    for _ in range(100):
        costs.observe(4, 20.0, plain=False)
    assert costs.of(1) == pytest.approx(4.0, rel=0.01)
    assert costs.of(4) == costs.of(32) == pytest.approx(20.0, rel=0.01)
    path = tmp_path / "folder" / "costs.json"
    assert step_costs.load(path, "model") is None
    step_costs.save(path, "model", costs)
    loaded = step_costs.load(path, "model")
    assert loaded is not None
    assert loaded.seconds == pytest.approx(StepCosts(costs.seconds).seconds)
    path.write_text('{"model": [1, "x"]}')
    assert step_costs.load(path, "model") is None
