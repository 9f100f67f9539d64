"""A prompt of 512 tokens: tokens a second until the first new token, beside llama.cpp."""

from __future__ import annotations

import functools

from benchmarks.comparison import Measure, octavo_and_peer, take_turns
from benchmarks.peers import llama_benches
from benchmarks.report import Report, main
from benchmarks.workload import GENERATORS, Options, model_paths

TOKENS = 512


def run(options: Options) -> Report:
    report = Report("prompt", "A prompt is read at the speed of the arithmetic", "tokens a second")
    for name, path in model_paths(options, GENERATORS).items():
        with octavo_and_peer(path, options) as workers:
            contestants: dict[str, Measure] = {
                engine: functools.partial(worker.call, "prompt", tokens=TOKENS)
                for engine, worker in workers.items()
            }
            for bench in llama_benches(path, options.threads):
                contestants[bench.name] = functools.partial(bench.prompt, TOKENS)
            report.add(name, f"prompt of {TOKENS}", take_turns(contestants, options.rounds, name))
    return report


if __name__ == "__main__":
    main(run)
