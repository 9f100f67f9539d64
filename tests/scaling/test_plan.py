"""A plan, followed: a source whose entropy is known, a ladder on it, and the run that the plan asks for."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("scipy")

from click.testing import CliRunner  # noqa: E402

from octavo.cli.main import main  # noqa: E402
from octavo.scaling.planning.plan import Plan, plan, train_command  # noqa: E402
from octavo.scaling.planning.throughput import Throughput  # noqa: E402
from octavo.scaling.records import read_runs, runs_of_store  # noqa: E402
from octavo.scaling.sweeping import runner  # noqa: E402
from octavo.scaling.sweeping.held_out import fit_ladder, judge, register  # noqa: E402
from octavo.scaling.sweeping.ladder import Ladder, PlannedRun  # noqa: E402
from octavo.scaling.sweeping.store import Store  # noqa: E402

LADDER = Ladder(
    "synthetic",
    budgets=(4e8, 1.2e9, 3.6e9),
    synthetic={"vocabulary": 32, "tokens": 400_000, "seed": 0, "exponent": 1.2},
    shapes=((4, 1), (8, 1), (12, 1), (16, 1), (24, 1), (32, 1)),
    ratios=(1.0, 1e4),
    context=32,
    validation_tokens=20_000,
    optimizer="muon",
    learning_rate=0.014,
)
SPEED = Throughput((1e3, 1e6), (1e9, 2e9), (1e-6, 1e-6))


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sweep") / "sweep.db"
    with Store(path, owner=True) as store:
        runner.begin(LADDER, store)
        assert runner.run_all(store, workers=2)["pending"] == 0
    return path


def make_plan(path: Path, hours: float, speed: Throughput = SPEED, **options: object) -> tuple[Plan, float]:
    with Store(path) as store:
        _, corpus = store.sweep()
        found = fit_ladder(runs_of_store(store))
    answer = plan(
        LADDER,
        found,
        speed,
        corpus=corpus["fingerprint"],
        unique_tokens=380_000,
        bytes_per_token=1.0,
        hours=hours,
        **options,
    )
    return answer, corpus["entropy"]


def test_a_plan_followed_gives_what_it_said(swept: Path) -> None:
    answer, entropy = make_plan(swept, 7.2e9 / 1e9 / 3600)
    assert 4e9 < answer.run.budget < 2e10
    with Store(swept, owner=True) as store:
        store.add("synthetic", [PlannedRun(answer.run.config, answer.run.budget, "plan")])
        runner.run_all(store, workers=1)
        (row,) = store.runs(roles=("plan",))
    assert answer.prediction.low <= row["loss"] <= answer.prediction.high
    assert entropy < row["loss"] < entropy + 0.5


def test_predictions_are_registered_run_and_judged(swept: Path) -> None:
    with Store(swept, owner=True) as store:
        name, runs = register(store, 1.2e10)
        assert len(runs) == 3 and judge(store) == []
        runner.run_all(store, workers=2)
        verdicts = judge(store)
    assert len(verdicts) == 3 and {each["prediction"] for each in verdicts} == {name}
    assert all(each["registered_at"] < each["finished_at"] for each in verdicts)
    (best,) = [each for each in verdicts if each["best"]]
    assert best["inside"] and abs(best["error"]) < 0.05


def test_what_a_plan_says(swept: Path) -> None:
    answer, _ = make_plan(swept, 0.01, serve_tokens=1e8, bits=(3, 4, 16), most_memory=1e9)
    assert answer.flat[0] <= answer.count.active <= answer.flat[1]
    assert min(loss for _, loss in answer.curve) == pytest.approx(answer.prediction.loss)
    assert answer.prediction.loss < answer.bits[2].loss < 1.02 * answer.prediction.loss
    assert answer.one_hour_more < answer.prediction.loss < answer.twice_wrong
    assert answer.ten_percent_data <= answer.prediction.loss
    assert [each.bits for each in answer.bits] == [3, 4, 16]
    assert answer.bits[0].loss > answer.bits[1].loss > answer.bits[2].loss
    assert any("below 4 bits" in warning for warning in answer.warnings)
    assert answer.serving is not None and answer.serving[0] < answer.count.active
    assert answer.next_run is not None
    line = train_command(answer, ("texts",), "out", "tokenizer.json")
    words = line.split()
    assert words[words.index("--width") + 1] == str(answer.run.config.hidden)
    from octavo.cli.train import command

    command.make_context("train", words[2:], resilient_parsing=False)


def test_updates_have_their_part_of_the_hours(swept: Path) -> None:
    slow = dataclasses.replace(SPEED, seconds_per_update=(1e-2, 1e-1))
    quick, answer = (make_plan(swept, 0.01, speed)[0] for speed in (SPEED, slow))
    count, config = answer.count, answer.run.config
    flops = count.flops_per_token * config.tokens
    assert slow.seconds(count.active, flops, config.steps) == pytest.approx(0.95 * 36, rel=0.02)
    assert slow.seconds(count.active, 0, config.steps) > 0.2 * 36  # they matter here,
    assert answer.prediction.loss > quick.prediction.loss  # and cost tokens


def test_an_update_grows_beyond_the_shapes_measured() -> None:
    speed = Throughput((1e4, 1e6), (1e9, 2e9), (1e-3, 1e-1))
    assert speed.seconds(1e4, 1e9, 10) == pytest.approx(1 + 0.01)
    assert speed.seconds(1e5, 0, 1) == pytest.approx(1e-2)
    assert speed.seconds(1e8, 4e9, 1) == pytest.approx(2 + 10)
    assert speed.seconds(1e2, 0, 1) == pytest.approx(1e-3)


def test_the_speed_of_training_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    from octavo.scaling.planning import stopwatch

    monkeypatch.setattr(stopwatch, "_SECONDS_EACH", 0.1)
    found = stopwatch.measure_here([[16, 1], [128, 2]], 64, 32, "muon", "float32", 1)
    assert found["parameters"][0] < found["parameters"][1] and min(found["seconds_per_update"]) > 0
    assert all(1e6 < each < 1e14 for each in found["flops_per_second"])
    # Of steps whose times are known, passes and updates are told apart exactly.
    monkeypatch.setattr(stopwatch, "_best_step", lambda *call: 0.25 + 0.5 * call[-1])
    known = stopwatch.measure_here([[16, 1], [128, 2]], 64, 32, "muon", "float32", 1)
    assert known["seconds_per_update"] == pytest.approx([0.25, 0.25])
    small, large = known["flops_per_second"]
    assert large / small > 5  # the same tokens in the same time


def test_many_epochs_are_refused(swept: Path) -> None:
    answer, _ = make_plan(swept, 20.0, most_memory=2e6)  # a small model, for hours
    assert any("epochs" in refusal for refusal in answer.refusals)
    assert any("largest budget" in warning for warning in answer.warnings)


def test_the_verbs(swept: Path, tmp_path: Path) -> None:
    run = CliRunner(catch_exceptions=False).invoke
    status = run(main, ["sweep", "status", "--store", str(swept), "--json"])
    assert len(json.loads(status.stdout)["runs"]) >= 15
    words = ["scaling", "fit", str(swept), "--bootstrap", "50", "--compute", "1e11", "--json"]
    report, figures = tmp_path / "report.html", tmp_path / "figures"
    fit = run(main, [*words, "--report", str(report), "--figures", str(figures)])
    found = json.loads(fit.stdout)
    assert set(found["conventions"]) == {"active", "total", "nonembedding"}
    assert found["prediction"]["low"] < found["prediction"]["loss"]
    page = report.read_text()
    assert page.count("<svg") >= 7 and "<script" not in page
    assert {"isoflop.png", "isoflop.svg", "contours.png"} <= {path.name for path in figures.iterdir()}
    assert len(read_runs(swept)) >= 15
    resumed = run(main, ["sweep", "resume", "--store", str(swept)])
    assert f"runs are done; what they say: octavo scaling fit {swept}" in resumed.stderr
    missing = run(main, ["sweep", "status", "--store", str(tmp_path / "none.db")])
    assert missing.exit_code == 1 and "no such store" in missing.output


def test_tables_are_read_and_checked(tmp_path: Path) -> None:
    path = tmp_path / "runs.csv"
    path.write_text("N,C,loss\n1e6,6e14,3.0\n2e6,6e14,2.9\n")
    assert read_runs(path).tokens.tolist() == [1e8, 5e7]
    run = CliRunner(catch_exceptions=False).invoke
    for text, word in (("N,loss\n1,2\n", "tokens"), ("N,D,loss\n1,x,2\n", "column D"), ("", "no runs")):
        path.write_text(text)
        said = run(main, ["scaling", "fit", str(path)])
        assert said.exit_code == 1 and word in said.output


def test_without_evidence_there_is_a_ladder_to_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    speed = dataclasses.replace(SPEED, precision="bfloat16")
    monkeypatch.setattr("octavo.scaling.planning.throughput.measure", lambda *_: speed)
    said = CliRunner(catch_exceptions=False).invoke(main, ["plan", "--hours", "3"])
    assert "octavo sweep run pilot.toml" in said.output and "no loss can be promised" in said.output
    from octavo.scaling.sweeping.ladder import read_ladder

    ladder = read_ladder(tmp_path / "pilot.toml")
    assert len(ladder.budgets) == 3 and ladder.precision == "bfloat16"
    # Runs of the three budgets, some six of each, take about a tenth of the time.
    assert 0.05 < 6 * sum(ladder.budgets) / speed.rate(2e5) / (3 * 3600) < 0.15
