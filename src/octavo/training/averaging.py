"""Averages of weights along the path of training, which lie lower than its end.

Of the last checkpoints (Vaswani et al. 2017, section 6.1: the last 5 or 20), or of all steps, the late ones
more (Polyak and Juditsky 1992; exponential, as in Kingma and Ba 2015, section 7.2).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from octavo.errors import FormatError


@torch.no_grad()
def average_weights(checkpoints: Iterable[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of each tensor over the checkpoints, summed in float64, in the dtype of the first.

    One checkpoint is held at a time if they are made when asked for.  Tensors of whole numbers are the
    last's.  Raises FormatError where names or shapes differ, ValueError if there is no checkpoint.
    """
    sums: dict[str, Tensor] = {}
    dtypes: dict[str, torch.dtype] = {}
    count = 0
    for checkpoint in checkpoints:
        count += 1
        if count > 1 and checkpoint.keys() != sums.keys():
            odd = min(checkpoint.keys() ^ sums.keys())
            raise FormatError(f"checkpoint {count} of the average: tensor {odd} is not in all checkpoints")
        for name, tensor in checkpoint.items():
            if count > 1 and tensor.shape != sums[name].shape:
                raise FormatError(f"checkpoint {count} of the average: tensor {name} has another shape")
            if not tensor.is_floating_point():
                sums[name] = tensor.clone()
            elif count == 1:
                sums[name], dtypes[name] = tensor.double(), tensor.dtype
            else:
                sums[name] = sums[name] + tensor.double()
    if not count:
        raise ValueError("there is no checkpoint to average")
    return {name: (each / count).to(dtypes[name]) if name in dtypes else each for name, each in sums.items()}


class ExponentialAverage:
    """mean = decay * mean + (1 - decay) * weights after each step; `weights()` takes the start's bias out."""

    def __init__(self, model: nn.Module, decay: float = 0.999) -> None:
        self.decay = decay
        self.steps = 0
        self.means = {name: torch.zeros_like(each) for name, each in model.named_parameters()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Takes in the model's weights of now."""
        self.steps += 1
        weights = [each.detach() for _, each in model.named_parameters()]
        torch._foreach_lerp_(list(self.means.values()), weights, 1 - self.decay)

    def weights(self) -> dict[str, Tensor]:
        """The averaged weights by name; ValueError before the first update."""
        if not self.steps:
            raise ValueError("the average has taken in no weights yet: call update after each step")
        return {name: mean / (1 - self.decay**self.steps) for name, mean in self.means.items()}
