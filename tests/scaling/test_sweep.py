"""A sweep of thirty tiny runs that is killed again and again: nothing is lost, nothing is done twice."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("scipy")

from octavo.errors import FormatError  # noqa: E402
from octavo.scaling.sweeping import runner  # noqa: E402
from octavo.scaling.sweeping.corpus import (  # noqa: E402
    entropy_rate,
    open_corpus,
    prepare_corpus,
    synthetic_corpus,
    transition_matrix,
)
from octavo.scaling.sweeping.ladder import Ladder, RunConfig, plan_runs, planned, read_ladder  # noqa: E402
from octavo.scaling.sweeping.store import Store, StoreBusyError  # noqa: E402

SOURCE = {"vocabulary": 32, "tokens": 40_000, "seed": 0, "exponent": 1.2}
PROGRAM = """
import sys
from pathlib import Path
from octavo.scaling.sweeping import runner
from octavo.scaling.sweeping.store import Store
from sweeps import LADDER
with Store(Path(sys.argv[1]), owner=True) as store:
    runner.begin(LADDER, store)
    print("owning", flush=True)
    print(runner.run_all(store, workers=2, keep=True), flush=True)
"""


def tiny_ladder(count: int = 1) -> Ladder:
    return Ladder(
        "tiny",
        budgets=tuple(2e7 * (1 + 0.02 * index) for index in range(count)),
        synthetic=SOURCE,
        shapes=((8, 1), (16, 1)),
        ratios=(0.01, 1e9),
        context=16,
        validation_tokens=2000,
    )


def own(folder: Path) -> Store:
    return Store(folder / "sweep.db", owner=True)


def test_a_run_is_its_configuration() -> None:
    first, again = (plan_runs(tiny_ladder(2), "corpus") for _ in range(2))
    assert [run.config.id for run in first] == [run.config.id for run in again]
    assert len({run.config.id for run in first}) == 4
    assert plan_runs(tiny_ladder(2), "other")[0].config.id != first[0].config.id
    config = first[0].config
    assert config.tokens == config.steps * config.batch_tokens
    assert abs(config.tokens * config.count().flops_per_token / first[0].budget - 1) < 0.05


def test_the_entropy_of_the_source_is_that_of_its_text() -> None:
    corpus, entropy = synthetic_corpus(16, 200_000, 3, 1.2)
    transition = transition_matrix(16, 3, 1.2)
    ids = corpus.tokens.astype(int)
    import numpy as np

    measured = -np.log(transition[ids[:-1], ids[1:]]).mean()
    assert measured == pytest.approx(entropy, abs=0.01)
    assert entropy_rate(np.full((4, 4), 0.25)) == pytest.approx(np.log(4))


def test_two_owners_are_refused_and_a_dead_one_is_not(tmp_path: Path) -> None:
    with own(tmp_path) as store:
        with pytest.raises(StoreBusyError, match="another process owns"):
            own(tmp_path)
        with Store(tmp_path / "sweep.db") as reader:  # reading is free
            assert reader.runs() == []
        store.add("tiny", plan_runs(tiny_ladder(), "c"))
        assert store.claim("me", 1) is not None
    with own(tmp_path) as store:  # the claim of an owner that is gone is void
        assert {row["status"] for row in store.runs()} == {"pending"}


def test_a_claim_fences_the_ones_before(tmp_path: Path) -> None:
    result = {
        "loss": 1.0,
        "bits_per_byte": 1.0,
        "wall_s": 1.0,
        "unique_tokens": 5,
        "points": [[1, 16, 0.1, 2.0]],
    }
    with own(tmp_path) as store:
        store.add("tiny", plan_runs(tiny_ladder(), "c"))
        row = store.claim("one", 1)
        assert row is not None and row["attempt"] == 1
        store.release(row["id"], 1, "killed")
        again = store.claim("two", 1)
        assert again is not None and (again["id"], again["attempt"]) == (row["id"], 2)
        assert not store.finish(row["id"], 1, result, "here")
        assert store.finish(row["id"], 2, result, "here")
        assert not store.finish(row["id"], 2, result, "here")
        assert store.add("tiny", plan_runs(tiny_ladder(), "c")) == 0
        assert len(store.runs(status="done")) == 1


def test_a_clock_that_jumps_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leases end with processes, not with hours: a claim holds though the clock is a year off."""
    now = time.time()
    with own(tmp_path) as store:
        store.add("tiny", plan_runs(tiny_ladder(), "c"))
        first = store.claim("one", 1)
        monkeypatch.setattr(time, "time", lambda: now + 3e7)
        second = store.claim("one", 1)
        monkeypatch.setattr(time, "time", lambda: now - 3e7)
        assert first is not None and second is not None and first["id"] != second["id"]
        assert store.claim("one", 1) is None


def test_a_full_disk_is_survived_by_the_store(tmp_path: Path) -> None:
    with own(tmp_path) as store:
        store.add("tiny", plan_runs(tiny_ladder(2), "c"))
        pages = store.connection.execute("PRAGMA page_count").fetchone()[0]
        store.connection.execute(f"PRAGMA max_page_count={pages}")
        with pytest.raises(sqlite3.OperationalError, match="full"):
            for _ in range(200):
                store.keep_fit("x" * 1000, {"y": "z" * 1000})
        store.connection.execute("PRAGMA max_page_count=100000")
        assert len(store.runs(status="pending")) == 4
        assert store.claim("one", 1) is not None


