"""The nonlinearities of the feed-forward layer, by the names that ModelConfig uses."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor


def silu(x: Tensor) -> Tensor:
    """x * sigmoid(x) (Elfwing, Uchibe and Doya 2017; "swish" with beta 1)."""
    return x * torch.sigmoid(x)


def gelu(x: Tensor) -> Tensor:
    """x * P(Z <= x) for a standard normal Z (Hendrycks and Gimpel 2016)."""
    return 0.5 * x * (1.0 + torch.erf(x * math.sqrt(0.5)))


def gelu_tanh(x: Tensor) -> Tensor:
    """The tanh approximation of GELU (Hendrycks and Gimpel 2016, section 2), as GPT-2 and Gemma use it."""
    return 0.5 * x * (1.0 + torch.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)))


ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {"silu": silu, "gelu": gelu, "gelu_tanh": gelu_tanh}
