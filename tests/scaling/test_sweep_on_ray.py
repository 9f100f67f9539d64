"""The runs of a sweep on a Ray cluster of this machine: the losses of local workers, each run done once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("scipy")
ray = pytest.importorskip("ray", reason="the cluster's library is not installed: pip install 'octavo[ray]'")

from click.testing import CliRunner  # noqa: E402

from octavo.cli.main import main  # noqa: E402
from octavo.scaling.sweeping.store import Store  # noqa: E402

LADDER = """
name = "tiny"
budgets = [2e7, 2.4e7]
shapes = [[8, 1], [16, 1]]
ratios = [0.01, 1e9]
context = 16
validation_tokens = 2000
synthetic = { vocabulary = 32, tokens = 40000, seed = 0, exponent = 1.2 }
"""


def swept(folder: Path, *options: str) -> dict[str, tuple[float, int]]:
    """Run -> (its loss, its attempts), after octavo sweep run."""
    folder.mkdir()
    (folder / "ladder.toml").write_text(LADDER)
    store_path = folder / "sweep.db"
    command = ["sweep", "run", str(folder / "ladder.toml"), "--store", str(store_path), *options]
    said = CliRunner().invoke(main, command)
    assert said.exit_code == 0, said.output
    with Store(store_path) as store:
        rows = store.runs()
    assert all(row["status"] == "done" for row in rows)
    return {row["id"]: (row["loss"], row["attempt"]) for row in rows}


def test_a_cluster_finds_what_workers_find(tmp_path: Path) -> None:
    ours = swept(tmp_path / "workers", "--workers", "2")
    theirs = swept(tmp_path / "cluster", "--ray", "local")
    assert len(ours) == 4 and theirs == ours, json.dumps([ours, theirs])
    assert {attempt for _, attempt in theirs.values()} == {1}
