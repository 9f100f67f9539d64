"""How fast this machine trains: `stopwatch` measures in a process of its own, PyTorch stays out of ours."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass

import numpy as np

from octavo.errors import OctavoError

SHAPES = ((32, 2), (64, 3), (128, 4), (256, 6))


@dataclass(frozen=True, slots=True)
class Throughput:
    """Measured points: parameters (active) and FLOPs a second, in rising order of size, in one precision."""

    parameters: tuple[float, ...]
    flops_per_second: tuple[float, ...]
    precision: str = "float32"

    def rate(self, parameters: float) -> float:
        """FLOPs a second at a size, between the points by their logarithms, beyond them the last one's."""
        x, y = np.log(self.parameters), np.log(self.flops_per_second)
        return float(np.exp(np.interp(np.log(parameters), x, y)))


def measure(
    vocabulary: int, context: int, *, optimizer: str = "adamw", precision: str = "auto", threads: int = 0
) -> Throughput:
    """About twenty seconds.  Raises OctavoError if the process fails.

    precision: "auto" for what suits this processor, which the answer names.
    """
    wanted = {
        "shapes": SHAPES,
        "vocabulary": vocabulary,
        "context": context,
        "optimizer": optimizer,
        "precision": precision,
        "threads": threads,
    }
    command = [sys.executable, "-m", "octavo.scaling.planning.stopwatch", json.dumps(wanted)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise OctavoError(f"the speed of training could not be measured: {done.stderr.strip()[-300:]}")
    found = json.loads(done.stdout.splitlines()[-1])
    return Throughput(tuple(found["parameters"]), tuple(found["flops_per_second"]), found["precision"])
