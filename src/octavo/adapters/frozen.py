"""Weights that are only multiplied with: no gradients, no masters, and no copies that training does not read.

A frozen weight gives products of rows x [N, I] with W^T and of rows g [N, O] with W, in its dtype.  A thin
product is added on the way: that of LoRA's pairs.

Legend: N rows (tokens), I inputs, O outputs, R rank of all pairs together.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from octavo.layers.bfloat16 import Bfloat16Weight, multiply
from octavo.layers.byte_product import kept_columns
from octavo.layers.native_product import Low, backward_product, forward_product, suits_weight


class FrozenWeight(Protocol):
    """A matrix [O, I]."""

    dtype: torch.dtype
    shape: tuple[int, int]

    def forward(self, x: Tensor, low: Low | None = None) -> Tensor:
        """x W^T + l r^T: [N, I], l [N, R], r [O, R] -> [N, O]."""

    def backward(self, gradient: Tensor, low: Low | None = None) -> Tensor:
        """g W + l r: [N, O], l [N, R], r [R, I] -> [N, I]."""

    def row_squares(self) -> Tensor:
        """The sum of squares of each row, float32 [O]."""


class PlainFrozen(ABC):
    """By PyTorch's own products, from the two that a subclass has: the slow twin of the others."""

    dtype: torch.dtype
    shape: tuple[int, int]

    @abstractmethod
    def _forward(self, x: Tensor) -> Tensor:
        """x W^T."""

    @abstractmethod
    def _backward(self, gradient: Tensor) -> Tensor:
        """g W."""

    def forward(self, x: Tensor, low: Low | None = None) -> Tensor:
        y = self._forward(x)
        return y if low is None else y.addmm_(low[0], low[1].T)

    def backward(self, gradient: Tensor, low: Low | None = None) -> Tensor:
        for_x = self._backward(gradient)
        return for_x if low is None else for_x.addmm_(*low)


class Float32Frozen(PlainFrozen):
    """In float32."""

    dtype = torch.float32

    def __init__(self, parts: Sequence[Tensor]) -> None:
        self.weight = torch.cat([part.float() for part in parts])
        self.shape = (self.weight.shape[0], self.weight.shape[1])

    def _forward(self, x: Tensor) -> Tensor:
        return x @ self.weight.T

    def _backward(self, gradient: Tensor) -> Tensor:
        return gradient @ self.weight

    def row_squares(self) -> Tensor:
        return self.weight.square().sum(1)


class LaidOutFrozen(PlainFrozen):
    """In bfloat16, laid out once for x W^T and plain for g W: two copies, for oneDNN."""

    dtype = torch.bfloat16

    def __init__(self, parts: Sequence[Tensor]) -> None:
        packed = Bfloat16Weight(parts)
        self.shape = (len(packed.plain), parts[0].shape[1])
        self._laid_out, self._plain = packed.laid_out, packed.plain

    def _forward(self, x: Tensor) -> Tensor:
        return multiply(x, self._laid_out, None)

    def _backward(self, gradient: Tensor) -> Tensor:
        return gradient @ self._plain

    def row_squares(self) -> Tensor:
        return self._plain.float().square().sum(1)


class Bfloat16Frozen:
    """In bfloat16, once, for a kernel of our own.  in_bytes: it may round both sides to 8 bits."""

    dtype = torch.bfloat16

    def __init__(self, parts: Sequence[Tensor], *, in_bytes: bool = False) -> None:
        self._weight = torch.cat([part.to(torch.bfloat16) for part in parts])
        self.shape = (self._weight.shape[0], self._weight.shape[1])
        self.kept = kept_columns(self.shape) if in_bytes else None

    def forward(self, x: Tensor, low: Low | None = None) -> Tensor:
        return forward_product(x, self._weight, low, kept=self.kept)

    def backward(self, gradient: Tensor, low: Low | None = None) -> Tensor:
        return backward_product(gradient, self._weight, low, in_bytes=self.kept is not None)

    def row_squares(self) -> Tensor:
        return self._weight.float().square().sum(1)


def freeze(parts: Sequence[Tensor], dtype: torch.dtype, *, in_bytes: bool = False) -> FrozenWeight:
    """The matrices below one another, in what is fastest here for the type."""
    if dtype != torch.bfloat16:
        return Float32Frozen(parts)
    rows, columns = sum(len(part) for part in parts), parts[0].shape[1]
    return Bfloat16Frozen(parts, in_bytes=in_bytes) if suits_weight((rows, columns)) else LaidOutFrozen(parts)
