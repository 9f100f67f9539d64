"""Two processes over gloo make the run of one, and one goes on from their checkpoint."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from tiny_runs import write_corpus, write_pairs  # noqa: E402

PROGRAM = Path(__file__).with_name("tiny_runs.py")
OPTIONS = ["optimizer='adamw'", "steps=50", "save_steps=20", "validate_steps=1000", "rows=4"]


def start(out: Path, corpus: Path, world: int, *options: str) -> list[subprocess.Popen[bytes]]:
    """The processes of one run, as torchrun would start them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    paths = os.pathsep.join(path for path in sys.path if path)
    shared = {"PYTHONPATH": paths, "WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    command = [sys.executable, str(PROGRAM), str(out), str(corpus), *OPTIONS, *options]
    return [
        subprocess.Popen(command, env={**os.environ, **shared, "RANK": str(rank)}) for rank in range(world)
    ]


def losses(out: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (out / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("model", "write", "options"),
    [
        ("bert", write_corpus, ["steps=4", "batch_tokens=128"]),
        ("seq2seq", write_pairs, ["steps=6", "validate_steps=3"]),
    ],
)
def test_other_models_in_two_processes(
    model: str,
    write: Callable[[Path], Path],
    options: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OCTAVO_DATA_CACHE", str(tmp_path / "cache"))
    corpus = write(tmp_path)
    for world in (1, 2):
        processes = start(tmp_path / str(world), corpus, world, f"model={model!r}", "dropout=0.0", *options)
        assert [process.wait() for process in processes] == [0] * world
    assert losses(tmp_path / "2") == pytest.approx(losses(tmp_path / "1"), abs=1e-5)


def test_two_processes_are_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OCTAVO_DATA_CACHE", str(tmp_path / "cache"))
    corpus = write_corpus(tmp_path)
    for world in (1, 2):
        assert [process.wait() for process in start(tmp_path / str(world), corpus, world)] == [0] * world
    alone, together = losses(tmp_path / "1"), losses(tmp_path / "2")
    assert len(alone) == 50
    assert together == pytest.approx(alone, abs=1e-5)
    assert (tmp_path / "2" / "model.safetensors").exists()
    # Killed after step 40 and resumed, by one process.
    last = tmp_path / "2" / "checkpoints" / "step-00000050"
    last.rename(tmp_path / "moved")
    assert [process.wait() for process in start(tmp_path / "2", corpus, 1)] == [0]
    assert losses(tmp_path / "2") == pytest.approx(alone, abs=1e-5)


def test_a_step_that_does_not_divide_is_refused() -> None:
    from octavo.errors import UnsupportedError
    from octavo.training.distributed import World, check_shares

    def batches(rows: int):
        return lambda step, rank, world: range(rank * rows // world, (rank + 1) * rows // world)

    check_shares(batches(4), World(0, 2))
    for rows in (3, 1):
        with pytest.raises(UnsupportedError, match="batch_tokens: a step does not divide among 2"):
            check_shares(batches(rows), World(1, 2))
