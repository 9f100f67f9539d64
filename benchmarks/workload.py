"""What every benchmark is run on: the models, prompts of token ids, texts to embed, the options of a run."""

from __future__ import annotations

import argparse
import os
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

GENERATORS = {
    "smollm2-135m": "SmolLM2-135M-Instruct.Q4_1.gguf",
    "gemma3-270m": "gemma3-270m.Q4_K_M.gguf",
    "qwen2.5-coder-0.5b": "Qwen2.5-Coder-0.5B-Instruct.Q4_K_M.gguf",
    "qwen2.5-coder-1.5b": "Qwen2.5-Coder-1.5B-Instruct.Q4_K_M.gguf",
}
EMBEDDERS = {"minilm-l6": "all-MiniLM-L6-v2"}

# Ordinary tokens of every vocabulary above: past the control tokens and single bytes, within the smallest.
_FIRST_TOKEN, _LAST_TOKEN = 1_000, 20_000

_WORDS = (
    "the a river engine small light of and to in was had with new old under over between morning paper "
    "system letter account museum winter station harbour report children music measure theory question "
    "carefully because although several quickly nothing every government language history mountain"
).split()


class MissingModelError(RuntimeError):
    """A model that a benchmark needs is not on this machine."""


@dataclass(frozen=True, slots=True)
class Options:
    """How a benchmark is run.  models: short names or paths; empty means all that the claim is about."""

    models: tuple[str, ...] = ()
    rounds: int = 5
    threads: int = 2
    results: Path = Path(__file__).parent / "results"


def default_threads() -> int:
    """The cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--models", default="", help="short names or paths, with commas (default: all)")
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds (default: 5)")
    parser.add_argument("--threads", type=int, default=default_threads(), help="of each engine")
    parser.add_argument("--results", type=Path, default=Options().results, help="folder to write to")


def parse_options(arguments: argparse.Namespace) -> Options:
    models = tuple(name.strip() for name in arguments.models.split(",") if name.strip())
    if arguments.rounds < 1 or arguments.threads < 1:
        raise ValueError("--rounds and --threads must both be at least 1")
    return Options(models, arguments.rounds, arguments.threads, arguments.results)


def model_paths(options: Options, known: dict[str, str]) -> dict[str, Path]:
    """Short name -> file or folder, of the wanted models or of all in `known`.

    Raises MissingModelError for a model that is asked for and absent, or where none of `known` is there.
    """
    folder = Path(os.environ.get("OCTAVO_TEST_MODELS", "~/.cache/octavo-models")).expanduser()
    if not options.models:
        present = {name: folder / file for name, file in known.items() if (folder / file).exists()}
        if not present:
            raise MissingModelError(f"none of {', '.join(known)} is in {folder}; set OCTAVO_TEST_MODELS")
        return present
    paths = {}
    for wanted in options.models:
        path = folder / known[wanted] if wanted in known else Path(wanted).expanduser()
        if not path.exists():
            raise MissingModelError(f"model {wanted}: {path} is absent; known names: {', '.join(known)}")
        paths[wanted if wanted in known else path.stem] = path
    return paths


class Prompts:
    """Prompts of random ordinary tokens, a new one each time, the same ones for each engine."""

    def __init__(self, seed: int = 0) -> None:
        self._random = random.Random(seed)

    def next(self, length: int) -> list[int]:
        return [self._random.randrange(_FIRST_TOKEN, _LAST_TOKEN) for _ in range(length)]


def texts_to_embed(count: int, longest: int, seed: int = 0) -> list[str]:
    """Texts of 6 to `longest` words: mixed lengths, as a collection of passages has them."""
    source = random.Random(seed)
    return [" ".join(source.choices(_WORDS, k=source.randint(6, longest))) for _ in range(count)]


def median(samples: Sequence[float]) -> float:
    """The middle one, or the mean of the two in the middle."""
    ordered = sorted(samples)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
