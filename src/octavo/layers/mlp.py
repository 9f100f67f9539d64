"""The feed-forward layer: plain (Vaswani et al. 2017, section 3.3) or gated (Shazeer 2020, GLU variants)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from torch import Tensor, nn
from torch.nn import functional

from octavo.layers.activations import ACTIVATIONS
from octavo.model_config import ModelConfig

# PyTorch's own kernels of the same functions: one pass over memory each, for training.
FUSED_ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "silu": functional.silu,
    "gelu": functional.gelu,
    "gelu_tanh": partial(functional.gelu, approximate="tanh"),
}


class FeedForward(nn.Module):
    """down(activation(gate(x)) * up(x)) if the config is gated, else down(activation(up(x)))."""

    def __init__(self, config: ModelConfig, *, bias: bool = False, fast: bool = False) -> None:
        super().__init__()
        self.activation = (FUSED_ACTIVATIONS if fast else ACTIVATIONS)[config.activation]
        hidden, inner = config.hidden_size, config.feed_forward_size
        self.gate = nn.Linear(hidden, inner, bias=bias) if config.gated else None
        self.up = nn.Linear(hidden, inner, bias=bias)
        self.down = nn.Linear(inner, hidden, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, hidden] -> [B, T, hidden]."""
        inner = self.up(x)
        inner = self.activation(inner) if self.gate is None else self.activation(self.gate(x)) * inner
        output: Tensor = self.down(inner)
        return output
