"""Chinchilla's approach 3: E + A / N^alpha + B / D^beta fitted to runs, so that the optimum is really found.

The published recipe (432 starts of L-BFGS on the mean Huber loss) stops where the default tolerance is met,
far from the optimum.  Here alpha and beta are searched on a grid in which E, A and B are a linear problem
(variable projection; Golub and Pereyra 1973), and the best few are finished by BFGS on the sum of Huber
losses over delta with analytic gradients, in coordinates in which the problem is round.

Legend: n runs, theta = (e, a, b, alpha, beta) with E = exp(e) and so on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize, nnls
from scipy.stats import t as student

from octavo.scaling.laws import ParametricLaw, Values

Estimator = Literal["huber", "lad"]
Space = Literal["log", "raw"]
# Least absolute deviations as the limit of Huber losses, each started from the one before.
_CONTINUATION = (1e-3, 1e-4, 1e-5, 1e-6, 1e-7)
_LEAST_E = 1e-9


@dataclass(frozen=True, slots=True)
class Problem:
    """n runs: logarithms of N and D, their losses, and how a residual is taken and weighed."""

    log_n: Values
    log_d: Values
    loss: Values
    space: Space = "log"
    tied: bool = False
    weights: Values | None = None

    def residuals(self, theta: Values) -> tuple[Values, Values]:
        """(r[n], dr/dtheta[n, 5]); the residual is prediction minus loss, or the same of logarithms."""
        e, a, b, alpha, beta = theta
        terms = np.exp(
            np.stack((np.full_like(self.log_n, e), a - alpha * self.log_n, b - beta * self.log_d), axis=1)
        )
        total = terms.sum(axis=1)
        slopes = np.concatenate(
            (terms, -terms[:, 1:2] * self.log_n[:, None], -terms[:, 2:] * self.log_d[:, None]), 1
        )
        if self.space == "raw":
            return total - self.loss, slopes
        return np.log(total / self.loss), slopes / total[:, None]

    def objective(self, theta: Values, delta: float) -> tuple[float, Values]:
        """Sum of Huber losses and its gradient."""
        r, slopes = self.residuals(theta)
        inside = np.abs(r) <= delta
        values = np.where(inside, 0.5 * r * r, delta * (np.abs(r) - 0.5 * delta))
        pull = np.clip(r, -delta, delta)
        if self.weights is not None:
            values, pull = values * self.weights, pull * self.weights
        return float(values.sum()), pull @ slopes


@dataclass(frozen=True, eq=False)
class ParametricFit:
    """A law, and how well the runs determine it.

    objective: sum of Huber losses (of absolute values for "lad").  warnings: what makes it doubtful.
    """

    law: ParametricLaw
    objective: float
    estimator: Estimator
    delta: float
    problem: Problem
    theta: Values
    warnings: tuple[str, ...] = field(default=())

    E = property(lambda self: self.law.E)
    A = property(lambda self: self.law.A)
    B = property(lambda self: self.law.B)
    alpha = property(lambda self: self.law.alpha)
    beta = property(lambda self: self.law.beta)
    a = property(lambda self: self.law.a)

    def predict(self, parameters: ArrayLike, tokens: ArrayLike) -> Values:
        return self.law.predict(parameters, tokens)

    def optimum(self, compute: float) -> tuple[float, float]:
        """(N*, D*) for C = 6 N D."""
        return self.law.optimum(compute)

    @property
    def noise(self) -> float:
        """Standard deviation of a residual, with its degrees of freedom."""
        r, _ = self.problem.residuals(self.theta)
        return float(np.sqrt((r * r).sum() / max(len(r) - self._free, 1)))

    @property
    def _free(self) -> int:
        return 4 if self.problem.tied else 5

    def interval(
        self, parameters: ArrayLike, tokens: ArrayLike, level: float = 0.9, *, noise: float | None = None
    ) -> tuple[Values, Values]:
        """(low, high) that holds the loss of a new run with probability `level`.

        To first order in the parameters, with Student's t for the noise that was estimated from few runs
        (Seber and Wild 2003, section 5.1).  noise: of a run, where it is known to be larger.
        """
        center = self.predict(parameters, tokens)
        sigma = max(self.noise, noise or 0.0)
        _, slopes = self.problem.residuals(self.theta)
        new = Problem(
            np.atleast_1d(np.log(np.asarray(parameters, float))),
            np.atleast_1d(np.log(np.asarray(tokens, float))),
            np.atleast_1d(center),
            self.problem.space,
        )
        _, at = new.residuals(self.theta)
        if self.problem.tied:
            slopes, at = _tie(slopes), _tie(at)
        spread = np.einsum("ij,jk,ik->i", at, np.linalg.pinv(slopes.T @ slopes), at)
        quantile = float(student.ppf(0.5 + level / 2, max(len(slopes) - self._free, 1)))
        width = (quantile * sigma * np.sqrt(1 + spread)).reshape(np.shape(center))
        if self.problem.space == "raw":
            return center - width, center + width
        return center * np.exp(-width), center * np.exp(width)

    def bootstrap(
        self, n: int, *, groups: Sequence[object] | None = None, seed: int = 0, share: float = 1.0
    ) -> Bootstrap:
        """Fits of n resamples.  groups: runs that share a trunk stay together.  share: a resample's size."""
        generator = np.random.default_rng(seed)
        members = _groups(len(self.problem.loss), groups)
        draw = max(2, round(share * len(members)))
        thetas = np.empty((n, 5))
        round_coordinates = _Round(self.problem, self.theta)
        for index in range(n):
            weights = np.zeros(len(self.problem.loss))
            for chosen in generator.integers(len(members), size=draw):
                weights[members[chosen]] += 1
            kept = weights > 0
            p = self.problem
            part = Problem(p.log_n[kept], p.log_d[kept], p.loss[kept], p.space, p.tied, weights[kept])
            thetas[index] = round_coordinates.minimize(part, self.theta, self.delta, steps=120)
        return Bootstrap(thetas)


