"""Weights that are only multiplied with: no gradients, no masters, and no copies that training does not read.

A frozen weight gives products of rows x [N, I] with W^T and of rows g [N, O] with W, in its dtype.

Legend: N rows (tokens), I inputs, O outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from octavo.layers.bfloat16 import Bfloat16Weight, multiply


class FrozenWeight(Protocol):
    """A matrix [O, I]."""

    dtype: torch.dtype
    shape: tuple[int, int]

    def forward(self, x: Tensor) -> Tensor:
        """x W^T: [N, I] -> [N, O]."""

    def backward(self, gradient: Tensor) -> Tensor:
        """g W: [N, O] -> [N, I]."""

    def row_squares(self) -> Tensor:
        """The sum of squares of each row, float32 [O]."""


class Float32Frozen:
    """The plain case, and the slow twin of the others."""

    dtype = torch.float32

    def __init__(self, parts: Sequence[Tensor]) -> None:
        self.weight = torch.cat([part.float() for part in parts])
        self.shape = (self.weight.shape[0], self.weight.shape[1])

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight.T

    def backward(self, gradient: Tensor) -> Tensor:
        return gradient @ self.weight

    def row_squares(self) -> Tensor:
        return self.weight.square().sum(1)


class Bfloat16Frozen:
    """In bfloat16, laid out once for x W^T and plain for g W; in no other form."""

    dtype = torch.bfloat16

    def __init__(self, parts: Sequence[Tensor]) -> None:
        self._squares = torch.cat([part.float().square().sum(1) for part in parts])
        self.shape = (len(self._squares), parts[0].shape[1])
        packed = Bfloat16Weight(parts)
        self._laid_out, self._plain = packed.laid_out, packed.plain

    def forward(self, x: Tensor) -> Tensor:
        return multiply(x, self._laid_out, None)

    def backward(self, gradient: Tensor) -> Tensor:
        return gradient @ self._plain

    def row_squares(self) -> Tensor:
        return self._squares
