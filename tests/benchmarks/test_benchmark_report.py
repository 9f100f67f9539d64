"""Medians, turns, tables and files of a benchmark."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import memory, startup, worker
from benchmarks.comparison import take_turns
from benchmarks.neighbour import busy_core
from benchmarks.report import Report, measure_bandwidth, table, write
from benchmarks.workload import (
    MissingModelError,
    Options,
    Prompts,
    median,
    model_paths,
    texts_to_embed,
)


def test_median_of_odd_and_even() -> None:
    assert median([5, 1, 3]) == 3
    assert median([4, 1, 2, 9]) == 3


def test_turns_alternate_and_the_first_does_not_count() -> None:
    order: list[str] = []

    def contestant(name: str) -> float:
        order.append(name)
        return float(len(order))

    samples = take_turns({name: lambda name=name: contestant(name) for name in "ab"}, 2, "test")  # type: ignore[misc]
    assert order == ["b", "a", "a", "b", "b", "a"]
    assert samples == {"a": [3, 6], "b": [4, 5]}


@pytest.mark.parametrize(("more_is_better", "ratio"), [(True, "0.50"), (False, "1.00")])
def test_octavo_is_set_against_the_best_peer(more_is_better: bool, ratio: str) -> None:
    report = Report("name", "claim", "unit", more_is_better=more_is_better)
    report.add("model", "work", {"octavo": [10, 99, 1], "slow": [10.0], "fast": [20.0]})
    assert table(report).splitlines()[-1] == f"| model | work | 10 | 10 | 20 | {ratio} |"


def test_results_are_dated_and_hold_every_sample(tmp_path: Path) -> None:
    report = Report("name", "claim", "unit", notes=["a note"])
    report.add("model", "work", {"octavo": [1.0, 2.0, 4.0], "peer": [1.0]})
    path = write(report, Options(results=tmp_path), {"cores": 2}, {"python": "3"})
    content = json.loads(path.with_suffix(".json").read_text())
    assert path.name == f"{content['date']}-name.md"
    assert content["rows"][0] == {
        "model": "model", "work": "work", "engine": "octavo", "median": 2.0, "samples": [1.0, 2.0, 4.0]
    }  # fmt: skip
    page = path.read_text()
    assert "| model | work | 2 | 1 | 2.00 |" in page and "- a note" in page and "cores 2" in page


def test_models_are_found_or_missed_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OCTAVO_TEST_MODELS", str(tmp_path))
    known = {"here": "here.gguf", "away": "away.gguf"}
    with pytest.raises(MissingModelError, match="none of here, away"):
        model_paths(Options(), known)
    (tmp_path / "here.gguf").touch()
    assert model_paths(Options(), known) == {"here": tmp_path / "here.gguf"}
    assert model_paths(Options(models=(str(tmp_path / "here.gguf"),)), known) == {
        "here": tmp_path / "here.gguf"
    }
    with pytest.raises(MissingModelError, match="model away"):
        model_paths(Options(models=("away",)), known)


def test_prompts_are_new_each_time_and_alike_for_each_engine() -> None:
    one, other = Prompts(), Prompts()
    first, second = one.next(64), one.next(64)
    assert first != second and [first, second] == [other.next(64), other.next(64)]
    assert texts_to_embed(3, 20) == texts_to_embed(3, 20)


def test_bandwidth_is_of_memory() -> None:
    assert 0.1 < measure_bandwidth(threads=2, megabytes=8, rounds=1) < 10_000


def test_a_worker_tells_values_and_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "engine_of_the_test.py").write_text(
        "class Engine:\n"
        "    def __init__(self, path, *, threads): print('noise on the output'); self.threads = threads\n"
        "    def double(self, number): return 2 * number * self.threads\n"
    )
    program = (
        "from benchmarks import worker\n"
        "worker.ENGINES['test'] = ('engine_of_the_test', 'Engine', {})\n"
        "worker.ENGINES['absent'] = ('no_such_module', 'Engine', {})\n"
        "worker.main()\n"
    )
    requests = [{"call": "double", "arguments": {"number": 3}}, {"call": "halve", "arguments": {}}]

    def run(engine: str) -> list[dict[str, object]]:
        done = subprocess.run(
            [sys.executable, "-c", program, engine, "model", "--threads", "2"],
            input="".join(json.dumps(request) + "\n" for request in requests),
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(worker.ROOT)])},
        )
        return [json.loads(line) for line in done.stdout.splitlines()]

    loaded, doubled, failed = run("test")
    assert loaded == {"value": 0} and doubled == {"value": 12}
    assert "halve" in str(failed["error"])
    assert "no_such_module" in str(run("absent")[0]["error"])


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="the system has no smaps_rollup")
def test_memory_is_the_kernels_account() -> None:
    held = bytearray(os.urandom(1)) * (64 << 20)
    account = memory.memory_of(os.getpid())
    assert account["VmHWM"] >= account["Anonymous"] > len(held) >> 20


def test_a_busy_core_ends_with_its_block() -> None:
    before = _children()
    with busy_core():
        assert len(_children()) == len(before) + 1
    assert _children() == before


def test_start_up_fails_in_words() -> None:
    assert startup.seconds_to_first_output([sys.executable, "-c", "print(1)"]) > 0
    with pytest.raises(RuntimeError, match="a reason"):
        startup.seconds_to_first_output([sys.executable, "-c", "raise SystemExit('a reason')"])


def _children() -> set[str]:
    path = Path(f"/proc/self/task/{os.getpid()}/children")
    if not path.exists():
        pytest.skip("the system lists no children of a process")
    return set(path.read_text().split())
