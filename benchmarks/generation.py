"""One sequence: tokens a second generated, beside llama.cpp."""

from __future__ import annotations

import functools

from benchmarks.comparison import generators, octavo_and_peer, take_turns
from benchmarks.report import Report, main
from benchmarks.worker import Worker
from benchmarks.workload import GENERATORS, Options, model_paths

TOKENS = 64


def run(options: Options) -> Report:
    report = Report("generation", "One sequence generates at the speed of the memory", "tokens a second")
    for name, path in model_paths(options, GENERATORS).items():
        with octavo_and_peer(path, options) as workers:
            engines = generators(workers, path, options)
            contestants = {
                engine: functools.partial(generate, TOKENS, 1, 0) for engine, generate in engines.items()
            }
            contestants["octavo, step alone"] = functools.partial(_step_speed, workers["octavo"])
            report.add(name, f"generate {TOKENS}", take_turns(contestants, options.rounds, name))
    report.notes.append(
        "octavo and xllamacpp: the whole engine, greedy. llama-bench and 'step alone': without sampling."
    )
    return report


def _step_speed(octavo: Worker) -> float:
    return 1 / octavo.call("step_seconds", batch=1, steps=TOKENS)


if __name__ == "__main__":
    main(run)
