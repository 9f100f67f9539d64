"""Tiny corpora and runs; also a program, `python tiny_runs.py FOLDER CORPUS KEY=VALUE...`, to be killed."""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from typing import Any

TINY: dict[str, Any] = {
    "vocabulary_size": 300,
    "layers": 2,
    "hidden_size": 32,
    "heads": 2,
    "context": 16,
    "batch_tokens": 64,
    "rows": 2,
    "steps": 12,
    "precision": "float32",
    "threads": 1,
    "validation": 0.1,
    "save_steps": 3,
}


def write_corpus(folder: Path) -> Path:
    """Documents of a few words each."""
    path = folder / "corpus.jsonl"
    lines = [f'"the {n} cats of {n * n} houses sat on mat {n}, and then they left."' for n in range(200)]
    path.write_text("\n".join(lines) + "\n")
    return path


def main() -> None:
    from octavo.training import TrainingConfig, train
    from octavo.training.checkpoints import list_checkpoints
    from octavo.training.loop import has_run, resume

    folder, corpus, *words = sys.argv[1:]
    options = {key: ast.literal_eval(value) for key, value in (word.split("=") for word in words)}
    if has_run(Path(folder)) and list_checkpoints(Path(folder)):
        resume(Path(folder))
    else:
        train(TrainingConfig(out=folder, data=(corpus,), **{**TINY, **options}))


if __name__ == "__main__":
    main()
