"""The published runs that our fitters are held against, from the folder that OCTAVO_SHARED names.

None of them is in the package: some have no licence that would allow it.
"""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

SHARED = Path(os.environ.get("OCTAVO_SHARED", Path(__file__).resolve().parents[2].parent / "shared"))
FOLDER = SHARED / "data" / "scaling"


def path(name: str) -> Path:
    found = FOLDER / name
    if not found.exists():
        pytest.skip(f"{name} is absent: OCTAVO_SHARED names the folder of the published runs")
    return found


def rows(name: str) -> list[dict[str, str]]:
    return list(csv.DictReader(path(name).read_text().splitlines()))


def columns(table: list[dict[str, Any]], *names: str) -> list[NDArray[np.float64]]:
    return [np.array([float(row[name]) for row in table]) for name in names]


def content(name: str) -> Any:
    return json.loads(path(name).read_text())


def epoch() -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """(N, D, loss) of all 245 points."""
    n, c, loss = columns(rows("epoch/svg_extracted_data.csv"), "Model Size", "Training FLOP", "loss")
    return n, c / 6 / n, loss


def epoch_240() -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Without the five highest losses, as Besiroglu et al. fit them."""
    n, d, loss = epoch()
    kept = loss < sorted(loss)[-5]
    return n[kept], d[kept], loss[kept]
