"""Chinchilla's approaches 1 and 2: the envelope of training curves, and the minimum of each IsoFLOP curve.

A parabola through a wide, lopsided curve is biased (Czech et al. 2026): by default the minimum is that of
an Akima spline through the logarithms, and a minimum at an edge is no minimum.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy.interpolate import Akima1DInterpolator
from scipy.optimize import minimize_scalar

from octavo.scaling.laws import Values

Method = Literal["akima", "parabola", "local"]


@dataclass(frozen=True, slots=True)
class Minimum:
    """Of one IsoFLOP curve.  at_edge: no run is on its other side.  curvature: in standard errors."""

    compute: float
    parameters: float
    loss: float
    at_edge: bool
    curvature: float


@dataclass(frozen=True, slots=True)
class PowerLaw:
    """y = coefficient * x^exponent."""

    coefficient: float
    exponent: float

    def predict(self, x: ArrayLike) -> Values:
        return np.asarray(self.coefficient * np.asarray(x, float) ** self.exponent)


@dataclass(frozen=True, slots=True)
class FrontierFit:
    """Best sizes by budget and the power law through them.  warnings: the budgets left out, and why."""

    minima: tuple[Minimum, ...]
    parameters: PowerLaw
    warnings: tuple[str, ...] = ()

    @property
    def a(self) -> float:
        return self.parameters.exponent


def fit_power(x: ArrayLike, y: ArrayLike) -> PowerLaw:
    """A straight line through the logarithms.  Raises ValueError for fewer than two points."""
    horizontal, vertical = np.log(np.asarray(x, float)), np.log(np.asarray(y, float))
    if len(horizontal) < 2:
        raise ValueError(f"{len(horizontal)} points give no power law: at least two budgets with a minimum")
    slope, intercept = np.polyfit(horizontal, vertical, 1)
    return PowerLaw(float(np.exp(intercept)), float(slope))


def fit_isoflop(
    compute: ArrayLike, parameters: ArrayLike, loss: ArrayLike, method: Method = "akima"
) -> FrontierFit:
    """One minimum for each distinct value of `compute`, and N* = k C^a through those not at an edge.

    Raises ValueError where fewer than two budgets have a minimum inside.
    """
    c, n, y = (np.asarray(values, float).ravel() for values in (compute, parameters, loss))
    minima, warnings = [], []
    for budget in np.unique(c):
        chosen = c == budget
        if len(np.unique(n[chosen])) < 3:
            warnings.append(f"C = {budget:.3g}: fewer than 3 sizes; left out")
            continue
        found = curve_minimum(float(budget), n[chosen], y[chosen], method)
        minima.append(found)
        if found.at_edge:
            warnings.append(
                f"C = {budget:.3g}: the minimum is at the edge (N = {found.parameters:.3g}); "
                f"add {'smaller' if found.parameters <= np.median(n[chosen]) else 'larger'} models; left out"
            )
        elif found.curvature < 3:
            warnings.append(f"C = {budget:.3g}: the curve is flat within its noise")
        spread = n[chosen].max() / n[chosen].min()
        if method == "parabola" and spread > 16:
            warnings.append(
                f"C = {budget:.3g}: a parabola over sizes that differ {spread:.0f} times is biased"
            )
    inside = [each for each in minima if not each.at_edge]
    law = fit_power([each.compute for each in inside], [each.parameters for each in inside])
    return FrontierFit(tuple(minima), law, tuple(warnings))


def curve_minimum(compute: float, parameters: Values, loss: Values, method: Method = "akima") -> Minimum:
    """The minimum of one curve; seeds of one size count as their mean."""
    sizes = np.unique(parameters)
    x = np.log(sizes)
    y = np.log(np.array([loss[parameters == size].mean() for size in sizes]))
    lowest = int(y.argmin())
    at_edge = lowest in (0, len(x) - 1)
    curvature = _curvature(x, y)
    if method == "akima":
        place, value = _akima_minimum(x, y, lowest)
        at_edge = not x[0] + 1e-6 < place < x[-1] - 1e-6
    else:
        chosen = slice(None) if method == "parabola" else slice(max(0, lowest - 2), lowest + 3)
        square, slope, constant = np.polyfit(x[chosen], np.exp(y[chosen]), 2)  # of the loss itself
        if square <= 0:
            return Minimum(compute, float(sizes[lowest]), float(np.exp(y[lowest])), True, curvature)
        place = -slope / (2 * square)
        value = np.log(constant - slope * slope / (4 * square))
        at_edge = not x[0] < place < x[-1]
    return Minimum(compute, float(np.exp(place)), float(np.exp(value)), at_edge, curvature)


def _akima_minimum(x: Values, y: Values, lowest: int) -> tuple[float, float]:
    if len(x) < 4:
        return float(x[lowest]), float(y[lowest])
    spline = Akima1DInterpolator(x, y)
    low, high = x[max(0, lowest - 1)], x[min(len(x) - 1, lowest + 1)]
    fine = np.linspace(low, high, 401)
    best = float(fine[int(spline(fine).argmin())])
    step = fine[1] - fine[0]
    found = minimize_scalar(
        lambda place: float(spline(place)),
        bounds=(max(low, best - step), min(high, best + step)),
        method="bounded",
        options={"xatol": 1e-10},
    )
    return float(found.x), float(found.fun)


def _curvature(x: Values, y: Values) -> float:
    """The quadratic coefficient of a parabola over its standard error; inf for three points."""
    terms = np.stack((np.ones_like(x), x - x.mean(), (x - x.mean()) ** 2), axis=1)
    values, *_ = np.linalg.lstsq(terms, y, rcond=None)
    left = y - terms @ values
    if len(x) <= 3:
        return float("inf") if values[2] > 0 else 0.0
    variance = float(left @ left) / (len(x) - 3) * float(np.linalg.inv(terms.T @ terms)[2, 2])
    return float(values[2] / np.sqrt(max(variance, 1e-30)))


@dataclass(frozen=True, slots=True)
class TrainingCurve:
    """The loss of one run as it went."""

    parameters: float
    compute: Values
    loss: Values


def fit_envelope(curves: Sequence[TrainingCurve], points: int = 1500, smoothing: float = 10.0) -> FrontierFit:
    """Approach 1: at each of `points` values of C the run that is best there (Hoffmann et al., section 3.1).

    smoothing: standard deviation of the Gaussian over recorded losses.
    """
    low = min(float(curve.compute[0]) for curve in curves)
    high = max(float(curve.compute[-1]) for curve in curves)
    grid = np.geomspace(low, high, points)
    table = np.full((len(curves), points), np.inf)
    for row, curve in enumerate(curves):
        inside = (grid >= curve.compute[0]) & (grid <= curve.compute[-1])
        smooth = _smoothed(np.log(curve.loss), smoothing)
        table[row, inside] = np.interp(np.log(grid[inside]), np.log(curve.compute), smooth)
    best = table.argmin(axis=0)
    sizes = np.array([curve.parameters for curve in curves])
    there = np.isfinite(table.min(axis=0))
    # Where the smallest or the largest model is best, a better one may be missing.
    inner = there & (sizes[best] > sizes.min()) & (sizes[best] < sizes.max())
    if inner.sum() < 2:
        raise ValueError("the envelope touches no model between the smallest and the largest: add sizes")
    minima = [
        Minimum(float(grid[i]), float(sizes[best[i]]), float(np.exp(table[best[i], i])), not inner[i], np.inf)
        for i in np.flatnonzero(there)
    ]
    law = fit_power(grid[inner], sizes[best[inner]])
    return FrontierFit(tuple(minima), law)


def _smoothed(values: Values, deviation: float) -> Values:
    """A Gaussian mean, renormalized at the ends."""
    if deviation <= 0 or len(values) < 3:
        return values
    reach = int(4 * deviation)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / deviation) ** 2)
    sums = np.convolve(values, kernel, mode="full")[reach : reach + len(values)]
    weights = np.convolve(np.ones_like(values), kernel, mode="full")[reach : reach + len(values)]
    return np.asarray(sums / weights)
