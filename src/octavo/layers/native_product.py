"""Products with a weight that is stored once, in both directions, by a kernel of our own.

    x W^T + l r^T      forward: x [N, I], W [O, I], l [N, R], r [O, R]
    g W + l r          the gradient of x: g [N, O], l [N, R], r [R, I]

W is bfloat16, or NF4 that is unpacked in the caches, tile by tile.  The thin product l r is LoRA's; it is
summed in the same registers.  oneDNN is as fast on a weight that it has laid out before, which is a second
copy, and slower on thin matrices (native/ops/training_product.h; tests/layers/test_native_product.py).

Legend: N rows (tokens), I inputs, O outputs, R rank.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from octavo import _native
from octavo.layers import native_training
from octavo.layers.native_training import openmp_team

_STEP = 16  # what shapes are multiples of
GROUP = 64  # terms of a sum in bytes that share a scale
MOST_KEPT = 256  # columns that stay in bfloat16 beside it


@dataclass(frozen=True, eq=False)
class PackedWeight:
    """[O, I] in NF4.  parts: of each stretch of rows the addresses of codes, absmax, scales, levels and outer
    (0: none), the offset, and its first and last row; tensors: what those addresses are of."""

    shape: tuple[int, int]
    parts: tuple[tuple[int | float, ...], ...]
    tensors: tuple[Tensor, ...]


Low = tuple[Tensor, Tensor]
_NO_PARTS: tuple[tuple[int | float, ...], ...] = ()


def suits_weight(shape: tuple[int, ...] | torch.Size, dtype: torch.dtype = torch.bfloat16) -> bool:
    """Whether the kernel multiplies with a weight of this shape on this processor."""
    return dtype == torch.bfloat16 and not any(size % _STEP for size in shape) and native_training.available()


def forward_product(
    x: Tensor,
    weight: Tensor | PackedWeight,
    low: Low | None = None,
    bias: Tensor | None = None,
    *,
    kept: int | None = None,
) -> Tensor:
    """x W^T + l r^T + bias in bfloat16: [N, I] -> [N, O]; bias: contiguous float32 [O].

    kept: multiply in bytes, all but this even number of columns of x (layers/byte_product.py).
    """
    return _product(x, weight, True, low, bias, kept)


def backward_product(
    gradient: Tensor, weight: Tensor | PackedWeight, low: Low | None = None, *, in_bytes: bool = False
) -> Tensor:
    """g W + l r in bfloat16: [N, O] -> [N, I]."""
    return _product(gradient, weight, False, low, kept=0 if in_bytes else None)


def _product(
    left: Tensor,
    weight: Tensor | PackedWeight,
    transposed: bool,
    low: Low | None,
    bias: Tensor | None = None,
    kept: int | None = None,
) -> Tensor:
    rows, inner = left.shape
    if inner != weight.shape[1 if transposed else 0] or left.dtype != torch.bfloat16 or left.stride(1) != 1:
        raise ValueError(f"rows {tuple(left.shape)} of {left.dtype} do not fit a weight {weight.shape}")
    if kept is not None and (inner % GROUP or kept % 2 or not 0 <= kept <= min(inner, MOST_KEPT)):
        raise ValueError(
            f"{kept} of {inner} columns cannot be kept: an even number, of a multiple of {GROUP}"
        )
    columns = weight.shape[0 if transposed else 1]
    out = torch.empty((rows, columns), dtype=torch.bfloat16)
    values, parts = (weight, _NO_PARTS) if isinstance(weight, Tensor) else (None, weight.parts)
    address, stride = (0, 0) if values is None else (values.data_ptr(), values.stride(0))
    thin, rank = (0, 0, 0, 0), 0
    if low is not None:
        first, second = low
        thin, rank = (first.data_ptr(), first.stride(0), second.data_ptr(), second.stride(0)), first.shape[1]
    _native.train_product(
        *openmp_team(),
        (
            left.data_ptr(), left.stride(0), address, stride, weight.shape[1], int(transposed), *thin,
            out.data_ptr(), columns, rows, inner, columns, rank, 0 if bias is None else bias.data_ptr(),
            int(kept is not None), kept or 0,
        ),
        parts,
    )  # fmt: skip
    return out


def rows_product(x: Tensor, matrix: Tensor) -> Tensor:
    """x m^T: [N, I], [R, I] -> [N, R], by the kernel where it suits."""
    if suits_weight(matrix.shape, x.dtype):
        return forward_product(x, matrix)
    return x @ matrix.T


def columns_product(gradient: Tensor, matrix: Tensor) -> Tensor:
    """g m: [N, O], [O, R] -> [N, R], by the kernel where it suits."""
    if suits_weight(matrix.shape, gradient.dtype):
        return backward_product(gradient, matrix)
    return gradient @ matrix


def join_pairs(pairs: Sequence[tuple[Tensor, Tensor, int, float]], down: Tensor, up: Tensor) -> None:
    """Fills down [R, I] with each s A below one another, up [O, R] with each B in its block; else with zeros.

    pairs: of each A float32 [r, I], B float32 [rows, r], its first row in up, and s.
    """
    fields = []
    for first, second, begin, scale in pairs:
        if first.dtype != torch.float32 or not (first.is_contiguous() and second.is_contiguous()):
            raise ValueError("pairs must be contiguous float32 matrices")
        rows, rank = second.shape
        fields.append((first.data_ptr(), second.data_ptr(), rank, begin, begin + rows, scale))
    outputs, ranks = up.shape
    _native.train_join_pairs(tuple(fields), down.shape[1], outputs, ranks, down.data_ptr(), up.data_ptr())
