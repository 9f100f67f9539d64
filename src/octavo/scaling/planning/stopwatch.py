"""A few seconds of training steps of each shape: python -m octavo.scaling.planning.stopwatch JSON

Prints one line of JSON.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import numpy as np

from octavo.data.shards import corpus_of
from octavo.scaling.counting import count_model
from octavo.training.causal import LanguageModelling
from octavo.training.config import TrainingConfig, complete, model_config
from octavo.training.loop import Trainer
from octavo.training.precision import choose_precision

_SECONDS_EACH = 4.0


def measure_here(
    shapes: list[list[int]], vocabulary: int, context: int, optimizer: str, precision: str, threads: int
) -> dict[str, Any]:
    precision = choose_precision(precision, max(hidden for hidden, _ in shapes))
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
    return {"parameters": sizes, "flops_per_second": rates, "precision": precision}


if __name__ == "__main__":
    print(json.dumps(measure_here(**json.loads(sys.argv[1]))))
