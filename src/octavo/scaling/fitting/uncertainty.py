"""How far a fit may be trusted: profiles, the largest budget left out, intervals of predictions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import chi2, norm

from octavo.scaling.fitting.forms import KaplanFit, fit_kaplan
from octavo.scaling.fitting.parametric import ParametricFit, Problem, fit_parametric
from octavo.scaling.laws import Values

_NAMES = ("E", "A", "B", "alpha", "beta")


@dataclass(frozen=True, eq=False)
class Profile:
    """name: E, alpha or beta.  rise: twice the log-likelihood lost by holding it there; identified: it rises
    above the 90 % point of chi-squared on both sides within the range that was searched."""

    name: str
    values: Values
    rise: Values
    interval: tuple[float, float]
    identified: bool


def profile(fit: ParametricFit, name: str, points: int = 41, level: float = 0.9) -> Profile:
    """Hold one constant at each of a range of values and fit the others, by least squares as the fit did.

    The range reaches far: E from near 0 to the least loss, exponents from a fifth to three times the best.
    """
    index = _NAMES.index(name)
    # Dense around the best value, which is a point itself: the profile is narrow where runs are many.
    center = float(getattr(fit.law, name))
    near = center * (1 + np.concatenate((-np.geomspace(0.3, 1e-3, 10), [0.0], np.geomspace(1e-3, 0.3, 10))))
    if name == "E":
        far = np.linspace(0.02, 0.995, points) * fit.problem.loss.min()
    else:
        far = np.geomspace(center / 5, center * 3, points)
    values = np.unique(np.concatenate((near, far)))
    if name == "E":
        values = values[values < max(0.996 * fit.problem.loss.min(), 1.0001 * center)]
    held = np.log(values) if name == "E" else values
    points = len(values)
    sums = np.empty(points)
    middle = int(np.abs(values - center).argmin())
    for order in (range(middle, points), range(middle - 1, -1, -1)):
        theta = fit.theta.copy()
        for place in order:
            theta[index] = held[place]
            theta, sums[place] = _least_squares(fit.problem, theta, index)
    free = fit.problem.loss.size - 5
    r, _ = fit.problem.residuals(fit.theta)
    least = min(float(sums.min()), float(r @ r))
    rise = len(r) * np.log(sums / max(least, 1e-30)) * max(free, 1) / len(r)
    limit = float(chi2.ppf(level, 1))
    low, high = (
        _crossing(values[: middle + 1][::-1], rise[: middle + 1][::-1], limit),
        _crossing(values[middle:], rise[middle:], limit),
    )
    identified = low is not None and high is not None and free > 0
    interval = (float(values[0]) if low is None else low, float(values[-1]) if high is None else high)
    return Profile(name, values, rise, interval, identified)


def _crossing(values: Values, rise: Values, limit: float) -> float | None:
    """Where the rise passes the limit, walking away from the best value; None if it never does."""
    above = np.flatnonzero(rise > limit)
    if not len(above):
        return None
    last = int(above[0])
    if last == 0:
        return float(values[0])
    part = (limit - rise[last - 1]) / (rise[last] - rise[last - 1])
    return float(values[last - 1] + part * (values[last] - values[last - 1]))


def _least_squares(problem: Problem, theta: Values, held: int, steps: int = 60) -> tuple[Values, float]:
    """Levenberg and Marquardt's steps over all constants but one."""
    free = [index for index in range(5) if index != held]
    damping = 1e-3
    r, slopes = problem.residuals(theta)
    value = float(r @ r)
    for _ in range(steps):
        part = slopes[:, free]
        scale = np.sqrt((part * part).sum(axis=0)) + 1e-12
        normal = (part / scale).T @ (part / scale)
        move = np.linalg.solve(normal + damping * np.eye(4), -(part / scale).T @ r) / scale
        trial = theta.copy()
        trial[free] += np.clip(move, -3, 3)
        with np.errstate(over="ignore", invalid="ignore"):
            trial_r, trial_slopes = problem.residuals(trial)
            trial_value = float(trial_r @ trial_r)
        if np.isfinite(trial_value) and trial_value < value:
            done = value - trial_value < 1e-10 * value
            theta, r, slopes, value, damping = trial, trial_r, trial_slopes, trial_value, damping / 5
            if done:
                break
        else:
            damping *= 8
            if damping > 1e10:
                break
    return theta, value


