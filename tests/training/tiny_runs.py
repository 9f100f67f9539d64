"""Tiny corpora and runs; also a program, `python tiny_runs.py FOLDER CORPUS KEY=VALUE...`, to be killed."""

from __future__ import annotations

import ast
import json
import random
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


# What differs in the other models.
TINY_MODELS: dict[str, dict[str, Any]] = {
    "gpt": {},
    "bert": {"rows": 2, "vocabulary_size": 200},
    "seq2seq": {"context": 24, "rows": 4, "batch_tokens": 192, "columns": ("source", "target")},
}


def write_corpus(folder: Path) -> Path:
    """Documents of a few words each."""
    path = folder / "corpus.jsonl"
    lines = [f'"the {n} cats of {n * n} houses sat on mat {n}, and then they left."' for n in range(200)]
    path.write_text("\n".join(lines) + "\n")
    return path


def write_pairs(folder: Path, count: int = 400) -> Path:
    """Numbers in English and German."""
    path = folder / "pairs.jsonl"
    english = "one two three four five six seven eight nine ten".split()
    german = "eins zwei drei vier fünf sechs sieben acht neun zehn".split()
    chance = random.Random(0)
    lines = []
    for _ in range(count):
        row = [chance.randrange(10) for _ in range(chance.randint(2, 5))]
        pair = {"source": " ".join(english[n] for n in row), "target": " ".join(german[n] for n in row)}
        lines.append(json.dumps(pair))
    path.write_text("\n".join(lines) + "\n")
    return path


def write_labelled(folder: Path) -> Path:
    """Texts whose label is which of two words is among theirs."""
    path = folder / "labelled.tsv"
    words = "the of sat on mat and then they left".split()
    lines = []
    for n in range(160):
        chosen = [words[(n * k) % len(words)] for k in range(1, 5 + n % 4)]
        chosen.insert(n % 4, "cats" if n % 2 else "houses")
        lines.append(f"{' '.join(chosen)}\t{n % 2}\n")
    path.write_text("".join(lines))
    return path


def main() -> None:
    from octavo.training import train
    from octavo.training.checkpoints import list_checkpoints
    from octavo.training.config import config_class
    from octavo.training.loop import has_run, resume

    folder, corpus, *words = sys.argv[1:]
    options = {key: ast.literal_eval(value) for key, value in (word.split("=") for word in words)}
    if has_run(Path(folder)) and list_checkpoints(Path(folder)):
        resume(Path(folder))
    else:
        model = options.pop("model", "gpt")
        values = {**TINY, **TINY_MODELS[model], **options}
        train(config_class(model)(out=folder, data=(corpus,), **values))


if __name__ == "__main__":
    main()