@dataclass(frozen=True, eq=False)
class Bootstrap:
    """thetas: [resamples, 5]."""

    thetas: Values

    def laws(self) -> list[ParametricLaw]:
        return [law_of(theta) for theta in self.thetas]

    @property
    def a(self) -> Values:
        return np.asarray(self.thetas[:, 4] / (self.thetas[:, 3] + self.thetas[:, 4]))

    def values(self, name: str) -> Values:
        """Of E, A, B, alpha, beta or a."""
        if name == "a":
            return self.a
        column = self.thetas[:, ("E", "A", "B", "alpha", "beta").index(name)]
        return np.asarray(np.exp(column) if name in "EAB" else column)

    def interval(self, name: str, level: float = 0.8) -> tuple[float, float]:
        low, high = np.quantile(self.values(name), [0.5 - level / 2, 0.5 + level / 2])
        return float(low), float(high)

    def predictions(self, parameters: float, tokens: float) -> Values:
        """The loss by each resample's law."""
        e, a, b, alpha, beta = self.thetas.T
        return np.asarray(
            np.exp(e) + np.exp(a - alpha * np.log(parameters)) + np.exp(b - beta * np.log(tokens))
        )


def fit_parametric(
    parameters: ArrayLike,
    tokens: ArrayLike,
    loss: ArrayLike,
    estimator: Estimator = "huber",
    delta: float = 1e-3,
    *,
    space: Space = "log",
    tied: bool = False,
    starts: int = 8,
) -> ParametricFit:
    """Fit E, A, B, alpha and beta to runs.

    space: residuals of the logarithm of the loss, or of the loss.  tied: alpha = beta.  starts: how many of
    the grid's best are finished.  Raises ValueError for fewer than 5 runs or values that are not positive
    and finite.
    """
    n, d, y = (np.asarray(values, float).ravel() for values in (parameters, tokens, loss))
    for name, values in (("parameters", n), ("tokens", d), ("loss", y)):
        if len(values) != len(y) or not (np.isfinite(values) & (values > 0)).all():
            raise ValueError(f"{name}: {len(values)} values; all must be finite, above 0, one for each run")
    if len(y) < (4 if tied else 5):
        raise ValueError(f"{len(y)} runs cannot determine {4 if tied else 5} constants")
    if estimator not in ("huber", "lad"):
        raise ValueError(f"estimator: {estimator!r}; huber or lad")
    problem = Problem(np.log(n), np.log(d), y, space, tied)
    best: tuple[float, Values] | None = None
    for start in _grid(problem, starts):
        theta = _Round(problem, start).minimize(problem, start, delta)
        theta = _Round(problem, theta).minimize(problem, theta, delta)
        value = problem.objective(theta, delta)[0]
        if best is None or value < best[0]:
            best = value, theta
    assert best is not None
    value, theta = best
    if estimator == "lad":
        value, theta = _least_absolute(problem, theta)
    return ParametricFit(law_of(theta), value, estimator, delta, problem, theta, _doubts(problem, theta))


