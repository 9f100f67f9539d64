"""Mixed precision without a cast in every operation (Micikevicius et al. 2018, with bfloat16 for float16).

The optimizer's weights stay in float32.  The linear layers of the blocks compute with a bfloat16 copy that is
made once a step; embeddings, norms and the loss stay in float32.  bfloat16 has float32's range, so no loss
scaling is needed.
"""

from __future__ import annotations

import copy
import time
from typing import Generic, TypeVar

import torch
from torch import nn

from octavo.errors import OctavoError

Network = TypeVar("Network", bound=nn.Module)
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
# bfloat16 must be this much faster to be chosen: it costs digits.
_WORTH_IT = 1.3


class ComputeCopy(Generic[Network]):
    """`module` computes; its gradients go to the parameters of `master`, which the optimizer owns.

    In float32 the two are one module and nothing is copied.
    """

    def __init__(self, master: Network, dtype: torch.dtype) -> None:
        self.master = master
        self.module = master
        self._pairs: list[tuple[nn.Parameter, nn.Parameter]] = []
        if dtype == torch.float32:
            return
        self.module = copy.deepcopy(master)
        lowered = {
            f"{path}.{name}"
            for path, module in master.named_modules()
            if isinstance(module, nn.Linear) and ".blocks." in f".{path}"
            for name, _ in module.named_parameters(recurse=False)
        }
        for name, parameter in master.named_parameters():
            path, _, kind = name.rpartition(".")
            owner = self.module.get_submodule(path)
            if name in lowered:
                lower = nn.Parameter(parameter.detach().to(dtype), requires_grad=parameter.requires_grad)
                self._pairs.append((parameter, lower))
                setattr(owner, kind, lower)
            else:
                setattr(owner, kind, parameter)

    def refresh(self) -> None:
        """Copy the weights that the optimizer has changed.  Once a step."""
        with torch.no_grad():
            for parameter, lower in self._pairs:
                lower.copy_(parameter)

    def collect(self) -> None:
        """Add the copy's gradients to the master's, in float32.  After each backward pass."""
        for parameter, lower in self._pairs:
            if lower.grad is None:
                continue
            if parameter.grad is None:
                parameter.grad = lower.grad.to(parameter.dtype)
            else:
                parameter.grad.add_(lower.grad)
            lower.grad = None


def choose_precision(wanted: str, width: int) -> str:
    """ "float32" or "bfloat16"; for "auto", what a probe of a few milliseconds says about this processor.

    width: of the model's matrices.  Raises OctavoError for another name.
    """
    if wanted in DTYPES:
        return wanted
    if wanted != "auto":
        raise OctavoError(f"precision: {wanted!r}; one of auto, {', '.join(DTYPES)}")
    seconds = {name: _product_seconds(dtype, width) for name, dtype in DTYPES.items()}
    return "bfloat16" if seconds["float32"] > _WORTH_IT * seconds["bfloat16"] else "float32"


def _product_seconds(dtype: torch.dtype, width: int, rows: int = 2048, rounds: int = 5) -> float:
    """The best time of one product of a model's size; generator state is left alone."""
    left, right = torch.ones(rows, width, dtype=dtype), torch.ones(4 * width, width, dtype=dtype)
    best = float("inf")
    for _ in range(rounds):
        began = time.perf_counter()
        nn.functional.linear(left, right)
        best = min(best, time.perf_counter() - began)
    return best