@dataclass(frozen=True, slots=True)
class HoldOut:
    """Runs of the largest budget, predicted from the others.  errors: predicted / seen - 1."""

    compute: float
    errors: tuple[float, ...]

    @property
    def root_mean_square(self) -> float:
        return float(np.sqrt(np.mean(np.square(self.errors))))


def leave_largest_out(
    compute: ArrayLike,
    parameters: ArrayLike,
    tokens: ArrayLike,
    loss: ArrayLike,
    *,
    between_forms: bool = False,
    **options: object,
) -> HoldOut:
    """Fit without the largest budget and predict it.  Budgets within 10 % count as one.

    between_forms: predict as `predict_run` does with a second form.  Raises ValueError where the others are
    too few to fit.
    """
    c, n, d, y = (np.asarray(values, float) for values in (compute, parameters, tokens, loss))
    largest = c > 0.9 * c.max()
    fit = fit_parametric(n[~largest], d[~largest], y[~largest], **options)  # type: ignore[arg-type]
    found = fit.predict(n[largest], d[largest])
    if between_forms:
        found = np.sqrt(
            found * fit_kaplan(n[~largest], d[~largest], y[~largest]).predict(n[largest], d[largest])
        )
    errors = found / y[largest] - 1
    return HoldOut(float(c.max()), tuple(float(error) for error in errors))


@dataclass(frozen=True, slots=True)
class Prediction:
    """The loss of a run that has not been.

    low, high: its interval at `level`, widened where the largest budget left out was missed by more.  ratio:
    its compute over the largest that was fitted.
    """

    parameters: float
    tokens: float
    loss: float
    low: float
    high: float
    level: float
    ratio: float
    widened: bool

    def holds(self, loss: float) -> bool:
        return self.low <= loss <= self.high


def predict_run(
    fit: ParametricFit,
    parameters: float,
    tokens: float,
    *,
    level: float = 0.9,
    ratio: float = 1.0,
    noise: float | None = None,
    hold_out: HoldOut | None = None,
    other: KaplanFit | None = None,
) -> Prediction:
    """The loss to expect of a run.

    noise: standard deviation of log loss over seeds.  hold_out: see `leave_largest_out`.  other: a form
    without a floor, fitted to the same runs.  Small runs are far from any floor and hardly tell the two
    forms apart; beyond them one falls too slowly and the other too fast, so the prediction is their geometric
    mean, and half of what they differ by is part of its doubt.
    """
    center = float(fit.predict(parameters, tokens))
    low, high = (float(value) for value in fit.interval(parameters, tokens, level, noise=noise))
    if other is not None:
        half = 0.5 * float(np.log(other.predict(parameters, tokens) / center))
        below, above = np.hypot(np.log(center / low), half), np.hypot(np.log(high / center), half)
        center *= float(np.exp(half))
        low, high = center * float(np.exp(-below)), center * float(np.exp(above))
    found = Prediction(parameters, tokens, center, low, high, level, ratio, False)
    if hold_out is not None:
        # It is one error of an extrapolation by one budget: about its standard deviation.
        error = float(norm.ppf(0.5 + level / 2)) * hold_out.root_mean_square
        if center * (1 + error) > high or center * (1 - error) < low:
            found = replace(
                found, low=min(low, center * (1 - error)), high=max(high, center * (1 + error)), widened=True
            )
    return found


def seed_noise(groups: Sequence[Sequence[float]]) -> float | None:
    """Standard deviation of log loss over seeds, pooled over cells; None where no cell has two."""
    squares, free = 0.0, 0
    for losses in groups:
        if len(losses) > 1:
            logs = np.log(np.asarray(losses))
            squares += float(((logs - logs.mean()) ** 2).sum())
            free += len(logs) - 1
    return float(np.sqrt(squares / free)) if free else None
