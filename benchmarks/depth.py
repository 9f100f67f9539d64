"""A long context: tokens a second after 2,048 tokens against none, beside llama.cpp."""

from __future__ import annotations

import functools

from benchmarks.comparison import generators, octavo_and_peer, take_turns
from benchmarks.report import Report, main
from benchmarks.workload import GENERATORS, Options, median, model_paths

DEPTHS = (0, 2048)
TOKENS = 64


def run(options: Options) -> Report:
    report = Report("depth", "Generation hardly slows as the context grows", "tokens a second")
    for name, path in model_paths(options, GENERATORS).items():
        with octavo_and_peer(path, options) as workers:
            engines = generators(workers, path, options)
            # Both depths take turns too: their ratio is the claim.
            contestants = {
                f"{engine} {depth}": functools.partial(generate, TOKENS, 1, depth)
                for depth in DEPTHS
                for engine, generate in engines.items()
            }
            samples = take_turns(contestants, options.rounds, name)
        for depth in DEPTHS:
            at_depth = {engine: samples[f"{engine} {depth}"] for engine in engines}
            report.add(name, f"depth {depth:,}", at_depth)
        shallow, deep = DEPTHS
        ratios = ", ".join(
            f"{engine} {median(samples[f'{engine} {deep}']) / median(samples[f'{engine} {shallow}']):.2f}"
            for engine in engines
        )
        report.notes.append(f"{name}, speed at depth {deep:,} by speed at {shallow}: {ratios}.")
    return report


if __name__ == "__main__":
    main(run)
