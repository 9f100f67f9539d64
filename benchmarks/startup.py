"""From the start of the process to its first token, the file cached: octavo's command beside llama.cpp."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.comparison import take_turns
from benchmarks.peers import import_peer
from benchmarks.report import Report, main
from benchmarks.worker import ROOT
from benchmarks.workload import GENERATORS, Options, model_paths

PROMPT = "The capital of France is"


def run(options: Options) -> Report:
    import_peer("xllamacpp")
    report = Report("startup", "An answer begins in a blink", "seconds", more_is_better=False)
    for name, path in model_paths(options, GENERATORS).items():
        contestants = {
            engine: functools.partial(seconds_to_first_output, command)
            for engine, command in _commands(path, options.threads).items()
        }
        report.add(name, "start to first token", take_turns(contestants, options.rounds, name))
    report.notes.append("xllamacpp: a Python process that loads it and completes one token, without warm-up.")
    return report


def _commands(model: Path, threads: int) -> dict[str, list[str]]:
    """The command of each engine; llama-cli of a native build where OCTAVO_LLAMA_CLI names it."""
    script = Path(sys.executable).with_name("octavo")
    octavo = [str(script)] if script.exists() else [sys.executable, "-m", "octavo"]
    options = ["--max-tokens", "1", "--temperature", "0", "--threads", str(threads), "--quiet", "--offline"]
    commands = {
        "octavo": [*octavo, "run", str(model), PROMPT, *options],
        "xllamacpp": [sys.executable, "-m", "benchmarks.first_token", str(model), PROMPT, str(threads)],
    }
    if program := os.environ.get("OCTAVO_LLAMA_CLI"):
        more = ["-n", "1", "-t", str(threads), "--temp", "0", "-c", "4096", "-fa", "on"]
        more += ["-no-cnv", "--no-display-prompt", "--no-warmup"]
        commands["llama.cpp (native)"] = [program, "-m", str(model), "-p", PROMPT, *more]
    return commands


def seconds_to_first_output(command: list[str]) -> float:
    """Time from starting a process to its first byte of standard output.

    Raises RuntimeError where it fails or prints nothing.
    """
    began = time.perf_counter()
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0, cwd=ROOT
    ) as process:
        assert process.stdout and process.stderr
        first = process.stdout.read(1)
        seconds = time.perf_counter() - began
        _, errors = process.communicate(timeout=120)
    if not first or process.returncode:
        raise RuntimeError(f"{Path(command[0]).name} printed nothing or failed: {errors.decode()[-500:]}")
    return seconds


if __name__ == "__main__":
    main(run)
