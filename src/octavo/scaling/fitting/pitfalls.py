"""What goes wrong when scaling laws are fitted: each a warning that the data can raise by themselves.

The list is that of the papers that found others' errors: Besiroglu et al. 2024, Porian et al. 2024, Pearce
and Song 2024, Haegele et al. 2024, Czech et al. 2026.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

from octavo.scaling.fitting.parametric import ParametricFit, Problem
from octavo.scaling.laws import Values


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What is known of a run beside N, D and loss; None where nothing is."""

    parameters: float
    tokens: float
    schedule_tokens: float | None = None
    warmup_tokens: float | None = None
    learning_rate: float | None = None
    unique_tokens: float | None = None
    trunk: str | None = None
    loss_is_held_out: bool | None = None
    flops_count: str | None = None


def run_warnings(runs: Sequence[RunFacts], *, has_data_term: bool = False) -> list[str]:
    """Of how the runs were made."""
    found = []
    if any(r.schedule_tokens is not None and abs(r.schedule_tokens / r.tokens - 1) > 0.05 for r in runs):
        found.append(
            "a schedule is not as long as its run: more than 25 % too long visibly hurts (Hoffmann et "
            "al., figure A1)"
        )
    if any(r.warmup_tokens is not None and r.warmup_tokens > 1.05 * max(0.05 * r.tokens, 0) for r in runs):
        found.append(
            "a warm-up takes more than 5 % of a run: it makes small models look better than they are"
        )
    if any(r.warmup_tokens is not None and r.warmup_tokens > r.parameters for r in runs):
        found.append("a warm-up is longer than N tokens (Porian et al., section 3.3)")
    rates = {r.learning_rate for r in runs if r.learning_rate is not None}
    sizes = {r.parameters for r in runs}
    if len(rates) == 1 and len(sizes) > 2 and max(sizes) > 4 * min(sizes):
        found.append("one learning rate for all sizes: its optimum falls with the width")
    if (
        any(r.unique_tokens is not None and r.tokens > 4 * r.unique_tokens for r in runs)
        and not has_data_term
    ):
        found.append("a run repeats its data more than 4 times: fit the law with a term for repetition")
    trunks = [r.trunk for r in runs if r.trunk is not None]
    if len(set(trunks)) < len(trunks):
        found.append("several points of one trunk: resample by trunk, they are not independent")
    if any(r.loss_is_held_out is False for r in runs):
        found.append("the loss is that of training steps: take the mean over held-out text")
    if any(r.flops_count == "nonembedding" for r in runs):
        found.append(
            "the last layer is left out of C: this alone makes N* grow faster (Porian et al., section 3.2)"
        )
    return found


def bowl_warning(losses: Mapping[float, float]) -> str | None:
    """losses: learning rate -> loss of runs that differ in nothing else."""
    if len(losses) < 3:
        return None
    rates = sorted(losses)
    best = min(rates, key=lambda rate: losses[rate])
    if best in (rates[0], rates[-1]):
        side = "lower" if best == rates[0] else "higher"
        return f"the best learning rate, {best:.3g}, is at the edge of the sweep: try {side} ones"
    return None


def extrapolation_warning(compute: float, largest: float) -> str | None:
    """Beyond ten times the largest budget that was fitted."""
    if compute > 10 * largest:
        return f"C = {compute:.3g} is {compute / largest:.0f} times the largest budget that was fitted"
    return None


def correlation_warning(fit: ParametricFit) -> str | None:
    """E, A and B hang together; a fit is judged by its predictions and by a."""
    _, slopes = fit.problem.residuals(fit.theta)
    covariance = np.linalg.pinv(slopes.T @ slopes)
    deviations = np.sqrt(np.maximum(np.diag(covariance), 1e-30))
    correlation = np.abs(covariance / np.outer(deviations, deviations) - np.eye(5))
    worst = float(correlation.max())
    if worst > 0.95:
        return (
            f"constants are correlated up to {worst:.3f}: judge this fit by predictions and a, not by A or B"
        )
    return None


@dataclass(frozen=True, slots=True)
class Replay:
    """What an optimizer with default tolerance makes of a start.  gap: its objective over the best one's."""

    theta: Values
    iterations: int
    gap: float
    warning: str | None


def replay_published_optimizer(fit: ParametricFit, start: Values, *, mean: bool = True) -> Replay:
    """L-BFGS-B with scipy's default tolerance on the mean (or sum) of Huber losses, as papers' code has it.

    Its ftol compares with an objective of 1e-6, and it stops after a step or two; the warning says so.
    """
    problem: Problem = fit.problem
    scale = 1 / len(problem.loss) if mean else 1.0

    def objective(theta: Values) -> tuple[float, Values]:
        value, slope = problem.objective(theta, fit.delta)
        return value * scale, slope * scale

    found = minimize(objective, start, jac=True, method="L-BFGS-B")
    best = problem.objective(fit.theta, fit.delta)[0]
    gap = float(problem.objective(found.x, fit.delta)[0] / best)
    warning = None
    if gap > 1.001:
        kind = "mean" if mean else "sum"
        warning = (
            f"L-BFGS-B on the {kind} stopped after {found.nit} iterations at {gap:.2f} times the least "
            f"objective: its"
            " default ftol is met at once; divide residuals by delta and use gtol"
        )
    return Replay(np.asarray(found.x), int(found.nit), gap, warning)
