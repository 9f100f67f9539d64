"""The results of a benchmark: one JSON file with every sample, and one Markdown table of medians."""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks.peers import MissingPeerError, llama_benches
from benchmarks.workload import (
    GENERATORS,
    MissingModelError,
    Options,
    add_arguments,
    median,
    model_paths,
    parse_options,
)

_PACKAGES = ("octavo", "numpy", "xllamacpp", "sentence-transformers", "torch")


@dataclass(frozen=True, slots=True)
class Measurement:
    """Samples of one engine at one work, in the report's unit."""

    model: str
    work: str
    engine: str
    samples: Sequence[float]

    @property
    def median(self) -> float:
        return median(self.samples)


@dataclass(slots=True)
class Report:
    """What one script found.  claim: in words, what the table is to show."""

    name: str
    claim: str
    unit: str
    more_is_better: bool = True
    measurements: list[Measurement] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, model: str, work: str, samples: Mapping[str, Sequence[float]]) -> None:
        """Samples of each engine at one work."""
        self.measurements += [Measurement(model, work, name, list(taken)) for name, taken in samples.items()]


def measure_bandwidth(threads: int, megabytes: int = 512, rounds: int = 8) -> float:
    """Memory read by `threads` threads together, in GB/s (10^9 bytes): the best of some rounds.

    Each thread takes the maximum of its part of an array that no cache holds; numpy releases the lock.
    """
    parts = np.array_split(np.ones(megabytes * 2**20 // 4, np.int32), threads)
    best = 0.0
    for _ in range(rounds):
        workers = [threading.Thread(target=part.max) for part in parts]
        began = time.perf_counter()
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        best = max(best, megabytes * 2**20 / (time.perf_counter() - began) / 1e9)
    return best


def machine_facts(threads: int) -> dict[str, object]:
    """What the figures depend on: processor, cores, memory and its bandwidth now, how busy it is."""
    facts: dict[str, object] = {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": threads,
        "system": f"{platform.system()} {platform.release()}",
        "bandwidth_gb_s": round(measure_bandwidth(threads), 1),
    }
    if hasattr(os, "sysconf"):
        facts["memory_gib"] = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    if hasattr(os, "getloadavg"):
        facts["load_before"] = round(os.getloadavg()[0], 2)
    return facts


def versions() -> dict[str, str]:
    """Versions of what was measured; octavo's with its commit."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    if os.environ.get("OCTAVO_LLAMA_BENCH"):
        model = next(iter(model_paths(Options(), GENERATORS).values()))  # any will do to ask for the build
        found |= {bench.name: bench.version() for bench in llama_benches(model, threads=1)}
    command = ["git", "describe", "--always", "--dirty"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent, check=False)
    found["commit"] = done.stdout.strip() or "unknown"
    return found


def write(report: Report, options: Options, facts: Mapping[str, object], used: Mapping[str, str]) -> Path:
    """Write <date>-<name>.json and .md; returns the path of the table."""
    date = datetime.date.today().isoformat()
    options.results.mkdir(parents=True, exist_ok=True)
    path = options.results / f"{date}-{report.name}.md"
    content = {
        "name": report.name,
        "date": date,
        "claim": report.claim,
        "unit": report.unit,
        "machine": facts,
        "versions": used,
        "rounds": options.rounds,
        "notes": report.notes,
        "rows": [
            {
                "model": one.model,
                "work": one.work,
                "engine": one.engine,
                "median": one.median,
                "samples": list(one.samples),
            }
            for one in report.measurements
        ],
    }
    path.with_suffix(".json").write_text(json.dumps(content, indent=1) + "\n")
    path.write_text(_page(report, options, facts, used, date))
    return path


def table(report: Report) -> str:
    """Medians in Markdown: a row a model and work, a column an engine, and octavo by the best peer."""
    engines = list(dict.fromkeys(one.engine for one in report.measurements))
    rows: dict[tuple[str, str], dict[str, float]] = {}
    for one in report.measurements:
        rows.setdefault((one.model, one.work), {})[one.engine] = one.median
    peers = [engine for engine in engines if not engine.startswith("octavo")]
    head = ["model", "work", *engines, *(["octavo / best peer"] if peers else [])]
    lines = [f"| {' | '.join(head)} |", f"| --- | --- |{' ---: |' * (len(head) - 2)}"]
    for (model, work), values in rows.items():
        cells = [model, work, *(f"{values[engine]:,.4g}" if engine in values else "" for engine in engines)]
        if peers:
            there = [values[engine] for engine in peers if engine in values]
            best = (max if report.more_is_better else min)(there, default=0.0)
            cells.append(f"{values['octavo'] / best:.2f}" if best and "octavo" in values else "")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main(benchmark: Callable[[Options], Report]) -> None:
    """The command line of one script."""
    parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__)
    add_arguments(parser)
    arguments = parser.parse_args()
    sys.exit(run_and_write([benchmark], parse_options(arguments)))


def run_and_write(benchmarks: Sequence[Callable[[Options], Report]], options: Options) -> int:
    """Run each, print and write its table; returns the exit status."""
    try:
        facts, used = machine_facts(options.threads), versions()
        for benchmark in benchmarks:
            report = benchmark(options)
            if report.measurements:
                path = write(report, options, facts, used)
                print(f"\n{report.claim} ({report.unit})\n\n{table(report)}\n\nwritten to {path}")
    except (MissingPeerError, MissingModelError, ValueError) as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 1
    return 0


def _page(
    report: Report, options: Options, facts: Mapping[str, object], used: Mapping[str, str], date: str
) -> str:
    better = "more is better" if report.more_is_better else "less is better"
    lines = [f"# {report.name}, {date}", "", f"{report.claim}", ""]
    longest = max((len(each.samples) for each in report.measurements), default=0)
    rounds = "one run each" if longest == 1 else f"medians of {options.rounds} interleaved rounds"
    lines.append(f"{report.unit}, {better}; {rounds}.")
    lines += ["", table(report), ""]
    lines += [f"- {note}" for note in report.notes]
    lines.append(f"- Machine: {', '.join(f'{name} {value}' for name, value in facts.items())}.")
    lines.append(f"- Versions: {', '.join(f'{name} {value}' for name, value in used.items())}.")
    lines.append(f"- Again: `python -m benchmarks {report.name}`.")
    return "\n".join(lines) + "\n"


def _processor() -> str:
    """Model of the processor, and family and model numbers where the name says little."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    fields = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    name = fields.get("model name", platform.machine())
    if "cpu family" in fields:
        name += f" (family {fields['cpu family']}, model {fields.get('model', '?')})"
    return name
