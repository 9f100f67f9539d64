"""The controller drafts where it pays by the measured costs, and not where it does not."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from octavo.decoding.speculation import costs as step_costs
from octavo.decoding.speculation.budget import FIRST_STEPS, Trial, earn, failing, looking, spare_steps
from octavo.decoding.speculation.controller import (
    Estimates,
    Outlook,
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
    assert Outlook(1, flat, 0.1, 0.8, 1.0).gain == pytest.approx(speedup(0.8, 4, flat, 0.1))
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
            trial.observe(0.6, 1.0)
        else:
            trial.pass_by(1, 1.0)
    assert tried < 40
    while not trial.is_on:
        trial.pass_by(1, 1.0)
    for _ in range(50):
        trial.observe(1.6, 1.0)
    assert trial.is_on
    assert trial.gain > 1.5


def test_reading_is_owed_until_drafts_have_brought_it_in() -> None:
    trial = Trial()
    trial.observe(1.5, 1.0, reading_seconds=3.0)
    assert trial.owed_seconds == pytest.approx(2.5)
    trial.pass_by(1, 100.0)
    assert trial.owed_seconds == pytest.approx(2.0)
    for _ in range(10):
        trial.observe(1.5, 1.0)
    assert trial.owed_seconds == 0.0


def test_what_drafts_lose_is_bounded_whatever_is_believed_of_them() -> None:
    """Estimates that never learn, costs that are wrong, drafts that are never right."""
    believed, true = StepCosts.linear(1.0, 0.05), StepCosts.linear(1.0, 0.8)
    earned, seconds, tries = 0.0, 0.0, 0
    for tokens in range(1000):
        spare = spare_steps(earned, tokens)
        nodes = choose([chain(*(0.9,) * 16)], 1, believed, 1.03, [spare])[0]
        seconds += true.of(1 + len(nodes))
        if nodes:
            tries += 1
            earned = earn(earned, 1, true.of(1 + len(nodes)))
    assert tries > 0
    assert seconds < 1000 * 1.005 + 16 * 0.8  # a two-hundredth, and the last try


def test_no_text_pays_for_another_ones_drafts() -> None:
    costs, poor, sure = StepCosts.linear(1.0, 0.3), [0.25, 0.25], chain(*(0.95,) * 8)
    assert choose([sure, Draft()], 2, costs, 1.03, poor) == [[0], []]
    assert choose([sure, Draft()], 2, costs, 1.03, [0.25, -0.01]) == [[], []]
    kept = choose([sure, sure], 2, costs, 1.03, poor)  # each promises to pay for itself
    assert [len(nodes) for nodes in kept] == [3, 2]
    assert len(choose([sure, Draft()], 2, costs, 1.03, [4.0, 4.0])[0]) > 5


def test_drafts_that_are_right_pay_for_longer_ones() -> None:
    costs, earned, lengths = StepCosts.linear(1.0, 0.15), 0.0, []
    for _ in range(8):
        nodes = choose([chain(*(0.97,) * 16)], 1, costs, 1.03, [spare_steps(earned, sum(lengths))])[0]
        lengths.append(len(nodes))
        earned = earn(earned, 1 + len(nodes), costs.of(1 + len(nodes)))
    assert lengths[0] < 12
    assert lengths[-1] >= 15


def test_looking_that_costs_too_much_becomes_rare() -> None:
    allowance, looked = looking(), 0
    for step in range(1000):
        spent = (30.0 if step == 0 else 0.05) if allowance.rest == 0 else 0.0  # a pause costs no more
        looked += spent > 0
        allowance.add(spent)
    assert 30 < looked < 60  # two thousandths of the time, and what is there at first


def test_new_texts_try_nothing_where_earlier_ones_have_lost_enough() -> None:
    allowance = failing()
    assert spare_steps(0.0, 0, allowance.spare) == FIRST_STEPS
    for _ in range(8):
        allowance.add(spent=0.3)
    assert spare_steps(0.0, 0, allowance.spare) == 0.0
    for _ in range(1000):
        allowance.add()
    assert spare_steps(0.0, 0, allowance.spare) == FIRST_STEPS


def test_no_draft_pays_whose_tokens_are_less_likely_than_the_least() -> None:
    generator = random.Random(3)
    for _ in range(50):
        times = [1.0]
        for _ in SIZES[1:]:
            times.append(times[-1] + generator.random())
        costs = StepCosts(times)
        for sequences in (1, 2, 4, 7):
            least = costs.least_chance(sequences, 1.03)
            unlikely = [chain(*(least * 0.999,) * 1) for _ in range(sequences)]
            assert not any(choose(unlikely, sequences, costs, 1.03))
    costs = StepCosts.linear(1.0, 0.1)
    assert choose([chain(*(1.0,) * 16)], 1, costs, 1.03) == [list(range(16))]
    assert 0.1 < costs.least_chance(1, 1.03) < 0.12


def test_costs_of_another_day_are_not_current_before_plain_steps_were_seen() -> None:
    costs = StepCosts.linear(1.0, 0.1)
    assert not costs.are_current
    for _ in range(8):
        costs.observe(1, 0.5, plain=True)
    assert costs.are_current
    assert costs.of(1) == pytest.approx(0.5, rel=0.02)


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


def seconds_until_right(true: StepCosts, believed: StepCosts, chance: float, steps: int) -> tuple[float, int]:
    """Seconds of so many steps of one text whose drafts of two are right by this chance, and how many of the
    last hundred steps had drafts."""
    generator, earned, seconds, tokens, late = random.Random(0), 0.0, 0.0, 0, 0
    for step in range(steps):
        spare = spare_steps(earned, tokens)
        nodes = choose([chain(chance, chance)], 1, believed, 1.03, [spare])[0]
        right = 0
        while right < len(nodes) and generator.random() < chance:
            right += 1
        taken = true.of(1 + len(nodes))
        seconds, tokens = seconds + taken, tokens + 1 + right
        believed.observe(1 + len(nodes), taken, plain=not nodes)
        if nodes:
            earned, late = earn(earned, 1 + right, taken / true.of(1)), late + (step >= steps - 100)
        if spare >= FIRST_STEPS and len(nodes) < 2:
            believed.doubt(1 + len(nodes), 3)
    return seconds / tokens, late


def test_costs_that_were_measured_in_a_busy_moment_keep_no_drafts_off() -> None:
    true = StepCosts.linear(1.0, 0.1)
    for busy in (1.9, 3.0, 8.0):
        wrong = [
            value * (1.0 if size == 1 else busy) for size, value in zip(SIZES, true.seconds, strict=True)
        ]
        _, late = seconds_until_right(true, StepCosts(wrong), 0.8, 1000)
        assert late == 100


def test_doubt_costs_little_where_the_price_was_right() -> None:
    true = StepCosts.linear(1.0, 0.9)
    for chance in (0.1, 0.5, 0.8):
        each, _ = seconds_until_right(true, StepCosts(true.seconds), chance, 3000)
        assert each < 1.01


def test_a_step_is_not_believed_to_take_longer_than_two_unless_it_was_seen() -> None:
    costs = StepCosts([1.0, 1.1, *(7.9,) * (len(SIZES) - 2)])
    assert costs.of(3) == pytest.approx(2.1)
    assert costs.of(4) == pytest.approx(2.2)
    for _ in range(30):
        costs.observe(3, 7.9, plain=False)
    assert costs.of(3) == pytest.approx(7.9, rel=0.01)


def test_drawing_goes_on_while_a_token_more_is_worth_its_time() -> None:
    costs = StepCosts.linear(1.0, 0.1)

    def lengths(*chances: float, drawing: float = 0.1, sequences: int | None = None) -> list[int]:
        outlook = Outlook(sequences or len(chances), costs, drawing, 0.8, 1.03)
        reaches, drawn = [1.0] * len(chances), [0] * len(chances)
        live = outlook.going_on(reaches)
        while live and max(drawn) < 16:
            for index in live:
                reaches[index] *= chances[index]
                drawn[index] += 1
            outlook.drawn([reaches[index] for index in live])
            live = [live[place] for place in outlook.going_on([reaches[index] for index in live])]
        return drawn

    assert lengths(0.95)[0] > lengths(0.6)[0] >= 1
    assert lengths(0.95, drawing=2.0) == [0]
    assert lengths(0.95)[0] > lengths(0.95, drawing=0.3)[0]
    sure, unsure = lengths(0.98, 0.4)
    assert sure > unsure >= 1
    costs = StepCosts([1.0, 1.0, 1.0, 1.0, *(2.0,) * (len(SIZES) - 4)])  # a fifth token doubles the step
    assert lengths(0.98, drawing=0.01)[0] == 3
    costs = StepCosts([max(1.0, size / 4) for size in SIZES])  # four tokens keep the arithmetic busy
    assert lengths(0.95, drawing=0.3)[0] > 0
    assert lengths(*(0.95,) * 4, drawing=0.01) == [0, 0, 0, 0]
    assert Outlook(4, costs, 0.01, 0.9, 1.03).gain == 1.0
