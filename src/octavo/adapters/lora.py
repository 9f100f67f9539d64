"""LoRA: a frozen weight plus the product of two thin matrices, as a wrapper around linear layers.

    y = x W^T + s (x A^T) B^T + bias               Hu et al. 2021, equation 3; s = alpha / r
    s = alpha / sqrt(r)                            rsLoRA, Kalajdzievski 2023
    y = (m / ||W + s B A||) (x W^T + s ...)        DoRA, Liu et al. 2024, equation 5, the norm detached (4.3)

A and B are float32 masters, the products are in the dtype of the frozen weight.  Of the activations only the
input x and x A^T are kept: A and B need them, W does not.

Legend: N rows (tokens), I inputs, O outputs, r rank.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from octavo.adapters.frozen import FrozenWeight
from octavo.layers import native_training
from octavo.layers.bfloat16 import weight_gradient
from octavo.layers.native_product import columns_product, join_pairs, rows_product, suits_weight

# What ranks are filled up to: fewer are copied for each tile.
_RANK, _TILE_RANK = 16, 32


class LowRank(nn.Module):
    """The trained part of one linear layer: scale * up @ down.

    down: float32 [r, I], Kaiming-uniform as PEFT's; up: [O, r], zero, so that training begins at the base.
    magnitude: of DoRA, [O].
    """

    def __init__(
        self, inputs: int, outputs: int, rank: int, scale: float, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        self.scale = scale
        bound = math.sqrt(1.0 / inputs)  # of uniform numbers; Kaiming's with a = sqrt(5)
        self.down = nn.Parameter(torch.empty(rank, inputs).uniform_(-bound, bound, generator=generator))
        self.up = nn.Parameter(torch.zeros(outputs, rank))
        self.magnitude: nn.Parameter | None = None


@dataclass(frozen=True, eq=False)
class Place:
    """A pair and the outputs that it is added to."""

    pair: LowRank
    begin: int
    end: int


class AdaptedLinear(nn.Module):
    """Stands for one linear layer, or for several with the same input whose rows lie below one another.

    dropout: of the inputs of the pairs alone, while training.
    """

    def __init__(
        self, frozen: FrozenWeight, bias: Tensor | None, places: Sequence[Place], dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.frozen, self.places, self.dropout = frozen, list(places), dropout
        self.pairs = nn.ModuleList([place.pair for place in places])
        self.bias = None if bias is None else bias.to(frozen.dtype)
        self.squares: Tensor | None = None

    @property
    def weight(self) -> Tensor:
        """[O, I] without memory behind it; for its type and shape."""
        return torch.empty(self.frozen.shape, dtype=self.frozen.dtype, device="meta")

    def forward(self, x: Tensor) -> Tensor:
        """[..., I] -> [..., O]."""
        rows = x.reshape(-1, x.shape[-1]).to(self.frozen.dtype)
        thinned = functional.dropout(rows, self.dropout) if self.dropout and self.training else None
        parts = [matrix for place in self.places for matrix in (place.pair.down, place.pair.up)]
        y: Tensor = _Adapted.apply(rows, thinned, self, *parts)  # type: ignore[no-untyped-call]
        if any(place.pair.magnitude is not None for place in self.places):
            y = y * self._magnitudes().to(y.dtype)
        if self.bias is not None:
            y = y + self.bias
        return y.view(*x.shape[:-1], -1)

    def _magnitudes(self) -> Tensor:
        """[O]: m / ||W + s B A|| by rows; 1 where there is no magnitude."""
        factors = []
        reached = 0
        for place in self.places:
            factors.append(torch.ones(place.begin - reached))
            norms = self.row_norms(place)
            m = place.pair.magnitude
            factors.append(torch.ones_like(norms) if m is None else m / norms)
            reached = place.end
        return torch.cat([*factors, torch.ones(self.frozen.shape[0] - reached)])

    def blocks(self) -> Iterator[tuple[Place, slice]]:
        """Each place, and what its ranks are of those of all places together."""
        begin = 0
        for place in self.places:
            rank = len(place.pair.down)
            yield place, slice(begin, begin + rank)
            begin += rank

    @torch.no_grad()
    def joined(self) -> tuple[Tensor, Tensor]:
        """All pairs as one, in the frozen weight's dtype: (s A below one another [R, I], B [O, R]).

        Each B stands in its block of a matrix that is zero elsewhere.  Thin products cost what the passes
        over memory cost, and so there is one where there were three.  R is filled up with zeros for the
        kernels.
        """
        rank = sum(len(place.pair.down) for place in self.places)
        rank += -rank % (_TILE_RANK if native_training.in_tiles() else _RANK)
        down = torch.empty(rank, self.frozen.shape[1], dtype=self.frozen.dtype)
        up = torch.empty(self.frozen.shape[0], rank, dtype=self.frozen.dtype)
        if suits_weight(up.shape, up.dtype):
            join_pairs(
                [(each.pair.down, each.pair.up, each.begin, each.pair.scale) for each in self.places],
                down,
                up,
            )
            return down, up
        down.zero_()
        up.zero_()
        for place, columns in self.blocks():
            down[columns] = place.pair.down * place.pair.scale
            up[place.begin : place.end, columns] = place.pair.up
        return down, up

    @torch.no_grad()
    def row_norms(self, place: Place) -> Tensor:
        """||W + s B A|| of each row, without making that matrix.

        The square of a sum: ||w||^2 + 2 s b (A w) + s^2 b (A A^T) b^T.
        """
        if self.squares is None:
            self.squares = self.frozen.row_squares()
        pair, rows = place.pair, slice(place.begin, place.end)
        crossed = self.frozen.forward(pair.down.to(self.frozen.dtype))[:, rows].float().T  # [O, r]: W A^T
        mixed = pair.up @ (pair.down @ pair.down.T)
        squares = self.squares[rows] + pair.scale * (pair.up * (2 * crossed + pair.scale * mixed)).sum(1)
        return squares.clamp_(min=0).sqrt_()


class _Adapted(torch.autograd.Function):
    """x W^T + (x' s A^T) B^T of [N, I]; x' is x or what dropout left of it.

    parts: A and B of each place in turn, through which gradients go.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, thinned: Tensor | None, layer: AdaptedLinear, *parts: Tensor) -> Tensor:
        x = x.contiguous()
        ctx.layer, ctx.thinned = layer, thinned is not None
        if not parts:
            return layer.frozen.forward(x)
        seen = x if thinned is None else thinned
        down, up = layer.joined()
        inner = rows_product(seen, down)
        ctx.save_for_backward(seen, inner, down, up)
        return layer.frozen.forward(x, (inner, up))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        layer: AdaptedLinear = ctx.layer
        gradient = gradients[0].contiguous()
        if not layer.places:
            return layer.frozen.backward(gradient), None, None
        seen, inner, down, up = ctx.saved_tensors
        inner_gradient = columns_product(gradient, up)
        # [R, O]: the kernel likes the thin side first.
        up_gradient = weight_gradient(inner, gradient).float()
        down_gradient = weight_gradient(inner_gradient, seen).float()
        found: list[Tensor | None] = []
        for place, columns in layer.blocks():
            found.append(down_gradient[columns].mul_(place.pair.scale))
            found.append(up_gradient[columns, place.begin : place.end].T)
        for_x = for_thinned = None
        if ctx.needs_input_grad[0]:
            for_x = layer.frozen.backward(gradient, None if ctx.thinned else (inner_gradient, down))
        if ctx.thinned and ctx.needs_input_grad[1]:
            for_thinned = columns_product(inner_gradient, down)
        return for_x, for_thinned, None, *found