def law_of(theta: NDArray[np.float64]) -> ParametricLaw:
    e, a, b, alpha, beta = (float(value) for value in theta)
    return ParametricLaw(float(np.exp(e)), float(np.exp(a)), float(np.exp(b)), alpha, beta)


def _grid(problem: Problem, starts: int) -> list[Values]:
    """The best (alpha, beta) of a grid, with E, A, B >= 0 from weighted non-negative least squares."""
    weight = 1.0 / problem.loss if problem.space == "log" else np.ones_like(problem.loss)
    middle_n, middle_d = problem.log_n.mean(), problem.log_d.mean()
    exponents = np.geomspace(0.08, 1.6, 18)
    found = []
    for alpha in exponents:
        for beta in [alpha] if problem.tied else exponents:
            terms = np.stack(
                (
                    np.ones_like(weight),
                    np.exp(-alpha * (problem.log_n - middle_n)),
                    np.exp(-beta * (problem.log_d - middle_d)),
                ),
                axis=1,
            )
            values, _ = nnls(terms * weight[:, None], problem.loss * weight)
            r = (terms @ values - problem.loss) * weight
            e, a, b = np.log(np.maximum(values, _LEAST_E))
            found.append(
                (float(np.abs(r).sum()), (e, a + alpha * middle_n, b + beta * middle_d, alpha, beta))
            )
    found.sort(key=lambda each: each[0])
    return [np.array(theta) for _, theta in found[:starts]]


class _Round:
    """Coordinates in which the sum of squares is round near theta: there BFGS needs tens of steps."""

    def __init__(self, problem: Problem, theta: Values) -> None:
        _, slopes = problem.residuals(theta)
        self.tied = problem.tied
        if problem.tied:
            slopes = _tie(slopes)
        _, sizes, axes = np.linalg.svd(slopes, full_matrices=False)
        sizes = np.maximum(sizes, 1e-7 * sizes[0])
        scale = axes.T / sizes
        self.axes = np.concatenate((scale, scale[3:4]), axis=0) if problem.tied else scale

    def minimize(self, problem: Problem, start: Values, delta: float, steps: int = 500) -> Values:
        # The tolerance is on a gradient: the objective is brought to about a thousand, whatever delta is.
        unit = max(problem.objective(start, delta)[0], 1e-12 * min(delta, 1.0) ** 2) / 1e3

        def scaled(u: Values) -> tuple[float, Values]:
            with np.errstate(over="ignore", invalid="ignore"):
                value, slope = problem.objective(start + self.axes @ u, delta)
            if not np.isfinite(value):
                return 1e30, np.zeros_like(u)
            return value / unit, (slope @ self.axes) / unit

        found = minimize(
            scaled,
            np.zeros(self.axes.shape[1]),
            jac=True,
            method="BFGS",
            options={"gtol": 1e-4, "maxiter": steps},
        )
        return np.asarray(start + self.axes @ found.x)


def _tie(slopes: Values) -> Values:
    """Columns for (e, a, b, exponent) from those for (e, a, b, alpha, beta)."""
    return np.concatenate((slopes[:, :3], slopes[:, 3:4] + slopes[:, 4:]), axis=1)


def _least_absolute(problem: Problem, theta: Values) -> tuple[float, Values]:
    """The least sum of absolute residuals."""
    for delta in _CONTINUATION:
        for _ in range(3):
            theta = _Round(problem, theta).minimize(problem, theta, delta)
    r, _ = problem.residuals(theta)
    return float(np.abs(r).sum()), theta


def _doubts(problem: Problem, theta: Values) -> tuple[str, ...]:
    doubts = []
    e, alpha, beta = float(theta[0]), float(theta[3]), float(theta[4])
    if np.exp(e) < 1e-3 * problem.loss.min():
        doubts.append("E is zero: the runs show no floor, so far extrapolation is too optimistic")
    for name, value in (("alpha", alpha), ("beta", beta)):
        if not 0.02 < value < 2.0:
            doubts.append(f"{name} is {value:.3g}: your runs cannot identify it")
    return tuple(doubts)


def _groups(runs: int, groups: Sequence[object] | None) -> list[NDArray[np.intp]]:
    """Indices of the runs of each group; without groups each run is one."""
    if groups is None:
        return [np.array([index]) for index in range(runs)]
    names = list(dict.fromkeys(groups))
    return [np.array([index for index, group in enumerate(groups) if group == name]) for name in names]
