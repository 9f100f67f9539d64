"""Tables of runs: from the store of a sweep, CSV, JSON or JSONL to columns of numbers.

Foreign tables call the same things by other names; the ones that the published data use are known.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from octavo.errors import FormatError
from octavo.scaling.laws import Values
from octavo.scaling.sweeping.store import DONE, Store

_NAMES: Mapping[str, tuple[str, ...]] = {
    "parameters": (
        "parameters",
        "n",
        "params",
        "model size",
        "n_params",
        "params_active_precise",
        "n_active",
    ),
    "tokens": ("tokens", "d", "t"),
    "compute": ("compute", "c", "flops", "training flop", "budget", "flops_exact"),
    "loss": ("loss", "val_loss", "final_loss"),
    "unique": ("unique_tokens", "unique"),
}
_MOST_ROWS = 1_000_000


@dataclass(frozen=True, eq=False)
class RunTable:
    """Columns of equal length.  by_convention: N in each counting rule, where they are known.

    budgets: what a run was meant to spend (runs of one IsoFLOP curve agree in it).  seeds: of each run.
    """

    parameters: Values
    tokens: Values
    compute: Values
    loss: Values
    unique: Values | None = None
    budgets: Values | None = None
    by_convention: Mapping[str, Values] = field(default_factory=dict)
    learning_rates: Values | None = None
    cells: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.loss)

    def with_convention(self, convention: str) -> RunTable:
        """The same runs with N counted otherwise."""
        values = dict(self.__dict__)
        values["parameters"] = self.by_convention[convention]
        return RunTable(**values)


def read_runs(path: Path, *, roles: tuple[str, ...] = ("ladder", "seed")) -> RunTable:
    """Raises FormatError that names file and column for what is missing or no number."""
    if path.suffix in (".db", ".sqlite"):
        with Store(path) as store:
            return runs_of_store(store, roles=roles)
    rows = _rows(path)
    if not rows:
        raise FormatError(f"{path}: no runs in it")
    columns = {key.lower().strip(): key for key in rows[0]}
    found: dict[str, Values] = {}
    for name, candidates in _NAMES.items():
        key = next((columns[each] for each in candidates if each in columns), None)
        if key is not None:
            found[name] = _numbers(rows, key, path)
    if "tokens" not in found and {"compute", "parameters"} <= set(found):
        found["tokens"] = found["compute"] / 6.0 / found["parameters"]
    for name in ("parameters", "tokens", "loss"):
        if name not in found:
            raise FormatError(f"{path}: no column for {name}; it may be called {', '.join(_NAMES[name])}")
    compute = found.get("compute", 6.0 * found["parameters"] * found["tokens"])
    return RunTable(found["parameters"], found["tokens"], compute, found["loss"], found.get("unique"))


def runs_of_store(store: Store, *, roles: tuple[str, ...] = ("ladder", "seed")) -> RunTable:
    """Runs that are done; N is that of the products (active)."""
    rows = store.runs(status=DONE, roles=roles)
    if not rows:
        raise FormatError(f"{store.path}: no run of the ladder is done yet")

    def column(name: str) -> Values:
        return np.array([float(row[name]) for row in rows])

    configs = [store.run_config(row) for row in rows]
    muon = all(config.optimizer == "muon" for config in configs)  # its best rate is that of any width
    conventions = {
        "active": column("n_active"),
        "total": column("n_total"),
        "nonembedding": column("n_nonemb"),
    }
    return RunTable(
        conventions["active"],
        column("tokens"),
        column("flops_exact"),
        column("loss"),
        column("unique_tokens"),
        column("budget"),
        conventions,
        None if muon else np.array([config.learning_rate for config in configs]),
        tuple(f"{c.hidden}x{c.layers} {row['budget']:.2g}" for c, row in zip(configs, rows, strict=True)),
    )


def _rows(path: Path) -> list[Mapping[str, object]]:
    readers: dict[str, Callable[[str], list[Mapping[str, object]]]] = {
        ".csv": lambda text: list(csv.DictReader(text.splitlines())),
        ".jsonl": lambda text: [json.loads(line) for line in text.splitlines() if line.strip()],
        ".json": json.loads,
    }
    if path.suffix not in readers:
        raise FormatError(f"{path}: give a store (.db), CSV, JSON or JSONL")
    try:
        rows = readers[path.suffix](path.read_text(encoding="utf-8"))
    except (OSError, ValueError, csv.Error) as error:
        raise FormatError(f"{path}: cannot be read: {error}") from error
    if not isinstance(rows, list) or len(rows) > _MOST_ROWS or not all(isinstance(row, dict) for row in rows):
        raise FormatError(f"{path}: must be a list of at most {_MOST_ROWS:,} objects")
    return rows


def _numbers(rows: list[Mapping[str, object]], key: str, path: Path) -> Values:
    try:
        return np.array([float(str(row[key])) for row in rows])
    except (KeyError, ValueError) as error:
        raise FormatError(f"{path}: column {key}: {error}") from error
