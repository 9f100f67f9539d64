"""Dropout, alpha dropout, and dropout that stays on at prediction (Monte-Carlo dropout)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from octavo.layers.activations import SELU_ALPHA, SELU_SCALE


def dropout(x: Tensor, probability: float, generator: torch.Generator | None = None) -> Tensor:
    """Each element to 0 with a probability, the rest divided by 1 - probability, so that means stay.

    Srivastava et al. 2014, section 4 (which scales at test time instead, section 10).
    """
    if not probability:
        return x
    kept = torch.rand(x.shape, generator=generator, device=x.device) >= probability
    return x * kept / (1.0 - probability)


def alpha_dropout(x: Tensor, probability: float, generator: torch.Generator | None = None) -> Tensor:
    """Dropout that keeps mean 0 and variance 1 after SELU: dropped elements become its lowest value.

    a (x, or alpha') + b with alpha' = -SELU_SCALE * SELU_ALPHA (Klambauer et al. 2017, section 3).
    """
    if not probability:
        return x
    lowest, keep = -SELU_SCALE * SELU_ALPHA, 1.0 - probability
    kept = torch.rand(x.shape, generator=generator, device=x.device) < keep
    scale = 1.0 / math.sqrt(keep + lowest**2 * keep * probability)
    return scale * torch.where(kept, x, lowest) - scale * probability * lowest


class Dropout(nn.Module):
    """`dropout` in training, nothing in evaluation; by torch's kernel and its global random numbers."""

    function: Callable[[Tensor, float], Tensor] = staticmethod(functional.dropout)

    def __init__(self, probability: float) -> None:
        super().__init__()
        if not 0.0 <= probability < 1.0:
            raise ValueError(f"the probability of dropout is in [0, 1), not {probability}")
        self.probability = probability

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, self.probability) if self.training else x

    def extra_repr(self) -> str:
        return f"{self.probability}"


class AlphaDropout(Dropout):
    """`alpha_dropout` in training, nothing in evaluation."""

    function = staticmethod(alpha_dropout)


_KINDS = (Dropout, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.AlphaDropout, nn.FeatureAlphaDropout)


@contextmanager
def monte_carlo_dropout(model: nn.Module) -> Iterator[None]:
    """Inside, all dropout of the model is on, all else as in evaluation; afterwards all is as before.

    Every prediction is then one draw from a posterior over weights (Gal and Ghahramani 2016, section 4).
    """
    modes = {module: module.training for module in model.modules()}
    model.eval()
    for module in modes:
        if isinstance(module, _KINDS):
            module.train()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


@dataclass(frozen=True)
class MonteCarloPrediction:
    """Mean of the predictions and their standard deviation: how unsure the model itself is."""

    mean: Tensor
    deviation: Tensor


@torch.no_grad()
def predict_with_dropout(
    model: nn.Module, inputs: Tensor, passes: int = 30, *, softmax: bool = False
) -> MonteCarloPrediction:
    """Mean and deviation over passes with dropout on; softmax: of probabilities, not of outputs."""
    if passes < 2:
        raise ValueError(f"passes is {passes}; a deviation takes at least 2")
    with monte_carlo_dropout(model):
        outputs = torch.stack([model(inputs) for _ in range(passes)])
    if softmax:
        outputs = outputs.softmax(dim=-1)
    return MonteCarloPrediction(outputs.mean(dim=0), outputs.std(dim=0))
