"""Fits of the other forms: Kaplan's, critical batch, repeated data, rules for rate and batch, few bits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import curve_fit, least_squares

from octavo.scaling.fitting.isoflop import PowerLaw, fit_power
from octavo.scaling.laws import RepetitionLaw, Values


@dataclass(frozen=True, slots=True)
class KaplanFit:
    """L(N, D) = ((N_c / N)^(alpha_N / alpha_D) + D_c / D)^alpha_D (Kaplan et al. 2020, equation 1.5)."""

    n_c: float
    d_c: float
    alpha_n: float
    alpha_d: float
    error: float

    def predict(self, parameters: ArrayLike, tokens: ArrayLike) -> Values:
        n, d = np.asarray(parameters, float), np.asarray(tokens, float)
        return np.asarray(((self.n_c / n) ** (self.alpha_n / self.alpha_d) + self.d_c / d) ** self.alpha_d)


def fit_kaplan(parameters: ArrayLike, tokens: ArrayLike, loss: ArrayLike) -> KaplanFit:
    """Least squares of log loss.  error: root mean square of what is left, relative."""
    log_n, log_d, log_l = (np.log(np.asarray(v, float)) for v in (parameters, tokens, loss))

    def residuals(theta: Values) -> Values:
        n_c, d_c, alpha_n, alpha_d = theta
        first, second = alpha_n / alpha_d * (n_c - log_n), d_c - log_d
        return np.asarray(alpha_d * np.logaddexp(first, second) - log_l)

    best = None
    for alpha in (0.05, 0.1, 0.2, 0.4):
        start = [log_n.mean() + log_l.mean() / alpha, log_d.mean() + log_l.mean() / alpha, alpha, alpha]
        found = least_squares(
            residuals, start, x_scale=[1, 1, 0.01, 0.01], max_nfev=5000, xtol=1e-14, ftol=1e-14
        )
        if best is None or found.cost < best.cost:
            best = found
    assert best is not None
    n_c, d_c, alpha_n, alpha_d = best.x
    error = float(np.sqrt(2 * best.cost / len(log_l)))
    return KaplanFit(float(np.exp(n_c)), float(np.exp(d_c)), float(alpha_n), float(alpha_d), error)


def fit_loss_of_compute(compute: ArrayLike, loss: ArrayLike) -> PowerLaw:
    """L(C) = (C_c / C)^alpha_C through the best runs, as coefficient and exponent."""
    return fit_power(compute, loss)


@dataclass(frozen=True, slots=True)
class CriticalBatch:
    """S = S_min (1 + B_crit / B): steps against the batch (McCandlish et al. 2018, equation 5.1)."""

    least_steps: float
    batch: float


def fit_critical_batch(batch_tokens: ArrayLike, steps: ArrayLike) -> CriticalBatch:
    """From the steps that runs of different batches took to one loss.  Least squares of log steps."""
    b, s = np.asarray(batch_tokens, float), np.asarray(steps, float)

    def logs(x: Values, log_steps: float, log_batch: float) -> Values:
        return np.asarray(log_steps + np.log1p(np.exp(log_batch) / x))

    (log_steps, log_batch), _ = curve_fit(logs, b, np.log(s), p0=[np.log(s.min()), np.log(np.median(b))])
    return CriticalBatch(float(np.exp(log_steps)), float(np.exp(log_batch)))


@dataclass(frozen=True, slots=True)
class RepetitionFit:
    """objective: sum of Huber losses of log loss.  ridge: (R_D*, R_N*) within 0.5 % of the best objective."""

    law: RepetitionLaw
    objective: float
    ridge: tuple[tuple[float, float], ...]


def repetition_objective(
    law: RepetitionLaw,
    parameters: ArrayLike,
    tokens: ArrayLike,
    unique: ArrayLike,
    loss: ArrayLike,
    delta: float = 1e-3,
) -> float:
    """Sum of Huber losses of log loss."""
    r = np.log(law.predict(parameters, tokens, unique)) - np.log(np.asarray(loss, float))
    return float(np.where(np.abs(r) <= delta, 0.5 * r * r, delta * (np.abs(r) - 0.5 * delta)).sum())


def fit_repetition(
    base: RepetitionLaw, parameters: ArrayLike, tokens: ArrayLike, unique: ArrayLike, loss: ArrayLike
) -> RepetitionFit:
    """R_D* and R_N* for a law of unique data (Muennighoff et al. 2023, section 4).

    The valley is flat, so a grid comes first and its ridge is part of the answer.
    """
    from scipy.optimize import minimize

    def value(logs: Values) -> float:
        law = RepetitionLaw(base.law, float(np.exp(logs[0])), float(np.exp(logs[1])))
        return repetition_objective(law, parameters, tokens, unique, loss)

    grid = [
        np.array([d, n])
        for d in np.log(np.geomspace(1, 1000, 25))
        for n in np.log(np.geomspace(0.5, 100, 25))
    ]
    values = np.array([value(point) for point in grid])
    starts = [grid[index] for index in np.argsort(values)[:4]]
    best = min(
        (minimize(value, start, method="Nelder-Mead") for start in starts), key=lambda found: float(found.fun)
    )
    ridge = tuple(
        (float(np.exp(d)), float(np.exp(n)))
        for (d, n), height in zip(grid, values, strict=True)
        if height <= 1.005 * best.fun
    )
    law = RepetitionLaw(base.law, float(np.exp(best.x[0])), float(np.exp(best.x[1])))
    return RepetitionFit(law, float(best.fun), ridge)


def fit_tokens_of_compute(compute: ArrayLike, tokens: ArrayLike, loss: ArrayLike) -> PowerLaw:
    """D* = k C^b from parabolas in log D, one a budget (Llama 3, section 3.2.1)."""
    c, d, y = (np.asarray(v, float) for v in (compute, tokens, loss))
    best_c, best_d = [], []
    for budget in np.unique(c):
        square, slope, _ = np.polyfit(np.log(d[c == budget]), y[c == budget], 2)
        if square > 0:
            best_c.append(budget)
            best_d.append(np.exp(-slope / (2 * square)))
    return fit_power(best_c, best_d)


def fit_precision(bits: ArrayLike, effective: ArrayLike) -> float:
    """gamma of N_eff / N = 1 - exp(-bits / gamma) (Kumar et al. 2024, equation 3)."""
    x, y = np.asarray(bits, float), np.asarray(effective, float)

    def share(b: Values, gamma: float) -> Values:
        return np.asarray(-np.expm1(-b / gamma))

    (gamma,), _ = curve_fit(share, x, y, p0=[2.5])
    return float(gamma)
