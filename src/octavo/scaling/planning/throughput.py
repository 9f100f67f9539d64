"""How fast this machine trains: `stopwatch` measures in a process of its own, PyTorch stays out of ours."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import dataclass

import numpy as np

from octavo.errors import OctavoError

SHAPES = ((32, 2), (64, 3), (128, 4), (256, 6), (384, 8))


@dataclass(frozen=True, slots=True)
class Throughput:
    """Measured points, in rising order of size, in one precision.

    parameters: active ones.  flops_per_second: forward and backward.  seconds_per_update: what the optimizer
    takes for a step, however many tokens went into it; with Muon a third of the time of a small batch.
    """

    parameters: tuple[float, ...]
    flops_per_second: tuple[float, ...]
    seconds_per_update: tuple[float, ...]
    precision: str = "float32"

    def rate(self, parameters: float) -> float:
        """FLOPs a second at a size, between the points by their logarithms, beyond them the last one's."""
        x, y = np.log(self.parameters), np.log(self.flops_per_second)
        return float(np.exp(np.interp(np.log(parameters), x, y)))

    def seconds(self, parameters: float, flops: float, updates: int) -> float:
        """How long a run takes; an update grows with the size, beyond the points as between the last two."""
        x, y = np.log(self.parameters), np.log(self.seconds_per_update)
        at = math.log(parameters)
        beyond = max(at - x[-1], 0.0) * (y[-1] - y[-2]) / (x[-1] - x[-2])
        return flops / self.rate(parameters) + updates * math.exp(np.interp(at, x, y) + beyond)


def measure(
    vocabulary: int, context: int, *, optimizer: str = "adamw", precision: str = "auto", threads: int = 0
) -> Throughput:
    """About half a minute.  Raises OctavoError if the process fails.

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
    found = {name: tuple(each) if isinstance(each, list) else each for name, each in found.items()}
    return Throughput(**found)
