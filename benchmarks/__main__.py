"""Runs the benchmarks, all or those named, and writes dated results to benchmarks/results."""

from __future__ import annotations

import argparse
import importlib
import sys

from benchmarks.report import run_and_write
from benchmarks.workload import add_arguments, parse_options

GENERATING = ("generation", "prompt", "batch", "depth", "startup", "neighbour", "memory")
NAMES = (
    *GENERATING,
    "embedding",
    "training",
    "fine_tuning",
    "tuning",
    "tuning_task",
    "adapter_serving",
    "speculation",
    "translation",
    "classification",
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)} (default: all)")
    add_arguments(parser)
    arguments = parser.parse_args()
    unknown = [name for name in arguments.names if name not in NAMES]
    if unknown:
        parser.error(f"unknown benchmark {unknown[0]}; there are {', '.join(NAMES)}")
    # With models named, all means all of one kind: an encoder generates nothing.
    names = arguments.names or (GENERATING if arguments.models else NAMES)
    scripts = [importlib.import_module(f"benchmarks.{name}") for name in names]
    return run_and_write([script.run for script in scripts], parse_options(arguments))


if __name__ == "__main__":
    sys.exit(main())
