"""A few seconds of training steps of each shape: python -m octavo.scaling.planning.stopwatch JSON

Prints one line of JSON.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from typing import Any

import numpy as np

from octavo.data.shards import TokenCorpus, corpus_of
from octavo.scaling.counting import count_model
from octavo.training.causal import LanguageModelling
from octavo.training.config import TrainingConfig, complete, model_config
from octavo.training.loop import Trainer
from octavo.training.precision import choose_precision

_SECONDS_EACH = 1.5
# Rows of a micro-batch, as planned runs have them, and micro-batches of the two steps whose times tell passes
# and updates apart.
_ROWS, _FEW, _MANY = 32, 1, 3


def measure_here(
    shapes: list[list[int]], vocabulary: int, context: int, optimizer: str, precision: str, threads: int
) -> dict[str, Any]:
    precision = choose_precision(precision, max(hidden for hidden, _ in shapes))
    corpus = corpus_of([np.random.default_rng(0).integers(0, vocabulary, 64 * context).tolist()])
    sizes, rates, updates = [], [], []
    for hidden, layers in shapes:
        config = complete(
            TrainingConfig(
                out="",
                layers=layers,
                hidden_size=hidden,
                context=context,
                rows=_ROWS,
                steps=100,
                optimizer=optimizer,
                precision=precision,
                threads=threads,
                isolate=False,
                validation=0.0,
            )
        )
        few, many = (_best_step(config, corpus, vocabulary, batches) for batches in (_FEW, _MANY))
        count = count_model(model_config(config, vocabulary, None))
        pass_seconds = max(many - few, 1e-6) / (_MANY - _FEW)
        sizes.append(count.active)
        rates.append(count.flops_per_token * _ROWS * context / pass_seconds)
        updates.append(max(few - _FEW * pass_seconds, 1e-6))
    return {
        "parameters": sizes,
        "flops_per_second": rates,
        "seconds_per_update": updates,
        "precision": precision,
    }


def _best_step(config: TrainingConfig, corpus: TokenCorpus, vocabulary: int, micro_batches: int) -> float:
    """Seconds that a step takes which no other process disturbs."""
    config = replace(config, batch_tokens=micro_batches * _ROWS * config.context)
    trainer = Trainer(config, LanguageModelling.of_corpus(config, corpus, vocabulary))
    trainer.update()
    best, began = float("inf"), time.perf_counter()
    while time.perf_counter() - began < _SECONDS_EACH:
        before = time.perf_counter()
        trainer.update()
        best = min(best, time.perf_counter() - before)
    return best


if __name__ == "__main__":
    print(json.dumps(measure_here(**json.loads(sys.argv[1]))))
