"""Published laws as functions: sizes and tokens to loss, compute to the best of both, and rules of thumb.

Constants are the papers'.  None of them may be used to plan: E, A and B belong to a tokenizer and a corpus.

Legend: N parameters, D tokens, C FLOPs, U unique tokens.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ParametricLaw:
    """L(N, D) = E + A / N^alpha + B / D^beta (Hoffmann et al. 2022, equation 2)."""

    E: float
    A: float
    B: float
    alpha: float
    beta: float

    @property
    def a(self) -> float:
        """N* goes with C^a (equation 4)."""
        return self.beta / (self.alpha + self.beta)

    def predict(self, parameters: ArrayLike, tokens: ArrayLike) -> Values:
        """The loss, in the unit that was fitted."""
        n, d = np.asarray(parameters, float), np.asarray(tokens, float)
        return np.asarray(self.E + self.A * n**-self.alpha + self.B * d**-self.beta)

    def optimum(self, compute: float, flops_per_parameter: float = 6.0) -> tuple[float, float]:
        """(N*, D*) where C = flops_per_parameter N D: N* = G (C/6)^a (equation 4)."""
        each = compute / flops_per_parameter
        # A law without one of its terms: all the compute goes to what the loss depends on.
        if not self.beta * self.B > 0:
            return float(each), 1.0
        if not self.alpha * self.A > 0:
            return 1.0, float(each)
        g = (self.alpha * self.A / (self.beta * self.B)) ** (1 / (self.alpha + self.beta))
        best = g * each**self.a
        return float(best), float(each / best)


CHINCHILLA = ParametricLaw(
    math.exp(0.5267228), math.exp(6.0073404), math.exp(6.0179186), 0.33917084, 0.2849083
)  # from the TeX source: the printed digits move N* by a quarter
EPOCH = ParametricLaw(1.8172, 482.01, 2085.43, 0.3478, 0.3658)  # Besiroglu et al. 2024


# Kaplan et al. 2020: N without embeddings, C in petaflop-days


def kaplan_loss_of_parameters(n: float) -> float:
    return float((8.8e13 / n) ** 0.076)


def kaplan_loss_of_tokens(d: float) -> float:
    return float((5.4e13 / d) ** 0.095)


def kaplan_loss(n: ArrayLike, d: ArrayLike) -> Values:
    """Equation 1.5 with the constants of table 2."""
    power = 0.076 / 0.103
    return np.asarray(((6.4e13 / np.asarray(n, float)) ** power + 1.8e13 / np.asarray(d, float)) ** 0.103)


def kaplan_critical_batch(loss: float) -> float:
    """Tokens of a batch beyond which more of them save few steps (equation 1.4)."""
    return float(2.1e8 / loss ** (1 / 0.21))


def kaplan_optimum(petaflop_days: float) -> tuple[float, float, float, float]:
    """(N, batch tokens, steps, D) of table 3."""
    c = petaflop_days
    return 1.3e9 * c**0.73, 2.0e6 * c**0.24, 5.4e3 * c**0.03, 2e10 * c**0.27


# Repeated data


@dataclass(frozen=True, slots=True)
class RepetitionLaw:
    """Muennighoff et al. 2023, equation 5: data and parameters beyond what unique tokens bear are worth less.

    D' = U + U R_D* (1 - exp(-R / R_D*)), R = D / U - 1; the same for N with U_N, the best size for U.
    """

    law: ParametricLaw
    tokens_decay: float = 15.387756
    parameters_decay: float = 5.309743

    def effective_tokens(self, tokens: ArrayLike, unique: ArrayLike) -> Values:
        d = np.asarray(tokens, float)
        return _saturated(d, np.minimum(np.asarray(unique, float), d), self.tokens_decay)

    def effective_parameters(self, parameters: ArrayLike, unique: ArrayLike) -> Values:
        law = self.law
        # The size that U tokens would be best for: N* and D* of one C.
        base = (law.alpha * law.A / (law.beta * law.B)) ** (1 / law.alpha)
        best = base * np.asarray(unique, float) ** (law.beta / law.alpha)
        n = np.asarray(parameters, float)
        return _saturated(n, np.minimum(best, n), self.parameters_decay)

    def predict(self, parameters: ArrayLike, tokens: ArrayLike, unique: ArrayLike) -> Values:
        d = np.asarray(tokens, float)
        seen = np.minimum(np.asarray(unique, float), d)
        return self.law.predict(self.effective_parameters(parameters, seen), self.effective_tokens(d, seen))


def _saturated(value: Values, unique: Values, decay: float) -> Values:
    repeats = np.maximum(value / unique - 1.0, 0.0)
    return np.asarray(unique + unique * decay * -np.expm1(-repeats / decay))


MUENNIGHOFF = RepetitionLaw(
    ParametricLaw(math.exp(0.6254804), math.exp(6.255414), math.exp(7.3049974), 0.3526596, 0.3526596)
)


# Bits, serving, hyperparameters


def effective_parameters_of_bits(
    parameters: float, weights: float = 16, activations: float = 16, cache: float = 16
) -> float:
    """N_eff of training in few bits (Kumar et al. 2024, equation 3)."""
    parts = ((weights, 2.6745), (activations, 2.2102), (cache, 0.9578))
    return parameters * math.prod(1 - math.exp(-bits / gamma) for bits, gamma in parts)


def serving_optimum(law: ParametricLaw, loss: float, served: float) -> tuple[float, float, float]:
    """(N, D, FLOPs) of least 6 N D + 2 N served with L(N, D) = loss (Sardana et al. 2024, equation 3)."""
    from scipy.optimize import minimize_scalar

    floor = (law.A / (loss - law.E)) ** (1 / law.alpha)

    def tokens(n: float) -> float:
        return float((law.B / (loss - law.E - law.A * n**-law.alpha)) ** (1 / law.beta))

    def cost(log_excess: float) -> float:
        n = floor * (1 + math.exp(log_excess))
        return math.log(6 * n * tokens(n) + 2 * n * served)

    found = minimize_scalar(cost, bounds=(-12, 12), method="bounded", options={"xatol": 1e-10})
    n = floor * (1 + math.exp(float(found.x)))
    return n, tokens(n), math.exp(float(found.fun))


def pearce_song_exponent(*, total: bool, law: ParametricLaw = EPOCH, embedding: float = 47_491.0) -> float:
    """a of N* ~ C^a over 8e2 to 1.6e9 parameters where C leaves the embeddings out (Pearce and Song 2024).

    N_total = N + embedding N^(1/3).  total: count them after all.
    """
    n = np.geomspace(8e2, 1.6e9, 400)
    whole = n + embedding * n ** (1 / 3)
    slope = 1 + embedding / 3 * n ** (-2 / 3)
    size, size_slope = (whole, np.ones_like(whole)) if total else (n, slope)
    # Least L(N_total, D) where size * D is fixed: A alpha N_total^(-alpha-1) dN_total/dsize = B beta
    # D^-beta / size.
    left = law.A * law.alpha * whole ** (-law.alpha - 1) * size_slope * size
    tokens = (law.B * law.beta / left) ** (1 / law.beta)
    compute = np.log(6 * size * tokens)
    even = np.linspace(compute[0], compute[-1], 400)
    return float(np.polyfit(even, np.interp(even, compute, np.log(size)), 1)[0])


def step_law(nonembedding: float, tokens: float) -> tuple[float, float]:
    """(learning rate, batch tokens) of Step Law (Li et al. 2025), fitted from 215M parameters on."""
    return 1.80 * nonembedding**-0.713 * tokens**0.307, 0.58 * tokens**0.571


def porian_rule(parameters: float) -> tuple[float, float]:
    """(learning rate, batch tokens) of Porian et al. 2024 as coded in AI2's ladder."""
    return 0.0047 * (parameters / 108e6) ** (-1 / 3), 2048 * 160 * (parameters / 108e6) ** (2 / 3)


def deepseek_rule(compute: float) -> tuple[float, float]:
    """(learning rate, batch tokens) of DeepSeek LLM (2024), figure 3."""
    return 0.3118 * compute**-0.1250, 0.2920 * compute**0.3271
