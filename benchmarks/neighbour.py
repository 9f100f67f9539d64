"""Another process busy on one core: tokens a second generated beside it, against the quiet speed."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator

from benchmarks.comparison import Generate, Measure, generators, octavo_and_peer, take_turns
from benchmarks.report import Report, main
from benchmarks.workload import GENERATORS, Options, median, model_paths

TOKENS = 32
QUIET, BUSY = "quiet machine", "one core busy"


def run(options: Options) -> Report:
    report = Report("neighbour", "A busy neighbour takes its core's share and no more", "tokens a second")
    for name, path in model_paths(options, GENERATORS).items():
        with octavo_and_peer(path, options) as workers:
            engines = generators(workers, path, options)
            contestants = {
                f"{engine}, {state}": _measure(generate, state == BUSY)
                for state in (QUIET, BUSY)
                for engine, generate in engines.items()
            }
            samples = take_turns(contestants, options.rounds, name)
        for state in (QUIET, BUSY):
            report.add(name, state, {engine: samples[f"{engine}, {state}"] for engine in engines})
        shares = ", ".join(
            f"{engine} {median(samples[f'{engine}, {BUSY}']) / median(samples[f'{engine}, {QUIET}']):.0%}"
            for engine in engines
        )
        report.notes.append(f"{name}, speed that is left: {shares}.")
    return report


@contextlib.contextmanager
def busy_core() -> Iterator[None]:
    """A process that computes for ever on the first core that we may use, and is ended afterwards."""
    affinity = getattr(os, "sched_getaffinity", None)
    pin = f"os.sched_setaffinity(0, {{{min(affinity(0))}}})" if affinity else "pass"
    process = subprocess.Popen([sys.executable, "-c", f"import os\n{pin}\nwhile True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def _measure(generate: Generate, busy: bool) -> Measure:
    def measure() -> float:
        with busy_core() if busy else contextlib.nullcontext():
            return generate(TOKENS, 1, 0)

    return measure


if __name__ == "__main__":
    main(run)
