"""The nonlinearities between linear layers, each as its formula; ACTIVATIONS has them by name.

A formula here is for reading and for the tests.  ACTIVATIONS holds torch's own kernel of the same function
where there is one, which keeps fewer intermediate results; FORMULAS is the slow twin.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

Activation = Callable[[Tensor], Tensor]

# So that mean 0 and variance 1 are a fixed point (Klambauer et al. 2017, section 2 and equation 14).
SELU_ALPHA = 1.6732632423543772
SELU_SCALE = 1.0507009873554805


def sigmoid(x: Tensor) -> Tensor:
    """1 / (1 + e^-x), in (0, 1).  Its slope is at most 1/4: gradients vanish (Glorot and Bengio 2010)."""
    return torch.exp(-torch.logaddexp(-x, torch.zeros_like(x)))  # e^-log(1 + e^-x): no overflow


def tanh(x: Tensor) -> Tensor:
    """(e^x - e^-x) / (e^x + e^-x), in (-1, 1), centered on 0 (LeCun et al. 1998, Efficient BackProp, 4.4)."""
    return 2.0 * sigmoid(2.0 * x) - 1.0


def relu(x: Tensor) -> Tensor:
    """max(0, x) (Nair and Hinton 2010).  A unit that is never above 0 gets no gradient and stays dead."""
    return x.clamp(min=0.0)


def leaky_relu(x: Tensor, slope: float = 0.01) -> Tensor:
    """x, or slope * x below 0, so that no unit dies (Maas, Hannun and Ng 2013)."""
    return torch.where(x > 0, x, slope * x)


def elu(x: Tensor, alpha: float = 1.0) -> Tensor:
    """x, or alpha (e^x - 1) below 0: its mean is nearer 0 (Clevert et al. 2016, equation 15)."""
    return torch.where(x > 0, x, alpha * torch.expm1(x.clamp(max=0.0)))


def selu(x: Tensor) -> Tensor:
    """SELU_SCALE * elu(x, SELU_ALPHA) (Klambauer et al. 2017, equation 2).

    With LeCun's initialization and plain dense layers, depth changes neither mean nor variance.
    """
    return SELU_SCALE * elu(x, SELU_ALPHA)


def silu(x: Tensor) -> Tensor:
    """x * sigmoid(x) (Elfwing, Uchibe and Doya 2017; "swish" with beta 1)."""
    return x * torch.sigmoid(x)


def gelu(x: Tensor) -> Tensor:
    """x * P(Z <= x) for a standard normal Z (Hendrycks and Gimpel 2016)."""
    return 0.5 * x * (1.0 + torch.erf(x * math.sqrt(0.5)))


def gelu_tanh(x: Tensor) -> Tensor:
    """The tanh approximation of GELU (Hendrycks and Gimpel 2016, section 2), as GPT-2 and Gemma use it."""
    return 0.5 * x * (1.0 + torch.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)))


def mish(x: Tensor) -> Tensor:
    """x * tanh(log(1 + e^x)) (Misra 2019, equation 1)."""
    return x * torch.tanh(torch.logaddexp(x, torch.zeros_like(x)))


def relu_squared(x: Tensor) -> Tensor:
    """max(0, x)^2 (So et al. 2021, Primer, section 4)."""
    return relu(x).square()


class PReLU(nn.Module):
    """x, or below 0 slope * x, with a learned slope for each of `width` channels (He et al. 2015, 2.1)."""

    def __init__(self, width: int, slope: float = 0.25) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.full((width,), slope))

    def forward(self, x: Tensor) -> Tensor:
        """[..., width] -> [..., width]."""
        return torch.where(x > 0, x, self.slope * x)


def gated(activation: Activation, gate: Tensor, up: Tensor) -> Tensor:
    """activation(gate) * up: a gated linear unit (Shazeer 2020, GLU Variants, equations 5 and 6)."""
    return activation(gate) * up


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """The gated unit with SiLU, as in Llama; give it 2/3 of the inner width for equal cost (section 2)."""
    return gated(silu, gate, up)


def geglu(gate: Tensor, up: Tensor) -> Tensor:
    """The gated unit with GELU, as in Gemma (which uses its tanh form)."""
    return gated(gelu, gate, up)


FORMULAS: Mapping[str, Activation] = {
    **{"sigmoid": sigmoid, "tanh": tanh, "relu": relu, "leaky_relu": leaky_relu, "elu": elu, "selu": selu},
    **{"silu": silu, "gelu": gelu, "gelu_tanh": gelu_tanh, "mish": mish, "relu_squared": relu_squared},
}


def _fused_gelu_tanh(x: Tensor) -> Tensor:
    return functional.gelu(x, approximate="tanh")


ACTIVATIONS: Mapping[str, Activation] = {
    **FORMULAS,
    **{"sigmoid": torch.sigmoid, "tanh": torch.tanh, "relu": torch.relu, "elu": functional.elu},
    **{"leaky_relu": functional.leaky_relu, "selu": functional.selu, "mish": functional.mish},
    **{"silu": functional.silu, "gelu": functional.gelu, "gelu_tanh": _fused_gelu_tanh},
}
