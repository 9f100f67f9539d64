"""Normalization over the features of one token (RMSNorm, LayerNorm) or over a batch (BatchNorm)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from octavo.model_config import ModelConfig


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + epsilon) * (weight + offset), over the last dimension (of `width`).

    Zhang and Sennrich 2019, equation 4: LayerNorm without the mean, at the same quality.
    offset is 1 where a checkpoint stores weight - 1 (Hugging Face's Gemma), else 0.
    """

    def __init__(self, width: int, epsilon: float, offset: float = 0.0) -> None:
        super().__init__()
        self.epsilon = epsilon
        self.offset = offset
        self.weight = nn.Parameter(torch.full((width,), 1.0 - offset))

    def scale_weight(self) -> Tensor:
        """What x is multiplied with."""
        return self.weight + self.offset if self.offset else self.weight

    def forward(self, x: Tensor) -> Tensor:
        inverse_rms = torch.rsqrt(x.square().mean(dim=-1, keepdim=True) + self.epsilon)
        return x * inverse_rms * (self.weight + self.offset)


class LayerNorm(nn.Module):
    """(x - mean(x)) / sqrt(variance(x) + epsilon) * weight + bias, over the last dimension.

    Ba, Kiros and Hinton 2016, equation 3.  fused: by torch's kernel, or by `formula`, its slow twin.
    """

    def __init__(self, width: int, epsilon: float, *, fused: bool = True) -> None:
        super().__init__()
        self.epsilon = epsilon
        self.fused = fused
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        if self.fused:
            return nn.functional.layer_norm(x, self.weight.shape, self.weight, self.bias, self.epsilon)
        return self.formula(x)

    def formula(self, x: Tensor) -> Tensor:
        """The norm as the paper writes it."""
        centered = x - x.mean(dim=-1, keepdim=True)
        inverse_deviation = torch.rsqrt(centered.square().mean(dim=-1, keepdim=True) + self.epsilon)
        return centered * inverse_deviation * self.weight + self.bias


class BatchNorm(nn.Module):
    """Each of `width` features (the last dimension) to mean 0 and variance 1 over all other dimensions.

    Ioffe and Szegedy 2015, algorithms 1 and 2.  In training the statistics are those of the batch, and a
    running mean of them is kept: new = (1 - momentum) * old + momentum * batch.  In evaluation the kept ones
    are used, so no result depends on its company.  Raises ValueError for a training batch of one example.
    """

    running_mean: Tensor
    running_variance: Tensor

    def __init__(self, width: int, epsilon: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__()
        self.epsilon = epsilon
        self.momentum = momentum
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))
        self.register_buffer("running_mean", torch.zeros(width))
        self.register_buffer("running_variance", torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """[..., width] -> [..., width]."""
        mean, variance = self.running_mean, self.running_variance
        if self.training:
            rows = x.flatten(0, -2)
            if len(rows) < 2:
                raise ValueError("batch norm in training needs at least two examples: one has no variance")
            mean, variance = rows.mean(dim=0), rows.var(dim=0, correction=0)
            with torch.no_grad():
                self.running_mean.lerp_(mean, self.momentum)
                self.running_variance.lerp_(variance * len(rows) / (len(rows) - 1), self.momentum)
        return (x - mean) * torch.rsqrt(variance + self.epsilon) * self.weight + self.bias


def build_norm(config: ModelConfig) -> RMSNorm | LayerNorm:
    """The norm that a model's blocks use, over its hidden states."""
    if config.norm == "layer":
        return LayerNorm(config.hidden_size, config.norm_epsilon)
    return RMSNorm(config.hidden_size, config.norm_epsilon, config.norm_offset)
