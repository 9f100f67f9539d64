"""The feed-forward layer: plain (Vaswani et al. 2017, section 3.3) or gated (Shazeer 2020, GLU variants)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from torch import Tensor, nn
from torch.nn import functional

from octavo.layers import native_training
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
        self.kind = config.activation
        self.fast = fast
        self.joined: nn.Module | None = None

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, hidden] -> [B, T, hidden]."""
        output: Tensor = self.down(self._inner(x))
        return output

    def _inner(self, x: Tensor) -> Tensor:
        """[..., hidden] -> [..., inner]."""
        if self.joined is None:
            gate, up = None if self.gate is None else self.gate(x), self.up(x)
            return self.activation(up) if gate is None else self.activation(gate) * up
        joined: Tensor = self.joined(x)
        if self.fast and native_training.suits(joined, 32) and self.kind in FUSED_ACTIVATIONS:
            return native_training.activation(self.kind, joined, gated=self.gate is not None)
        if self.gate is None:
            return self.activation(joined)
        gate, up = joined.chunk(2, dim=-1)
        return self.activation(gate) * up

    def layers_of_one_input(self) -> list[nn.Linear]:
        """Those that one product may compute together."""
        return [self.up] if self.gate is None else [self.gate, self.up]
