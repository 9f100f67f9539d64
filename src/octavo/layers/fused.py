"""Fast paths for training: the same functions as their slow twins, with fewer passes over memory.

`causal_attention` is `attention.naive_attention` under a causal mask, `fused_norm` is `normalization`, and
`norm_and_rotate` is the norm of each head followed by `rope.rotate`.  tests/layers/test_fused.py holds each
equal to its twin, forward and backward.

Legend: B sequences, T tokens, H heads, D head width, N = B * H, C hidden size.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from octavo.layers import native_training
from octavo.layers.normalization import LayerNorm, RMSNorm

# Queries are taken in blocks of this many: keys after a block are not even multiplied.
QUERY_BLOCK = 128
# Longer rows would keep too many probabilities for the backward pass; PyTorch's flash attention keeps none.
LONGEST_BLOCKED = 1024


def causal_attention(query: Tensor, key: Tensor, value: Tensor, documents: Tensor | None) -> Tensor:
    """softmax(query key^T + mask) value, all [B, H, T, D]; the query is multiplied by its scale already.

    documents: int[B, T], or None; a query sees keys up to its own position with the same number.
    """
    tokens = query.shape[2]
    bias = None if documents is None else document_bias(documents, query.dtype)
    if tokens > LONGEST_BLOCKED:
        if bias is None:
            return functional.scaled_dot_product_attention(query, key, value, is_causal=True, scale=1.0)
        bias = bias + _triangle(tokens, bias)
        return functional.scaled_dot_product_attention(query, key, value, bias[:, None], scale=1.0)
    mixed: Tensor = _BlockedAttention.apply(query.flatten(0, 1), key.flatten(0, 1), value.flatten(0, 1), bias)  # type: ignore[no-untyped-call]
    return mixed.view_as(query)


def document_bias(documents: Tensor, dtype: torch.dtype) -> Tensor:
    """[B, T, T]: 0 where query and key are of one document, else minus infinity."""
    same = documents[:, :, None] == documents[:, None, :]
    return torch.zeros((), dtype=dtype).where(same, torch.tensor(float("-inf"), dtype=dtype))


def _triangle(tokens: int, like: Tensor) -> Tensor:
    """[T, T]: minus infinity above the diagonal, else 0."""
    return torch.full((tokens, tokens), float("-inf"), dtype=like.dtype).triu_(1)


class _BlockedAttention(torch.autograd.Function):
    """query, key, value [N, T, D], bias [B, T, T] or None -> [N, T, D].

    On a processor the two matrix products of a block of queries are what the fastest library calls do best,
    and the probabilities of rows of up to LONGEST_BLOCKED tokens fit into memory: keeping them saves the
    recomputation that flash attention (Dao et al. 2022) does in its backward pass.
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None) -> Tensor:
        tokens = query.shape[1]
        triangle = _triangle(min(QUERY_BLOCK, tokens), query)
        probabilities, outputs = [], []
        for begin in range(0, tokens, QUERY_BLOCK):
            end = min(begin + QUERY_BLOCK, tokens)
            scores = torch.bmm(query[:, begin:end], key[:, :end].transpose(1, 2))
            scores[:, :, begin:] += triangle[: end - begin, : end - begin]
            if bias is not None:
                rows = scores.view(bias.shape[0], -1, *scores.shape[1:])
                rows += bias[:, None, begin:end, :end]
            weights = torch.softmax(scores, dim=-1)
            probabilities.append(weights)
            outputs.append(torch.bmm(weights, value[:, :end]))
        ctx.save_for_backward(query, key, value, *probabilities)
        return torch.cat(outputs, dim=1) if len(outputs) > 1 else outputs[0]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        query, key, value, *probabilities = ctx.saved_tensors
        query_parts, key_gradient, value_gradient = [], torch.zeros_like(key), torch.zeros_like(value)
        for number, weights in enumerate(probabilities):
            begin, end = number * QUERY_BLOCK, number * QUERY_BLOCK + weights.shape[1]
            part = gradient[:, begin:end]
            value_gradient[:, :end].baddbmm_(weights.transpose(1, 2), part)
            weights_gradient = torch.bmm(part, value[:, :end].transpose(1, 2))
            scores_gradient = torch._softmax_backward_data(weights_gradient, weights, -1, weights.dtype)
            query_parts.append(torch.bmm(scores_gradient, key[:, :end]))
            key_gradient[:, :end].baddbmm_(scores_gradient.transpose(1, 2), query[:, begin:end])
        query_gradient = torch.cat(query_parts, dim=1) if len(query_parts) > 1 else query_parts[0]
        return query_gradient, key_gradient, value_gradient, None


