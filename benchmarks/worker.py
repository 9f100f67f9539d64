"""One engine with one model in a process of its own: `python -m benchmarks.worker ENGINE MODEL ...`.

It reads a request a line, {"call": method, "arguments": {...}}, and answers {"value": ...} or {"error": ...}.
Each side so has its own memory, threads and failures, and both stay loaded while they take turns.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

ROOT = Path(__file__).resolve().parent.parent

# name: (module, class, further arguments of the constructor)
ENGINES: dict[str, tuple[str, str, dict[str, object]]] = {
    "octavo": ("benchmarks.octavo_engine", "Octavo", {}),
    "octavo-embedder": ("benchmarks.octavo_engine", "OctavoEmbedder", {}),
    "xllamacpp": ("benchmarks.peers", "Xllamacpp", {}),
    "sentence-transformers": ("benchmarks.peers", "SentenceTransformers", {}),
    "sentence-transformers-bfloat16": ("benchmarks.peers", "SentenceTransformers", {"dtype": "bfloat16"}),
}


class Worker:
    """An engine in another process, seen from here: a method's name and arguments to its value."""

    def __init__(self, engine: str, model: Path, *, threads: int, sequences: int | None = None) -> None:
        self.engine = engine
        self._errors = tempfile.TemporaryFile("w+")
        command = [sys.executable, "-m", "benchmarks.worker", engine, str(model), "--threads", str(threads)]
        command += ["--sequences", str(sequences)] if sequences else []
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True, cwd=ROOT
        )
        try:
            self._receive()  # it has loaded the model
        except BaseException:
            self.close()
            raise

    @property
    def process_id(self) -> int:
        return self._process.pid

    def call(self, method: str, **arguments: object) -> float:
        """What the engine's method returns.  Raises RuntimeError with its message where it fails."""
        assert self._process.stdin
        self._process.stdin.write(json.dumps({"call": method, "arguments": arguments}) + "\n")
        self._process.stdin.flush()
        return float(self._receive())

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            if stream:
                stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self.close()

    def _receive(self) -> Any:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            self._errors.seek(0)
            raise RuntimeError(f"{self.engine} ended: {self._errors.read()[-1500:].strip() or 'no message'}")
        answer = json.loads(line)
        if "error" in answer:
            raise RuntimeError(f"{self.engine}: {answer['error']}")
        return answer["value"]


def serve(arguments: argparse.Namespace) -> None:
    """Load the engine, then answer requests until the input ends."""
    # Native libraries print to file descriptor 1: that becomes the error output, and ours is a copy.
    protocol = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    module, class_name, more = ENGINES[arguments.engine]
    sequences = {"sequences": arguments.sequences} if arguments.sequences else {}

    def answer(**fields: object) -> None:
        protocol.write(json.dumps(fields) + "\n")

    try:
        engine_class = getattr(importlib.import_module(module), class_name)
        engine = engine_class(arguments.model, threads=arguments.threads, **more, **sequences)
    except Exception as error:
        answer(error=f"{type(error).__name__}: {error}")
        return
    answer(value=0)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer(value=getattr(engine, request["call"])(**request["arguments"]))
        except Exception as error:
            answer(error=f"{request['call']}: {type(error).__name__}: {error}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("engine", choices=ENGINES)
    parser.add_argument("model", type=Path)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--sequences", type=int)
    serve(parser.parse_args())
    # A peer's threads may never end by themselves.
    os._exit(0)


if __name__ == "__main__":
    main()
