"""Linear layers that compute in bfloat16, from float32 weights that an optimizer owns or from frozen ones.

Weights are rounded once for all products of a step, which a kernel of our own reads in both directions
(layers/native_product.py).  Elsewhere they are laid out too, in the blocks that oneDNN reads: a plain matrix
would be laid out anew in every call.  `float32_linear` is the slow twin (tests/layers/test_bfloat16.py).

Legend: N rows (tokens), I inputs, O outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional

from octavo.layers import native_training
from octavo.layers.native_product import backward_product, forward_product, suits_weight


class Bfloat16Weight:
    """A matrix [O, I] in bfloat16: plain, and where oneDNN multiplies laid out for x W^T.

    parts: float32 or bfloat16 matrices [O1, I], [O2, I], ... that lie below one another.
    """

    def __init__(self, parts: Sequence[Tensor]) -> None:
        self.parts = tuple(parts)
        self.rows = [len(part) for part in parts]
        self.plain = torch.empty(sum(self.rows), parts[0].shape[1], dtype=torch.bfloat16)
        self.by_kernel = suits_weight(self.plain.shape)
        self.refresh()

    @torch.no_grad()
    def refresh(self) -> None:
        """Read the parts again, after an optimizer has changed them."""
        for part, rows in zip(self.parts, torch.split(self.plain, self.rows), strict=True):
            if self.by_kernel and part.dtype == torch.float32 and part.is_contiguous():
                native_training.lower_into(part, rows)
            else:
                rows.copy_(part)
        # The transpose would have to be copied first, which costs what a laid out one saves.
        self.laid_out = self.plain if self.by_kernel else _laid_out(self.plain)

    def forward(self, rows: Tensor, biases: Sequence[Tensor] = ()) -> Tensor:
        """x W^T + bias: [N, I] -> [N, O]."""
        bias = torch.cat(tuple(biases)) if len(biases) > 1 else biases[0] if biases else None
        if self.by_kernel:
            return forward_product(rows, self.plain, bias=None if bias is None else bias.float().contiguous())
        return multiply(rows, self.laid_out, None if bias is None else bias.to(torch.bfloat16))

    def backward(self, gradient: Tensor) -> Tensor:
        """g W: [N, O] -> [N, I]."""
        return backward_product(gradient, self.plain) if self.by_kernel else gradient @ self.plain


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
        return weight.forward(rows, parameters[len(parameters) - biases :]).view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        weight, biases = ctx.weight, ctx.biases
        gradient = gradients[0].reshape(-1, gradients[0].shape[-1]).contiguous()
        for_x = None
        if ctx.needs_input_grad[0]:
            for_x = weight.backward(gradient).view(ctx.shape)
        wanted = ctx.needs_input_grad[3:]
        parts: list[Tensor | None] = [None] * len(wanted)
        count = len(wanted) - biases
        total = None
        if any(wanted[:count]):
            (rows,) = ctx.saved_tensors
            found, total = gradients_of_weight(gradient, rows, with_bias=any(wanted[count:]))
            parts[:count] = torch.split(found, weight.rows)
        if any(wanted[count:]):
            parts[count:] = torch.split(gradient.sum(0) if total is None else total, weight.rows)
        lowered = [
            part.to(dtype) if part is not None and asked else None
            for part, asked, dtype in zip(parts, wanted, ctx.dtypes, strict=True)
        ]
        return for_x, None, None, *lowered


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


def gradients_of_weight(gradient: Tensor, rows: Tensor, *, with_bias: bool) -> tuple[Tensor, Tensor | None]:
    """`weight_gradient`, and if asked the sums of gradient over its rows: [O, I], [O]."""
    if not with_bias:
        return weight_gradient(gradient, rows), None
    if native_training.suits(gradient) and native_training.suits(rows):
        total = torch.empty(gradient.shape[1])
        return native_training.weight_gradient(gradient, rows, bias=total), total
    return weight_gradient(gradient, rows), gradient.sum(0)


def _has_blocks(weight: Tensor) -> bool:
    names = ("_reorder_linear_weight", "_linear_pointwise")
    known = torch._C._has_mkldnn and all(hasattr(torch.ops.mkldnn, name) for name in names)
    return known and min(weight.shape) > 1 and torch.ops.mkldnn._is_mkldnn_bf16_supported()
