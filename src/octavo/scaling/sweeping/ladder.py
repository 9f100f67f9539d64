"""ladder.toml -> the runs of a sweep: for each budget some shapes, each trained on what the budget pays.

A run is its configuration: the SHA-256 of it in canonical JSON is its name, so the same run is never done
twice, and a ladder that grows uses all that was there.  No PyTorch here.
"""

from __future__ import annotations

import hashlib
import json
import os
import tomllib
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from octavo.errors import FormatError
from octavo.scaling.counting import ModelCount, count_model
from octavo.training.config import TrainingConfig, complete, model_config

# (hidden size, layers); each has about twice the parameters of the one before.
SHAPES = (
    (32, 1),
    (32, 2),
    (48, 2),
    (64, 2),
    (64, 3),
    (80, 3),
    (96, 3),
    (96, 4),
    (128, 4),
    (160, 5),
    (192, 6),
    (256, 6),
)
# Part of a run over which the learning rate rises, and what is left of it at the end (Hoffmann et al., A1).
WARMUP, FINAL = 0.05, 0.1
_LEAST_STEPS = 300
# What a worker leaves in the folder of a run that is whole.
RESULT = "result.json"


@dataclass(frozen=True, slots=True)
class Ladder:
    """What ladder.toml says.

    name: of the sweep.  data: files, folders, or "package:NAME" for the source of an installed package; empty
    with `synthetic`: {vocabulary, tokens, seed, exponent}, a source whose entropy is known.
    vocabulary: of the tokenizer made from the data.  budgets: FLOPs of a run.  shapes: (hidden size, layers).
    ratios: least and most tokens a parameter (active) of a run that is worth its time.
    learning_rate: at a width of 64, at most `most_learning_rate`; see `learning_rate_of`.
    learning_rates: factors of a bowl at `bowl_shape` on the smallest budget.  seeds: of the cell in the
    middle.
    """

    name: str
    budgets: tuple[float, ...]
    data: tuple[str, ...] = ()
    synthetic: dict[str, float] = field(default_factory=dict)
    shapes: tuple[tuple[int, int], ...] = SHAPES
    ratios: tuple[float, float] = (0.6, 300.0)
    vocabulary: int = 512
    context: int = 128
    validation_tokens: int = 300_000
    optimizer: str = "muon"
    learning_rate: float = 0.02
    most_learning_rate: float = 0.03
    learning_rates: tuple[float, ...] = ()
    bowl_shape: tuple[int, int] = (64, 3)
    seeds: int = 1
    precision: str = "float32"
    folder: str = ""

    def __post_init__(self) -> None:
        if bool(self.data) == bool(self.synthetic):
            raise FormatError(f"ladder {self.name}: give either data or synthetic")
        if not self.budgets or min(self.budgets) <= 0:
            raise FormatError(f"ladder {self.name}: budgets: FLOPs of a run, each above 0")
        if self.precision not in ("float32", "bfloat16"):
            raise FormatError(f"ladder {self.name}: precision: float32 or bfloat16, the same for all runs")


