"""Penalties and bounds on weights: l1, l2 and max-norm."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn


def l1_penalty(parameters: Iterable[Tensor], strength: float) -> Tensor:
    """strength * sum |w|, to add to the loss: drives weights to exactly 0 (Tibshirani 1996, the lasso)."""
    return strength * torch.stack([parameter.abs().sum() for parameter in parameters]).sum()


def l2_penalty(parameters: Iterable[Tensor], strength: float) -> Tensor:
    """strength / 2 * sum w^2, to add to the loss (Hoerl and Kennard 1970, ridge regression).

    Its gradient is strength * w.  Under Adam that is not weight decay: see AdamW in training/optimizers.
    """
    return 0.5 * strength * torch.stack([parameter.square().sum() for parameter in parameters]).sum()


def weights_of(model: nn.Module) -> list[Tensor]:
    """The parameters that penalties are for: matrices that are trained, without gains and biases."""
    return [each for each in model.parameters() if each.requires_grad and each.ndim > 1]


@torch.no_grad()
def max_norm_(weight: Tensor, limit: float) -> Tensor:
    """Scales each row of a weight [outputs, inputs], in place, to an l2 norm of at most limit.

    Call it after each optimizer step (Srebro and Shraibman 2005; Srivastava et al. 2014, section 5.1).
    """
    norms = weight.flatten(1).norm(dim=1).clamp(min=torch.finfo(weight.dtype).tiny)
    return weight.mul_((limit / norms).clamp(max=1.0).view(-1, *[1] * (weight.ndim - 1)))
