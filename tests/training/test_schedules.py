"""Learning-rate schedules, early stopping and averages of weights."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from itertools import pairwise

import pytest

from octavo.errors import FormatError, UnsupportedError
from octavo.training.early_stopping import EarlyStopping
from octavo.training.schedules import SCHEDULES, PlateauSchedule, build_schedule, inverse_sqrt_of_steps

POINTS = [point / 200 for point in range(201)]


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_rises_over_the_warmup_and_never_after(name: str) -> None:
    schedule = build_schedule(name, warmup=0.1, final=0.05)
    assert schedule(0.0) == 0.0
    assert schedule(0.05) == pytest.approx(0.5)
    assert schedule(0.1) == pytest.approx(1.0)
    values = [schedule(point) for point in POINTS if point >= 0.1]
    assert all(after <= before + 1e-12 for before, after in pairwise(values))
    ends = {"constant": 1.0, "inverse_sqrt": math.sqrt(0.1), "one_cycle": 0.0005}
    assert schedule(1.0) == pytest.approx(ends.get(name, 0.05))
    assert schedule(1.7) == schedule(1.0)
    if name != "inverse_sqrt":
        assert build_schedule(name)(0.0) == 1.0


def test_curves_at_points_worked_out_by_hand() -> None:
    assert build_schedule("linear", final=0.0)(0.25) == pytest.approx(0.75)
    assert build_schedule("cosine", final=0.0)(1 / 3) == pytest.approx(0.75)
    assert build_schedule("exponential", final=0.01)(0.5) == pytest.approx(0.1)
    assert build_schedule("power", final=0.25)(0.5) == pytest.approx(1 / 2.5)
    assert build_schedule("power", final=0.25, exponent=2)(1.0) == pytest.approx(0.25)
    stable = build_schedule("warmup_stable_decay", warmup=0.2, decay=0.4, final=0.0)
    assert stable(0.6) == 1.0
    assert stable(0.7) == pytest.approx(0.5)
    assert stable(1.0) == pytest.approx(0.0)
    steps = build_schedule("piecewise", boundaries=(0.5,), values=(1.0, 0.3))
    assert (steps(0.49), steps(0.5)) == (1.0, 0.3)
    assert build_schedule("piecewise", final=0.01)(0.6) == pytest.approx(0.1)
    cycle = build_schedule("one_cycle", warmup=0.5, final=0.1)
    assert cycle(0.25) == pytest.approx(0.5)
    assert cycle(0.95) == pytest.approx(0.1)


def test_inverse_sqrt_in_steps_is_the_same_curve() -> None:
    assert inverse_sqrt_of_steps(4000, hidden_size=512, warmup_steps=4000) == pytest.approx(
        1 / math.sqrt(512 * 4000)
    )
    schedule = build_schedule("inverse_sqrt", warmup=0.1)
    peak = inverse_sqrt_of_steps(100, hidden_size=64, warmup_steps=100)
    for step in (1, 50, 100, 400, 1000):
        rate = inverse_sqrt_of_steps(step, hidden_size=64, warmup_steps=100)
        assert peak * schedule(step / 1000) == pytest.approx(rate)
    with pytest.raises(ValueError, match="count from 1"):
        inverse_sqrt_of_steps(0, hidden_size=64, warmup_steps=100)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("cosinus", {}, "'cosinus' is not known; there are constant, linear"),
        ("cosine", {"warmup": 1.5}, "warmup is 1.5"),
        ("cosine", {"final": -0.1}, "final is -0.1"),
        ("cosine", {"exponent": 2}, "no option 'exponent'"),
        ("exponential", {"final": 0.0}, "never reaches 0"),
        ("inverse_sqrt", {}, "needs a warmup above 0"),
        ("warmup_stable_decay", {"warmup": 0.5, "decay": 0.6}, "at most 1 - warmup"),
        ("piecewise", {"boundaries": (0.5,), "values": (1.0,)}, "one more than"),
    ],
)
def test_impossible_schedules_are_refused(name: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(UnsupportedError, match=message):
        build_schedule(name, **options)  # type: ignore[arg-type]


def test_a_plateau_lowers_the_rate_and_its_state_can_be_saved() -> None:
    schedule = PlateauSchedule(factor=0.5, patience=1, final=0.2)
    given = [schedule.update(loss) for loss in (3.0, 2.0, 2.0, 2.0, 1.0, 1.0)]
    assert given == [1.0, 1.0, 1.0, 0.5, 0.5, 0.5]
    schedule = PlateauSchedule(**json.loads(json.dumps(asdict(schedule))))
    assert [schedule.update(1.0) for _ in range(5)] == [0.25, 0.25, 0.2, 0.2, 0.2]
    assert schedule.update(math.nan) == 0.2


def test_early_stopping_keeps_the_best_and_ends() -> None:
    stopping = EarlyStopping(patience=2, margin=0.1)
    assert [stopping.update(loss, step) for step, loss in enumerate((3.0, 2.0, 1.95))] == [True, True, False]
    assert not stopping.should_stop
    stopping = EarlyStopping(**json.loads(json.dumps(asdict(stopping))))
    assert not stopping.update(math.nan, 3)
    assert stopping.should_stop
    assert (stopping.best, stopping.best_step) == (2.0, 1)
    assert stopping.update(1.0, 4)
    assert not stopping.should_stop


def test_averages_of_weights() -> None:
    torch = pytest.importorskip("torch")
    from octavo.training.averaging import ExponentialAverage, average_weights

    checkpoints = [{"w": torch.tensor([float(n), 1.0]), "steps": torch.tensor(n)} for n in (1, 2, 6)]
    mean = average_weights(iter(checkpoints))
    assert mean["w"].tolist() == [3.0, 1.0]
    assert mean["w"].dtype == torch.float32
    assert mean["steps"].item() == 6
    assert checkpoints[0]["w"].tolist() == [1.0, 1.0]
    with pytest.raises(FormatError, match="checkpoint 2 of the average: tensor v"):
        average_weights([{"w": torch.zeros(1)}, {"v": torch.zeros(1)}])
    with pytest.raises(FormatError, match="tensor w has another shape"):
        average_weights([{"w": torch.zeros(1)}, {"w": torch.zeros(2)}])
    with pytest.raises(ValueError, match="no checkpoint"):
        average_weights([])

    model = torch.nn.Linear(1, 1, bias=False)
    average = ExponentialAverage(model, decay=0.5)
    with pytest.raises(ValueError, match="no weights yet"):
        average.weights()
    for value in (2.0, 4.0):
        model.weight.data.fill_(value)
        average.update(model)
    assert average.weights()["weight"].item() == pytest.approx((0.25 * 2 + 0.5 * 4) / 0.75)
