"""RMSNorm (Zhang and Sennrich 2019) and LayerNorm (Ba, Kiros and Hinton 2016)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from octavo.model_config import ModelConfig


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + epsilon) * (weight + offset), over the last dimension (of `width`).

    offset is 1 where a checkpoint stores weight - 1 (Hugging Face's Gemma), else 0.
    """

    def __init__(self, width: int, epsilon: float, offset: float = 0.0) -> None:
        super().__init__()
        self.epsilon = epsilon
        self.offset = offset
        self.weight = nn.Parameter(torch.full((width,), 1.0 - offset))

    def forward(self, x: Tensor) -> Tensor:
        inverse_rms = torch.rsqrt(x.square().mean(dim=-1, keepdim=True) + self.epsilon)
        return x * inverse_rms * (self.weight + self.offset)


class LayerNorm(nn.Module):
    """(x - mean(x)) / sqrt(variance(x) + epsilon) * weight + bias, over the last dimension."""

    def __init__(self, width: int, epsilon: float) -> None:
        super().__init__()
        self.epsilon = epsilon
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        centered = x - x.mean(dim=-1, keepdim=True)
        inverse_deviation = torch.rsqrt(centered.square().mean(dim=-1, keepdim=True) + self.epsilon)
        return centered * inverse_deviation * self.weight + self.bias


def build_norm(config: ModelConfig) -> RMSNorm | LayerNorm:
    """The norm that a model's blocks use, over its hidden states."""
    if config.norm == "layer":
        return LayerNorm(config.hidden_size, config.norm_epsilon)
    return RMSNorm(config.hidden_size, config.norm_epsilon, config.norm_offset)