def test_a_prediction_must_come_before_its_run(tmp_path: Path) -> None:
    result = {"loss": 1.0, "bits_per_byte": 1.0, "wall_s": 1.0, "unique_tokens": 5, "points": []}
    ladder = tiny_ladder()
    with own(tmp_path) as store:
        held_out = planned(ladder, "c", (16, 1), 1e8, role="held-out")
        assert held_out is not None
        name = store.register_prediction(1e8, {"runs": []})
        assert store.predictions()[0]["id"] == name
        store.add("tiny", [held_out])
        row = store.claim("one", 1)
        assert row is not None and store.finish(row["id"], row["attempt"], result, "here")
        with pytest.raises(FormatError, match="too late"):
            store.register_prediction(1e8, {"runs": [1]})


def test_ladders_are_checked(tmp_path: Path) -> None:
    path = tmp_path / "ladder.toml"
    for text, word in (
        ("budgets = [1e9]\ndata = ['x']\nbugdets = 3", "bugdets"),
        ("budgets = [1e9]", "either data or synthetic"),
        ("budgets = []\ndata = ['x']", "budgets"),
        ("budgets = [", "no ladder"),
    ):
        path.write_text(text)
        with pytest.raises(FormatError, match=word):
            read_ladder(path)
    path.write_text("budgets = [1e9, 2e9]\ndata = ['texts']\nshapes = [[32, 1]]\n")
    assert read_ladder(path).shapes == ((32, 1),)


def environment(folder: Path, count: int) -> dict[str, str]:
    """A module `sweeps` with the ladder, for the owner's process."""
    (folder / "sweeps.py").write_text(
        f"import test_sweep_ladder\nLADDER = test_sweep_ladder.tiny_ladder({count})\n"
    )
    (folder / "test_sweep_ladder.py").write_text(Path(__file__).read_text())
    path = os.pathsep.join([str(folder), *(part for part in sys.path if part)])
    return {**os.environ, "PYTHONPATH": path}


def children(process: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    except OSError:
        return []


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks for workers in Linux's /proc")
def test_thirty_runs_killed_at_random(tmp_path: Path) -> None:
    """kill -9 of workers and of the owner; every run is done once and ends as if nothing had happened."""
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "sweep.db")]
    options = {"env": environment(tmp_path, 15), "stdout": subprocess.PIPE, "text": True}
    generator = random.Random(5)
    deaths = []
    for who in ("worker", "owner", "worker", "owner", None):
        with subprocess.Popen(command, **options) as owner:
            assert owner.stdout is not None and owner.stdout.readline() == "owning\n"
            if who is None:
                said = owner.stdout.read()
                continue
            while not children(owner.pid) and owner.poll() is None:
                time.sleep(0.02)
            time.sleep(generator.uniform(3, 6))
            workers = children(owner.pid)
            if workers and who == "worker":
                os.kill(generator.choice(workers), signal.SIGKILL)
                deaths.append(who)
                time.sleep(1)
            owner.kill()
            deaths.append("owner")
    assert deaths.count("owner") == 4
    assert "'done': 30, 'pending': 0, 'failed': 0" in said
    with Store(tmp_path / "sweep.db") as store:
        rows = store.runs()
        assert len(rows) == 30 and all(row["status"] == "done" for row in rows)
        assert max(row["attempt"] for row in rows) > 1
        for row in rows:  # the steps that were kept follow each other: none was taken twice
            lines = (runner.run_folder(store, row["id"]) / "metrics.jsonl").read_text().splitlines()
            steps = [json.loads(line)["step"] for line in lines]
            assert steps == list(range(1, store.run_config(row).steps + 1))
        # A run that was broken off has the same loss as one that was not.
        broken = max(rows, key=lambda row: row["attempt"])
        config = store.run_config(broken)
    again = tmp_path / "again"
    from octavo.scaling.sweeping.ladder import write_config
    from octavo.scaling.sweeping.worker import run

    write_config(again, config)
    with open(os.devnull, "w") as nowhere:
        assert run(again, tmp_path / "corpus", nowhere)["loss"] == broken["loss"]


def test_workers_that_cannot_write_fail_and_go_on_later(tmp_path: Path) -> None:
    """A real limit of the kernel on the size of files stands for the full disk."""
    import resource

    ladder = tiny_ladder()
    with own(tmp_path) as store:
        runner.begin(ladder, store)
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (6000, limits[1]))
        said: list[dict] = []
        try:
            active = runner.Runner(store, 1, said.append, False)
            active.failures = 3  # two failures more and it stops
            counts = active.run()
        except (OSError, sqlite3.Error):
            counts = {"done": 0}
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert counts["done"] == 0
    with own(tmp_path) as store:
        assert runner.run_all(store, workers=2) == {"done": 2, "pending": 0, "failed": 0}


def test_corpus_is_shuffled_and_framed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OCTAVO_DATA_CACHE", str(tmp_path / "cache"))
    (tmp_path / "texts.jsonl").write_text(
        "\n".join(f'"number {n} of the texts, {n * n}"' for n in range(300))
    )
    ladder = Ladder("texts", (1e9,), data=("texts.jsonl",), vocabulary=300, folder=str(tmp_path))
    facts = prepare_corpus(ladder, tmp_path / "corpus")
    corpus = open_corpus(tmp_path / "corpus")
    assert facts.tokens == len(corpus) and len(corpus.starts) == 301
    assert prepare_corpus(ladder, tmp_path / "corpus") == facts


def test_a_run_refuses_another_corpus(tmp_path: Path) -> None:
    from octavo.scaling.sweeping.ladder import write_config
    from octavo.scaling.sweeping.worker import run

    prepare_corpus(tiny_ladder(), tmp_path / "corpus")
    planned_run = plan_runs(tiny_ladder(), "another")[0]
    write_config(tmp_path / "run", planned_run.config)
    assert RunConfig(**json.loads((tmp_path / "run/run.json").read_text())) == planned_run.config
    with open(os.devnull, "w") as nowhere, pytest.raises(FormatError, match="the run wants another"):
        run(tmp_path / "run", tmp_path / "corpus", nowhere)
