"""Mixed precision without a cast in every operation (Micikevicius et al. 2018, with bfloat16 for float16).

The optimizer's weights stay in float32.  The linear layers of the blocks compute with a bfloat16 copy that is
laid out once a step (`layers/bfloat16.py`); embeddings, norms and the loss stay in float32.  bfloat16 has
float32's range, so no loss scaling is needed.
"""

from __future__ import annotations

import copy
import time
from typing import Generic, TypeVar

import torch
from torch import nn

from octavo.errors import OctavoError
from octavo.layers import native_training
from octavo.layers.bfloat16 import Bfloat16Linear, Joins

Network = TypeVar("Network", bound=nn.Module)
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
# bfloat16 must be this much faster to be chosen: it costs digits.
_WORTH_IT = 1.3
# So much slower at a few rows, and it need not be tried on many.
_HOPELESS = 10


class ComputeCopy(Generic[Network]):
    """`module` computes with the parameters of `master`, which the optimizer owns and which get gradients.

    In float32 the two are one module.  In bfloat16 the linear layers of the module's stacks (ModuleLists) are
    replaced by layers that compute with a laid out copy of their weights; all parameters are shared.
    """

    def __init__(self, master: Network, dtype: torch.dtype) -> None:
        self.module = master
        self._lowered: list[Bfloat16Linear] = []
        if dtype == torch.float32:
            return
        shared = {id(parameter): parameter for parameter in master.parameters()}
        self.module = copy.deepcopy(master, shared)
        for stack in [each for each in self.module.modules() if isinstance(each, nn.ModuleList)]:
            self._lower(stack)

    def _lower(self, owner: nn.Module) -> None:
        if isinstance(owner, Joins):
            owner.joined = self._lowered_layer(*owner.layers_of_one_input())
        for name, child in owner.named_children():
            if isinstance(child, nn.Linear):
                if not isinstance(owner, Joins) or child not in owner.layers_of_one_input():
                    setattr(owner, name, self._lowered_layer(child))
            elif not isinstance(child, nn.ModuleList):  # it has its own turn
                self._lower(child)

    def _lowered_layer(self, *linears: nn.Linear) -> Bfloat16Linear:
        self._lowered.append(Bfloat16Linear(*linears))
        return self._lowered[-1]

    def refresh(self) -> None:
        """Read the weights that the optimizer has changed.  Once a step."""
        for layer in self._lowered:
            layer.refresh()


def choose_precision(wanted: str, width: int) -> str:
    """ "float32" or "bfloat16"; for "auto", what a probe of a few milliseconds says about this processor.

    width: of the model's matrices.  Raises OctavoError for another name.
    """
    if wanted in DTYPES:
        return wanted
    if wanted != "auto":
        raise OctavoError(f"precision: {wanted!r}; one of auto, {', '.join(DTYPES)}")
    if native_training.in_tiles():
        return "bfloat16"  # a clock beside a busy neighbour may say otherwise
    # A processor without bfloat16 products is a hundred times slower with them: a few rows tell that.
    few = {name: _product_seconds(dtype, width, rows=32, rounds=3) for name, dtype in DTYPES.items()}
    if few["bfloat16"] > _HOPELESS * few["float32"]:
        return "float32"
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
