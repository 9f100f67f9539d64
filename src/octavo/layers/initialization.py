"""Random first weights of the right size, so that signals neither vanish nor explode with depth.

Legend: fan_in and fan_out, inputs and outputs of a layer; a weight is [outputs, inputs].  All functions
fill a tensor in place and give it back; the same state of the generator gives the same weights.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from octavo.errors import UnsupportedError

Distribution = Literal["normal", "uniform"]
Scheme = Literal["glorot", "he", "lecun"]


def fans(weight: Tensor) -> tuple[int, int]:
    """(fan_in, fan_out) of a weight [outputs, inputs, *kernel]; ValueError below two dimensions."""
    if weight.ndim < 2:
        raise ValueError(f"a tensor of shape {tuple(weight.shape)} has no fan-in: it must be a matrix")
    kernel = weight[0, 0].numel()
    return weight.shape[1] * kernel, weight.shape[0] * kernel


def glorot_(
    weight: Tensor, *, distribution: Distribution = "uniform", generator: torch.Generator | None = None
) -> Tensor:
    """Variance 2 / (fan_in + fan_out): a compromise of both directions, for tanh and linear layers.

    Glorot and Bengio 2010, equations 12 and 16.
    """
    return _fill(weight, 2.0 / sum(fans(weight)), distribution, generator)


def he_(
    weight: Tensor,
    *,
    slope: float = 0.0,
    distribution: Distribution = "normal",
    generator: torch.Generator | None = None,
) -> Tensor:
    """Variance 2 / ((1 + slope^2) fan_in): ReLU halves the second moment, this doubles it.

    slope: of a leaky ReLU below 0.  He et al. 2015, equations 10 and 15.
    """
    return _fill(weight, 2.0 / ((1.0 + slope**2) * fans(weight)[0]), distribution, generator)


def lecun_(
    weight: Tensor, *, distribution: Distribution = "normal", generator: torch.Generator | None = None
) -> Tensor:
    """Variance 1 / fan_in: outputs as large as inputs (LeCun et al. 1998, section 4.6); what SELU needs."""
    return _fill(weight, 1.0 / fans(weight)[0], distribution, generator)


def scaled_residual_(
    weight: Tensor, layers: int, *, deviation: float = 0.02, generator: torch.Generator | None = None
) -> Tensor:
    """Normal of deviation / sqrt(2 layers), for what ends a residual branch (Radford et al. 2019, 2.3).

    2 * layers branches add up, so their sum has the variance of one.
    """
    return _fill(weight, deviation**2 / (2 * layers), "normal", generator)


def _fill(
    weight: Tensor, variance: float, distribution: Distribution, generator: torch.Generator | None
) -> Tensor:
    with torch.no_grad():
        if distribution == "normal":
            return weight.normal_(0.0, math.sqrt(variance), generator=generator)
        limit = math.sqrt(3.0 * variance)  # uniform on [-a, a] has variance a^2 / 3
        return weight.uniform_(-limit, limit, generator=generator)


def initialize(
    model: nn.Module,
    scheme: Scheme,
    *,
    distribution: Distribution = "normal",
    generator: torch.Generator | None = None,
) -> None:
    """Fills the weights of all linear and convolution layers by a scheme, and their biases with 0."""
    schemes = {"glorot": glorot_, "he": he_, "lecun": lecun_}
    if scheme not in schemes:
        raise UnsupportedError(f"initialization {scheme!r} is not known; there are {', '.join(schemes)}")
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d):
            schemes[scheme](module.weight, distribution=distribution, generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


@dataclass(frozen=True)
class MuPMultipliers:
    """What changes with width under muP (Yang et al. 2022, Tensor Programs V, table 8), for Adam and its kin.

    With these, the best learning rate of a narrow model is the best of a wide one.  All are 1 at the base
    width.  Input weights (embeddings), gains and biases stay as they are.
    """

    hidden_deviation: float  # of the first weights of hidden matrices
    hidden_learning_rate: float  # of hidden matrices
    output_scale: float  # logits are multiplied by it; the output's own learning rate stays
    attention_scale: float  # what q.k is multiplied by: 1 / head width, not 1 / sqrt


def mup_multipliers(width: int, base_width: int, *, head_width: int, base_head_width: int) -> MuPMultipliers:
    """The multipliers of a model of `width`, tuned at `base_width`; both are hidden sizes.

    attention_scale is sqrt(base_head_width) / head_width, so that the base model is an ordinary one (section
    4, definition 4.1 and appendix B.1).
    """
    ratio = width / base_width
    return MuPMultipliers(
        hidden_deviation=ratio**-0.5,
        hidden_learning_rate=1.0 / ratio,
        output_scale=1.0 / ratio,
        attention_scale=math.sqrt(base_head_width) / head_width,
    )
