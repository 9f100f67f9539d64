"""Products with frozen weights in bytes: 1.4 to 1.6 times as fast as in bfloat16 (Zen 4).

Both sides are rounded to 8 bits with a scale for each 64 terms of a sum (`native/ops/training_bytes.h`):

    x W^T      forward: x without its largest columns, which stay in bfloat16 beside it
    g W        the gradient of x

Inputs of language models have a few columns that are many times larger than the rest, the same ones for all
tokens; without them 8 bits do (Dettmers et al. 2022, "LLM.int8()", section 3).  Gradients have none.  That a
frozen weight needs no gradient, the one product that takes more bits, is why this suits LoRA (Wortsman et al.
2023, "SwitchBack", section 2).

Legend: N rows (tokens), I inputs, O outputs.
"""

from __future__ import annotations

import torch
from torch import Tensor

from octavo import _native
from octavo.layers.native_product import GROUP, MOST_KEPT, suits_weight

_KEPT_OF = 36  # one column of so many stays in bfloat16


def available() -> bool:
    """Whether this processor's kernels multiply bytes."""
    return _native.trains_in_bytes()


def kept_columns(shape: tuple[int, int]) -> int | None:
    """How many columns of x stay in bfloat16 beside a weight [O, I]; None: not multiplied in bytes here."""
    if not (available() and suits_weight(shape)) or any(size % GROUP for size in shape):
        return None
    return min(MOST_KEPT, round(shape[1] / (2 * _KEPT_OF)) * 2)


def plain_byte_product(left: Tensor, weight: Tensor, kept: int = 0) -> Tensor:
    """left weight^T of [N, K] and [C, K] by PyTorch, in float32: the slow twin of both directions.

    kept: columns of left that are multiplied as they are, those with the largest sums of squares.
    """
    left, weight = left.float(), weight.float()
    whole = left.square().sum(0).topk(kept).indices
    rest = left.index_fill(1, whole, 0.0)
    return rounded(rest) @ rounded(weight).T + left[:, whole] @ weight[:, whole].T


def rounded(x: Tensor) -> Tensor:
    """Float32 [N, K] -> the values of its 8-bit codes."""
    groups = x.view(len(x), -1, GROUP)
    largest = groups.abs().amax(-1, keepdim=True)
    # Not 127 / largest, which PyTorch computes as 127 times a rounded reciprocal.
    factor = torch.where(largest == 0, 0.0, torch.full_like(largest, 127.0) / largest)
    return ((groups * factor).round() * (largest / 127.0)).view_as(x)
