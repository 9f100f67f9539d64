"""The kernels of training once more by each instruction set that this machine has besides the best."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")

from octavo import _native  # noqa: E402


@pytest.mark.skipif(_native.training_kernels() != "amx", reason="this processor has one set for training")
def test_without_tiles() -> None:
    folder = Path(__file__).parent
    files = [str(folder / f"test_{name}.py") for name in ("native_product", "native_training", "bfloat16")]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *files],
        env={**os.environ, "OCTAVO_ISA": "avx512-bf16"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert "skipped" not in done.stdout.splitlines()[-1]
