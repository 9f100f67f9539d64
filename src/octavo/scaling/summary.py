"""All that a table of runs says, as plain values: every approach, every convention, and the doubts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from octavo.scaling.counting import CONVENTIONS
from octavo.scaling.fitting.forms import fit_kaplan, fit_loss_of_compute
from octavo.scaling.fitting.isoflop import fit_isoflop
from octavo.scaling.fitting.parametric import Estimator, fit_parametric
from octavo.scaling.fitting.pitfalls import RunFacts, correlation_warning, extrapolation_warning, run_warnings
from octavo.scaling.fitting.uncertainty import leave_largest_out, predict_run, profile
from octavo.scaling.records import RunTable


def summarize(
    table: RunTable,
    *,
    estimator: Estimator = "huber",
    delta: float = 1e-3,
    resamples: int = 1000,
    compute: float | None = None,
) -> dict[str, Any]:
    """Raises ValueError where the runs are too few for a law."""
    fit = fit_parametric(table.parameters, table.tokens, table.loss, estimator, delta)
    warnings = list(fit.warnings)
    names = [name for name in CONVENTIONS if name in table.by_convention] or ["as given"]
    conventions = {}
    for name in names:
        each = table.with_convention(name) if name in table.by_convention else table
        law = fit_parametric(each.parameters, each.tokens, each.loss, estimator, delta)
        conventions[name] = {**asdict(law.law), "a": law.a, "objective": law.objective, "residual": law.noise}
    try:
        hold_out = leave_largest_out(
            _budgets(table), table.parameters, table.tokens, table.loss, between_forms=True
        )
    except ValueError:
        hold_out = None
        warnings.append("only one budget, or too few runs: no budget can be left out to judge the law by")
    resampled = fit.bootstrap(resamples, groups=table.cells or None) if resamples else None
    profiles = {name: profile(fit, name) for name in ("E", "alpha", "beta")}
    for name, each_profile in profiles.items():
        if not each_profile.identified:
            warnings.append(f"your {len(table)} runs cannot identify {name}: its profile is flat")
    warnings += [each for each in (correlation_warning(fit), *run_warnings(_facts(table))) if each]
    prediction, other = None, fit_kaplan(table.parameters, table.tokens, table.loss)
    if compute is not None:
        size, tokens = _optimum(table, fit.law.optimum, compute)
        largest = float(table.compute.max())
        found = predict_run(fit, size, tokens, ratio=compute / largest, hold_out=hold_out, other=other)
        prediction = {**asdict(found), "compute": compute}
        warnings += [each for each in [extrapolation_warning(compute, largest)] if each]
    approaches, more = _approaches(table, fit.a)
    return {
        "runs": len(table),
        "compute": [float(table.compute.min()), float(table.compute.max())],
        "conventions": conventions,
        "intervals": {n: resampled.interval(n) for n in ("E", "alpha", "beta", "a")} if resampled else {},
        "profiles": {n: {"interval": p.interval, "identified": p.identified} for n, p in profiles.items()},
        "approaches": approaches,
        "kaplan": asdict(other),
        "left_out_error": hold_out.root_mean_square if hold_out else None,
        "prediction": prediction,
        "warnings": list(dict.fromkeys(warnings + more)),
    }


def _budgets(table: RunTable) -> Any:
    return table.budgets if table.budgets is not None else table.compute


def _optimum(table: RunTable, best: Any, compute: float) -> tuple[float, float]:
    """With the FLOPs of a parameter and token that these runs really had."""
    each = float(np.median(table.compute / (table.parameters * table.tokens)))
    size, tokens = best(compute, each)
    return float(size), float(tokens)


def _approaches(table: RunTable, a: float) -> tuple[dict[str, float], list[str]]:
    found, warnings = {"parametric": a}, []
    budgets = _budgets(table)
    if len(np.unique(budgets)) <= len(table) / 3:
        for method in ("akima", "parabola"):
            try:
                fit = fit_isoflop(budgets, table.parameters, table.loss, method)
            except ValueError as error:
                warnings.append(str(error))
                continue
            found[f"IsoFLOP {method}"] = fit.a
            warnings += fit.warnings
    best: Mapping[float, float] = {
        float(c): float(table.loss[budgets == c].min()) for c in np.unique(budgets)
    }
    if 2 <= len(best) <= len(table) / 3:
        law = fit_loss_of_compute(list(best), list(best.values()))
        warnings += ["the best loss does not fall with compute"] if law.exponent >= 0 else []
    return found, warnings


def _facts(table: RunTable) -> list[RunFacts]:
    rates = table.learning_rates
    return [
        RunFacts(
            float(table.parameters[i]),
            float(table.tokens[i]),
            learning_rate=None if rates is None else float(rates[i]),
            unique_tokens=None if table.unique is None else float(table.unique[i]),
        )
        for i in range(len(table))
    ]
