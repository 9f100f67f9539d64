"""Gradient clipping, against the cliffs of the loss (Pascanu, Mikolov and Bengio 2013, algorithm 1)."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


@torch.no_grad()
def clip_by_value(parameters: Iterable[Tensor], limit: float) -> None:
    """Bounds every gradient element to [-limit, limit], in place.  The direction changes."""
    gradients = _gradients(parameters, limit)
    if gradients:
        torch._foreach_clamp_max_(gradients, limit)
        torch._foreach_clamp_min_(gradients, -limit)


@torch.no_grad()
def clip_by_norm(parameters: Iterable[Tensor], limit: float) -> Tensor:
    """Scales all gradients together, in place, so that their joint l2 norm is at most limit.

    Gives the norm from before, a scalar tensor.  The direction stays.  If the norm is not finite the
    gradients stay as they are: scaling would spread the damage to all.
    """
    gradients = _gradients(parameters, limit)
    if not gradients:
        return torch.tensor(0.0)
    norm = gradient_norm(gradients)
    if bool(norm.isfinite() & (norm > limit)):
        torch._foreach_mul_(gradients, limit / norm)
    return norm


def gradient_norm(gradients: list[Tensor]) -> Tensor:
    """The l2 norm of all numbers of the tensors together."""
    norm: Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    return norm


def _gradients(parameters: Iterable[Tensor], limit: float) -> list[Tensor]:
    if not limit > 0:
        raise ValueError(f"the limit of a gradient is above 0, not {limit}")
    return [parameter.grad for parameter in parameters if parameter.grad is not None]
