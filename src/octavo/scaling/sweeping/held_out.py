"""A prediction that is written down before the run: what a ladder says of a budget it has not seen.

The size predicted to be best, half and twice of it are run at the held-out budget; the prediction, with the
runs it rests on and its hash, is in the store before any of them is (the store refuses one that comes
later).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from octavo.errors import FormatError
from octavo.scaling.fitting.forms import KaplanFit, fit_kaplan
from octavo.scaling.fitting.isoflop import fit_isoflop
from octavo.scaling.fitting.parametric import ParametricFit, fit_parametric
from octavo.scaling.fitting.uncertainty import HoldOut, Prediction, leave_largest_out, predict_run, seed_noise
from octavo.scaling.records import RunTable, runs_of_store
from octavo.scaling.sweeping.ladder import PlannedRun, ladder_of, planned
from octavo.scaling.sweeping.store import DONE, Store

# Widths that a held-out run may have, more than a ladder's: heads of an even width.
_WIDTHS = (16, 32, 48, 64, 80, 96, 128, 144, 160, 192, 224, 256, 320, 384)
_MOST_LAYERS = 8
_LEVEL = 0.9


@dataclass(frozen=True, eq=False)
class LadderFit:
    """All that is concluded from a ladder; `noise` of log loss over seeds."""

    table: RunTable
    fit: ParametricFit
    other: KaplanFit
    hold_out: HoldOut | None
    noise: float | None


def fit_ladder(table: RunTable) -> LadderFit:
    """Raises ValueError for fewer than 6 runs: five constants and nothing left to judge them by."""
    if len(table) < 6:
        raise ValueError(f"{len(table)} runs cannot identify the law: at least 6, of two budgets")
    fit = fit_parametric(table.parameters, table.tokens, table.loss)
    try:
        hold_out = leave_largest_out(
            table.budgets if table.budgets is not None else table.compute,
            table.parameters,
            table.tokens,
            table.loss,
            between_forms=True,
        )
    except ValueError:
        hold_out = None
    cells: dict[str, list[float]] = defaultdict(list)
    for cell, loss in zip(table.cells, table.loss, strict=False):
        cells[cell].append(float(loss))
    other = fit_kaplan(table.parameters, table.tokens, table.loss)
    return LadderFit(table, fit, other, hold_out, seed_noise(list(cells.values())))


def predict_shape(ladder: LadderFit, run: PlannedRun) -> Prediction:
    """The loss of a run that is planned, at 90 %."""
    return predict_run(
        ladder.fit,
        run.config.count().active,
        run.config.tokens,
        level=_LEVEL,
        ratio=run.budget / float(ladder.table.compute.max()),
        noise=ladder.noise,
        hold_out=ladder.hold_out,
        other=ladder.other,
    )


def held_out_shapes(shapes: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """(hidden size, layers) no deeper and no flatter than those of a ladder, whose law knows sizes alone."""
    width_of_layer = [width / layers for width, layers in shapes]
    return [
        (width, layers)
        for width in _WIDTHS
        for layers in range(1, _MOST_LAYERS + 1)
        if min(width_of_layer) <= width / layers <= max(width_of_layer)
    ]


def register(store: Store, compute: float) -> tuple[str, list[PlannedRun]]:
    """Predict budget `compute`, write it down, and add the three runs; (hash, runs, best size first).

    Raises FormatError while runs of the ladder are pending, or if a run of the budget is done.
    """
    pending = [row for row in store.runs(roles=("ladder", "seed")) if row["status"] != DONE]
    if pending:
        raise FormatError(
            f"{store.path}: {len(pending)} runs of the ladder are not done: first octavo sweep resume"
        )
    ladder_values, corpus = store.sweep()
    ladder = ladder_of(ladder_values, str(store.path))
    found = fit_ladder(runs_of_store(store))
    candidates = [
        planned(ladder, corpus["fingerprint"], shape, compute, role="held-out")
        for shape in held_out_shapes(ladder.shapes)
    ]
    runs = [run for run in candidates if run is not None]
    losses = [predict_shape(found, run).loss for run in runs]
    best = runs[int(np.argmin(losses))]
    size = best.config.count().active
    chosen = [best]
    for factor in (0.5, 2.0):
        others = [run for run in runs if run not in chosen]
        chosen.append(min(others, key=lambda run: abs(np.log(run.config.count().active / (factor * size)))))
    content = {
        "law": asdict(found.fit.law),
        "kaplan": asdict(found.other),
        "a": found.fit.a,
        "residual": found.fit.noise,
        "seed_noise": found.noise,
        "left_out_error": found.hold_out.root_mean_square if found.hold_out else None,
        "isoflop_a": _isoflop_exponent(found.table),
        "level": _LEVEL,
        "runs": [{"run": run.config.id, **asdict(predict_shape(found, run))} for run in chosen],
    }
    name = store.register_prediction(compute, content)
    store.add(ladder.name, chosen)
    return name, chosen


def _isoflop_exponent(table: RunTable) -> float | None:
    try:
        return fit_isoflop(
            table.budgets if table.budgets is not None else table.compute, table.parameters, table.loss
        ).a
    except ValueError:
        return None


def judge(store: Store) -> list[dict[str, Any]]:
    """Each registered run beside what it gave: predicted, low, high, seen, error, inside."""
    done = {row["id"]: row for row in store.runs(status=DONE)}
    verdicts = []
    for prediction in store.predictions():
        best = prediction["runs"][0]["run"]
        for entry in prediction["runs"]:
            row = done.get(entry["run"])
            if row is None:
                continue
            verdicts.append(
                {
                    "prediction": prediction["id"],
                    "registered_at": prediction["made_at"],
                    "finished_at": row["finished_at"],
                    "compute": prediction["compute"],
                    "ratio": entry["ratio"],
                    "parameters": row["n_active"],
                    "tokens": row["tokens"],
                    "best": entry["run"] == best,
                    "predicted": entry["loss"],
                    "low": entry["low"],
                    "high": entry["high"],
                    "seen": row["loss"],
                    "error": entry["loss"] / row["loss"] - 1,
                    "inside": entry["low"] <= row["loss"] <= entry["high"],
                }
            )
    return verdicts