def fused_norm(norm: LayerNorm | RMSNorm, x: Tensor) -> Tensor:
    """The norm of x [..., C], in x's type; its weights stay in float32."""
    return fused_norm_beside(norm, x)[1]


def fused_norm_beside(norm: LayerNorm | RMSNorm, x: Tensor) -> tuple[Tensor, Tensor]:
    """(x, `fused_norm` of x), for x + f(norm(x)): their gradients are added in one pass."""
    if native_training.suits(x):
        centered = isinstance(norm, LayerNorm)
        weight = norm.weight if isinstance(norm, LayerNorm) else norm.scale_weight()
        bias = norm.bias if isinstance(norm, LayerNorm) else None
        return native_training.norm_beside(x, weight, bias, norm.epsilon, centered=centered)
    if isinstance(norm, LayerNorm):
        return x, functional.layer_norm(x, (x.shape[-1],), norm.weight, norm.bias, norm.epsilon)
    normed: Tensor = _RMSNorm.apply(x, norm.scale_weight(), norm.epsilon)  # type: ignore[no-untyped-call]
    return x, normed


class _RMSNorm(torch.autograd.Function):
    """RMSNorm of x [..., C] by weight [C].  PyTorch has no backward kernel of its own for processors."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        width = x.shape[-1]
        exact = torch.promote_types(x.dtype, torch.float32)
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=exact)
        inverse = norm.square_().div_(width).add_(epsilon).rsqrt_()
        ctx.save_for_backward(x, weight, inverse)
        return torch.mul(x, inverse, out=torch.empty_like(x)).mul_(weight)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """A layer norm's backward with a mean of 0, and what it takes off for the mean added again."""
        x, weight, inverse = ctx.saved_tensors
        gradient, width = gradients[0].contiguous(), x.shape[-1]
        mean = torch.zeros_like(inverse)
        bias = torch.zeros_like(weight)
        x_gradient, weight_gradient, _ = torch.ops.aten.native_layer_norm_backward(
            gradient, x, [width], mean, inverse, weight, bias, [True, True, False]
        )
        sums = (gradient.flatten(0, -2) @ weight.to(gradient.dtype)).view_as(inverse)
        return x_gradient.add_((sums * inverse).div_(width).to(x.dtype)), weight_gradient, None


def norm_and_rotate(
    x: Tensor, norm: RMSNorm | None, cosine: Tensor | None, sine: Tensor | None, scale: float = 1.0
) -> Tensor:
    """[B, T, H, D] -> [B, H, T, D]: heads normed (if there is a norm), rotated (if there are angles), scaled.

    cosine, sine: [T, D/2] or [B, T, D/2], of rope style "half".
    """
    if norm is not None:
        x = _RMSNorm.apply(x, norm.scale_weight(), norm.epsilon)  # type: ignore[no-untyped-call]
    if cosine is None or sine is None:
        x = x.transpose(1, 2)
        return x * scale if scale != 1.0 else x.contiguous()
    straight = torch.cat((cosine, cosine), dim=-1).mul_(scale).to(x.dtype)
    crossed = torch.cat((-sine, sine), dim=-1).mul_(scale).to(x.dtype)
    if straight.dim() == 2:
        straight, crossed = straight[None], crossed[None]
    turned: Tensor = _Rotate.apply(x, straight[:, None], crossed[:, None])  # type: ignore[no-untyped-call]
    return turned


class _Rotate(torch.autograd.Function):
    """x [B, T, H, D], straight and crossed [1 or B, 1, T, D] -> x straight + swap(x) crossed, [B, H, T, D].

    swap exchanges the halves of a head.  As a product with a permutation it is one pass over whole rows; the
    slices of half a head are too short for vector instructions.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, straight: Tensor, crossed: Tensor) -> Tensor:
        ctx.save_for_backward(straight, crossed)
        swapped = (x @ _swap(x)).transpose(1, 2)
        x = x.transpose(1, 2)
        turned = torch.mul(x, straight, out=torch.empty(x.shape, dtype=x.dtype))
        return turned.addcmul_(swapped, crossed)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        gradient = gradients[0].contiguous()
        straight, crossed = ctx.saved_tensors
        back = torch.empty(gradient.transpose(1, 2).shape, dtype=gradient.dtype)
        torch.mul(gradient, straight, out=back.transpose(1, 2))
        back.transpose(1, 2).add_((gradient * crossed) @ _swap(gradient))
        return back, None, None


def _swap(like: Tensor) -> Tensor:
    """[D, D]: the permutation that exchanges the halves of a head."""
    return torch.eye(like.shape[-1], dtype=like.dtype).roll(like.shape[-1] // 2, 0)
