"""Several sequences at once: total tokens a second beside llama.cpp, and what octavo's larger steps cost."""

from __future__ import annotations

import functools

from benchmarks.comparison import generators, octavo_and_peer, take_turns
from benchmarks.report import Report, main
from benchmarks.worker import Worker
from benchmarks.workload import GENERATORS, Options, median, model_paths

BATCHES = (1, 4, 8)
PROMPT = 128
TOKENS = 64


def run(options: Options) -> Report:
    report = Report("batch", "A step of a few tokens costs what a step of one costs", "tokens a second")
    for name, path in model_paths(options, GENERATORS).items():
        with octavo_and_peer(path, options, sequences=max(BATCHES)) as workers:
            engines = generators(workers, path, options)
            for batch in BATCHES:
                contestants = {
                    engine: functools.partial(generate, TOKENS, batch, PROMPT)
                    for engine, generate in engines.items()
                }
                work = f"{batch} sequences" if batch > 1 else "1 sequence"
                report.add(name, work, take_turns(contestants, options.rounds, f"{name}, {work}"))
            report.notes.append(_step_times(name, workers["octavo"], options, report))
    report.notes.append(f"Each sequence has {PROMPT} tokens of prompt before and generates {TOKENS} or more.")
    return report


def _step_times(name: str, octavo: Worker, options: Options, report: Report) -> str:
    """Add the steps' rows to the report, and return a note with their times and ratios."""
    steps = {str(batch): functools.partial(octavo.call, "step_seconds", batch=batch) for batch in BATCHES}
    samples = take_turns(steps, options.rounds, f"{name}, step")
    for batch in BATCHES:
        speeds = [batch / seconds for seconds in samples[str(batch)]]
        report.add(name, f"native step of {batch}", {"octavo": speeds})
    one, *more = (median(samples[str(batch)]) for batch in BATCHES)
    ratios = ", ".join(
        f"{batch} tokens {seconds * 1e3:.2f} ms ({seconds / one:.2f} x)"
        for batch, seconds in zip(BATCHES[1:], more, strict=True)
    )
    return f"{name}: octavo's native step of 1 token {one * 1e3:.2f} ms, {ratios}."


if __name__ == "__main__":
    main(run)
