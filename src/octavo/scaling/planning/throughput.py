"""How fast this machine trains: a few steps of some shapes, in a process of its own (PyTorch stays out of
ours).

python -m octavo.scaling.planning.throughput '{"shapes": [[64, 2]], "vocabulary": 512, ...}' prints one JSON
line.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from octavo.errors import OctavoError
from octavo.scaling.counting import count_model
from octavo.training.config import TrainingConfig, complete, model_config

SHAPES = ((32, 2), (64, 3), (128, 4), (256, 6))
_SECONDS_EACH = 4.0


@dataclass(frozen=True, slots=True)
class Throughput:
    """Measured points: parameters (active) and FLOPs a second, in rising order of size."""

    parameters: tuple[float, ...]
    flops_per_second: tuple[float, ...]

    def rate(self, parameters: float) -> float:
        """FLOPs a second at a size, between the points by their logarithms, beyond them the last one's."""
        x, y = np.log(self.parameters), np.log(self.flops_per_second)
        return float(np.exp(np.interp(np.log(parameters), x, y)))


def measure(
    vocabulary: int, context: int, *, optimizer: str = "adamw", precision: str = "float32", threads: int = 0
) -> Throughput:
    """About twenty seconds.  Raises OctavoError if the process fails."""
    wanted = {
        "shapes": SHAPES,
        "vocabulary": vocabulary,
        "context": context,
        "optimizer": optimizer,
        "precision": precision,
        "threads": threads,
    }
    command = [sys.executable, "-m", "octavo.scaling.planning.throughput", json.dumps(wanted)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise OctavoError(f"the speed of training could not be measured: {done.stderr.strip()[-300:]}")
    found = json.loads(done.stdout.splitlines()[-1])
    return Throughput(tuple(found["parameters"]), tuple(found["flops_per_second"]))


def _measure_here(
    shapes: list[list[int]], vocabulary: int, context: int, optimizer: str, precision: str, threads: int
) -> dict[str, Any]:
    from octavo.data.shards import corpus_of
    from octavo.training.causal import LanguageModelling
    from octavo.training.loop import Trainer

    corpus = corpus_of([np.random.default_rng(0).integers(0, vocabulary, 64 * context).tolist()])
    sizes, rates = [], []
    for hidden, layers in shapes:
        config = complete(
            TrainingConfig(
                out="",
                layers=layers,
                hidden_size=hidden,
                context=context,
                batch_tokens=16 * context,
                rows=16,
                steps=100,
                optimizer=optimizer,
                precision=precision,
                threads=threads,
                isolate=False,
                validation=0.0,
            )
        )
        trainer = Trainer(config, LanguageModelling.of_corpus(config, corpus, vocabulary))
        count = count_model(model_config(config, vocabulary, None))
        trainer.update()
        best, began = float("inf"), time.perf_counter()
        while time.perf_counter() - began < _SECONDS_EACH:
            before = time.perf_counter()
            trainer.update()
            best = min(best, time.perf_counter() - before)
        sizes.append(count.active)
        rates.append(count.flops_per_token * config.batch_tokens / best)
    return {"parameters": sizes, "flops_per_second": rates}


if __name__ == "__main__":
    print(json.dumps(_measure_here(**json.loads(sys.argv[1]))))
