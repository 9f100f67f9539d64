"""Linear layers that compute in bfloat16, from float32 weights that an optimizer owns or from frozen ones.

Weights are laid out once for all products of a step, in the blocks that oneDNN reads: a plain matrix would be
laid out anew in every call.  `float32_linear` is the slow twin (tests/layers/test_bfloat16.py).

Legend: N rows (tokens), I inputs, O outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional

from octavo.layers import native_training


class Bfloat16Weight:
    """A matrix [O, I] in bfloat16, plain for g W and laid out for x W^T.

    parts: float32 or bfloat16 matrices [O1, I], [O2, I], ... that lie below one another.
    """

    def __init__(self, parts: Sequence[Tensor]) -> None:
        self.parts = tuple(parts)
        self.rows = [len(part) for part in parts]
        self.refresh()

    @torch.no_grad()
    def refresh(self) -> None:
        """Read the parts again, after an optimizer has changed them."""
        lowered = [part.detach().to(torch.bfloat16) for part in self.parts]
        plain = torch.cat(lowered) if len(lowered) > 1 else lowered[0]
        # The transpose would have to be copied first, which costs what a laid out one saves.
        self.plain, self.laid_out = plain, _laid_out(plain)


def bfloat16_linear(x: Tensor, weight: Bfloat16Weight, biases: Sequence[Tensor] = ()) -> Tensor:
    """x W^T + bias: bfloat16 [..., I] -> bfloat16 [..., O], summed in float32.

    biases: none, or [O1], [O2], ... beside the parts of the weight.  Gradients go to the parts and biases
    that want them, in their own type; frozen ones cost nothing.
    """
    product: Tensor = _Product.apply(x, weight, len(biases), *weight.parts, *biases)  # type: ignore[no-untyped-call]
    return product


def float32_linear(x: Tensor, weight: Bfloat16Weight, biases: Sequence[Tensor] = ()) -> Tensor:
    """The slow twin: the same values multiplied in float32."""
    matrix = torch.cat([part.to(torch.bfloat16).float() for part in weight.parts])
    bias = torch.cat([bias.to(torch.bfloat16).float() for bias in biases]) if biases else None
    return functional.linear(x.float(), matrix, bias).to(torch.bfloat16)


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Bfloat16Weight, biases: int, *parameters: Tensor) -> Tensor:
        rows = x.reshape(-1, x.shape[-1]).contiguous()
        ctx.weight, ctx.biases, ctx.shape = weight, biases, x.shape
        ctx.dtypes = [parameter.dtype for parameter in parameters]
        # Rows are kept only for gradients of weights.
        ctx.save_for_backward(rows if any(ctx.needs_input_grad[3:]) else None)
        bias = None
        if biases:
            lowered = [bias.to(torch.bfloat16) for bias in parameters[-biases:]]
            bias = torch.cat(lowered) if len(lowered) > 1 else lowered[0]
        return multiply(rows, weight.laid_out, bias).view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        weight, biases = ctx.weight, ctx.biases
        gradient = gradients[0].reshape(-1, gradients[0].shape[-1]).contiguous()
        for_x = None
        if ctx.needs_input_grad[0]:
            for_x = (gradient @ weight.plain).view(ctx.shape)
        wanted = ctx.needs_input_grad[3:]
        parts: list[Tensor | None] = [None] * len(wanted)
        count = len(wanted) - biases
        if any(wanted[:count]):
            (rows,) = ctx.saved_tensors
            parts[:count] = torch.split(weight_gradient(gradient, rows), weight.rows)
        if any(wanted[count:]):
            parts[count:] = torch.split(gradient.sum(0), weight.rows)
        found = [
            part.to(dtype) if part is not None and asked else None
            for part, asked, dtype in zip(parts, wanted, ctx.dtypes, strict=True)
        ]
        return for_x, None, None, *found


class Bfloat16Linear(nn.Module):
    """`bfloat16_linear` as a layer in place of one nn.Linear, or of several with the same input.

    The parameters stay where they are, and get the gradients.  `refresh` after they have changed.
    """

    def __init__(self, *linears: nn.Linear) -> None:
        super().__init__()
        self.packed = Bfloat16Weight([linear.weight for linear in linears])
        self.biases = [linear.bias for linear in linears if linear.bias is not None]
        if len(self.biases) not in (0, len(linears)):
            raise ValueError("all of the layers have a bias, or none")

    @property
    def weight(self) -> Tensor:
        """[O, I] in bfloat16, as of the last `refresh`."""
        return self.packed.plain

    def refresh(self) -> None:
        """Read the parameters again."""
        self.packed.refresh()

    def forward(self, x: Tensor) -> Tensor:
        """[..., I] -> [..., O1 + O2 + ...]."""
        return bfloat16_linear(x, self.packed, self.biases)


@runtime_checkable
class Joins(Protocol):
    """A module some of whose linear layers share an input: `joined` may stand for all of them."""

    joined: nn.Module | None

    def layers_of_one_input(self) -> list[nn.Linear]: ...


def _laid_out(weight: Tensor) -> Tensor:
    """A matrix in oneDNN's blocks; as it is where this PyTorch does without."""
    if not _has_blocks(weight):
        return weight
    laid_out: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight)
    return laid_out


def multiply(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """rows weight^T + bias: [N, I] and a laid out [O, I]."""
    if not weight.is_mkldnn:
        return functional.linear(rows, weight, bias)
    product: Tensor = torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "none", [], "")
    return product


def weight_gradient(gradient: Tensor, rows: Tensor) -> Tensor:
    """gradient^T rows: [N, O], [N, I] -> [O, I], in float32 where a kernel of our own takes them."""
    if native_training.suits(gradient) and native_training.suits(rows):
        return native_training.weight_gradient(gradient, rows)
    return gradient.T @ rows


def _has_blocks(weight: Tensor) -> bool:
    names = ("_reorder_linear_weight", "_linear_pointwise")
    known = torch._C._has_mkldnn and all(hasattr(torch.ops.mkldnn, name) for name in names)
    return known and min(weight.shape) > 1 and torch.ops.mkldnn._is_mkldnn_bf16_supported()
