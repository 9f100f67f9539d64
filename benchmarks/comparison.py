"""Taking turns: each contestant once a round, so that a slow minute of the machine hits all of them."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from benchmarks.peers import import_peer, llama_benches
from benchmarks.worker import Worker
from benchmarks.workload import Options

# Threads of the engine that was measured last spin for a while before they sleep.
_REST_SECONDS = 0.1

Measure = Callable[[], float]
# tokens, batch, depth -> tokens a second
Generate = Callable[[int, int, int], float]


def take_turns(contestants: Mapping[str, Measure], rounds: int, what: str) -> dict[str, list[float]]:
    """Samples of each contestant, by rounds in alternating order, after one round that does not count."""
    samples: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(rounds + 1):
        order = list(contestants) if turn % 2 else list(contestants)[::-1]
        for name in order:
            time.sleep(_REST_SECONDS)
            value = contestants[name]()
            if turn:
                samples[name].append(value)
            print(f"  {what}: {name} {value:,.4g}{'' if turn else ' (warm-up)'}", file=sys.stderr)
    return samples


@contextlib.contextmanager
def octavo_and_peer(model: Path, options: Options, sequences: int = 1) -> Iterator[dict[str, Worker]]:
    """octavo and llama.cpp's wheel with one model, each in its process, both loaded.

    Raises MissingPeerError before anything is loaded where the peer is absent.
    """
    import_peer("xllamacpp")
    with contextlib.ExitStack() as stack:
        workers = {}
        for engine in ("octavo", "xllamacpp"):
            worker = Worker(engine, model, threads=options.threads, sequences=sequences)
            workers[engine] = stack.enter_context(worker)
        yield workers


def generators(workers: Mapping[str, Worker], model: Path, options: Options) -> dict[str, Generate]:
    """Generation speed of each worker, and of each llama-bench that is named in the environment."""

    def of_worker(worker: Worker) -> Generate:
        def generate(tokens: int, batch: int, depth: int) -> float:
            return worker.call("generate", tokens=tokens, batch=batch, depth=depth)

        return generate

    found: dict[str, Generate] = {name: of_worker(worker) for name, worker in workers.items()}
    found |= {bench.name: bench.generate for bench in llama_benches(model, options.threads)}
    return found
