"""A run on a local Ray cluster is the run of one process."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
ray = pytest.importorskip("ray", reason="the cluster's library is not installed: pip install 'octavo[ray]'")

from tiny_runs import TINY, write_corpus  # noqa: E402

from octavo.training import TrainingConfig, train  # noqa: E402
from octavo.training.on_ray import train_on_ray  # noqa: E402


@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_two_workers_are_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OCTAVO_DATA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    paths = os.pathsep.join(path for path in sys.path if path)
    corpus = write_corpus(tmp_path)
    values = {**TINY, "optimizer": "adamw", "rows": 4, "steps": 10, "data": (str(corpus),)}
    ray.init(
        num_cpus=2, include_dashboard=False, log_to_driver=False,
        runtime_env={"env_vars": {"PYTHONPATH": paths, "OCTAVO_DATA_CACHE": str(tmp_path / "cache")}},
    )  # fmt: skip
    try:
        result = train_on_ray(TrainingConfig(out=str(tmp_path / "two"), **values), workers=2)
    finally:
        ray.shutdown()
    train(TrainingConfig(out=str(tmp_path / "one"), **values))
    assert result.steps == 10
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), abs=1e-5)


def losses(out: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (out / "metrics.jsonl").read_text().splitlines()]