@dataclass(frozen=True, slots=True)
class RunConfig:
    """One run, complete: whatever changes its result is here, and nothing else."""

    hidden: int
    layers: int
    vocabulary: int
    context: int
    tokens: int
    batch_tokens: int
    learning_rate: float
    optimizer: str
    precision: str
    seed: int
    corpus: str
    validation_tokens: int

    @property
    def id(self) -> str:
        """SHA-256 of the configuration in canonical JSON."""
        text = json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def steps(self) -> int:
        return self.tokens // self.batch_tokens

    def count(self) -> ModelCount:
        """Parameters and FLOPs; attention in one block of the context computes the masked half, too."""
        return count_model(model_config(self.training(""), self.vocabulary, None))

    def training(self, out: str, validation: float = 0.05) -> TrainingConfig:
        """For the trainer: one thread, plain windows, validated once, at the end."""
        return complete(
            TrainingConfig(
                out=out,
                layers=self.layers,
                hidden_size=self.hidden,
                context=self.context,
                batch_tokens=self.batch_tokens,
                rows=min(32, self.batch_tokens // self.context),
                steps=self.steps,
                optimizer=self.optimizer,
                learning_rate=self.learning_rate,
                schedule="cosine",
                warmup=WARMUP,
                final=FINAL,
                precision=self.precision,
                seed=self.seed,
                threads=1,
                isolate=False,
                validation=validation,
                validate_steps=self.steps,
                save_minutes=1.0,
            )
        )


@dataclass(frozen=True, slots=True)
class PlannedRun:
    """A run and its place in the sweep.  role: ladder, learning-rate, seed or held-out."""

    config: RunConfig
    budget: float
    role: str = "ladder"


def read_ladder(path: Path) -> Ladder:
    """Raises FormatError that names the key which is unknown or impossible."""
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise FormatError(f"{path}: no ladder: {error}") from error
    return ladder_of({"folder": str(path.parent), "name": path.stem, **values}, str(path))


def ladder_of(values: dict[str, Any], where: str) -> Ladder:
    """A ladder of plain values, as TOML or the store has them."""
    known = {each.name for each in fields(Ladder)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise FormatError(f"{where}: unknown key {unknown[0]!r}; there are {', '.join(sorted(known))}")
    frozen: dict[str, Any] = {
        name: tuple(tuple(x) if isinstance(x, list) else x for x in value)
        if isinstance(value, list)
        else value
        for name, value in values.items()
    }
    try:
        return Ladder(**frozen)
    except (TypeError, ValueError) as error:
        raise FormatError(f"{where}: {error}") from error


def plan_runs(ladder: Ladder, corpus: str) -> list[PlannedRun]:
    """Every run of a ladder, longest first: then the last of them leave no worker idle for long."""
    runs = []
    for budget in ladder.budgets:
        cell = [planned(ladder, corpus, shape, budget) for shape in ladder.shapes]
        runs += [run for run in cell if run is not None]
    if ladder.learning_rates:
        for factor in ladder.learning_rates:
            run = planned(
                ladder, corpus, ladder.bowl_shape, min(ladder.budgets), factor, role="learning-rate"
            )
            runs += [run] if run else []
    middle = sorted(runs, key=lambda run: run.budget)[len(runs) // 2 : len(runs) // 2 + 1]
    for run in middle:
        shape = run.config.hidden, run.config.layers
        for seed in range(1, ladder.seeds):
            again = planned(ladder, corpus, shape, run.budget, seed=seed, role="seed")
            runs += [again] if again else []
    return sorted(runs, key=lambda run: -run.budget)


def planned(
    ladder: Ladder,
    corpus: str,
    shape: tuple[int, int],
    budget: float,
    factor: float = 1.0,
    seed: int = 0,
    role: str = "ladder",
) -> PlannedRun | None:
    """The run that spends `budget` on a shape, or None where its tokens a parameter are out of range."""
    hidden, layers = shape
    rate = factor * learning_rate_of(ladder, hidden)
    common: dict[str, Any] = {
        "hidden": hidden,
        "layers": layers,
        "vocabulary": ladder.vocabulary,
        "context": ladder.context,
        "learning_rate": rate,
        "optimizer": ladder.optimizer,
        "precision": ladder.precision,
        "seed": seed,
        "corpus": corpus,
        "validation_tokens": ladder.validation_tokens,
    }
    if ladder.synthetic:
        common["vocabulary"] = int(ladder.synthetic["vocabulary"])
    count = RunConfig(**common, tokens=1, batch_tokens=1).count()
    tokens = budget / count.flops_per_token
    if role == "ladder" and not ladder.ratios[0] <= tokens / count.active <= ladder.ratios[1]:
        return None
    batch = batch_tokens(tokens, ladder.context)
    steps = max(1, round(tokens / batch))
    return PlannedRun(RunConfig(**common, tokens=steps * batch, batch_tokens=batch), budget, role)


def learning_rate_of(ladder: Ladder, hidden: int) -> float:
    """The learning rate at a width: of AdamW with 1 / width (muP, Yang et al. 2022), of Muon the same.

    Muon's updates are orthogonal matrices, so none of them grows with the width as AdamW's do.  Measured with
    bowls at widths of 48 and 96: 0.018 and 0.023 at best (docs/scaling.md).
    """
    scale = 1.0 if ladder.optimizer == "muon" else 64 / hidden
    return min(ladder.most_learning_rate, ladder.learning_rate * scale)


def batch_tokens(tokens: float, context: int) -> int:
    """0.58 D^0.571 (Step Law, Li et al. 2025), in whole rows, and at least 300 updates.

    Powers of two would be up to 1.4 times off, to either side, and set neighbours in a ladder apart.
    """
    wanted = min(0.58 * tokens**0.571, tokens / _LEAST_STEPS)
    return int(context * max(1, round(wanted / context)))


def write_config(folder: Path, config: RunConfig) -> None:
    """folder/run.json, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / ".run.json"
    temporary.write_text(json.dumps(asdict(config)), encoding="utf-8")
    os.replace(temporary, folder / "run.json")
