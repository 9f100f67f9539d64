"""Training's own kernels (native/ops/training.h): attention, norms and activations in bfloat16.

They run where the processor has bfloat16 products (`available`), on the threads that PyTorch computes with.
Each is held equal to its slow twin, in float32 and PyTorch, by tests/layers/test_native_training.py.

Legend: B sequences, T tokens, H query heads, G key-value heads, D head width, N rows, C width of a row.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from octavo import _native

_KINDS = {"silu": 0, "gelu": 1, "gelu_tanh": 2}


@functools.cache
def available() -> bool:
    """Whether this processor has the kernels."""
    return _native.trains_in_bfloat16()


@functools.cache
def in_tiles() -> bool:
    """Whether they multiply in tiles (AMX), many times faster than in float32."""
    return _native.training_kernels() == "amx"


def suits(x: Tensor, multiple: int = 16) -> bool:
    """Whether the kernels take rows of x: bfloat16, of a width that is a multiple."""
    return x.dtype == torch.bfloat16 and x.device.type == "cpu" and not x.shape[-1] % multiple and available()


@functools.cache
def _openmp() -> int:
    """The address of GOMP_parallel in the runtime that PyTorch uses; 0 if there is none.

    A second team of threads would fight with PyTorch's for the cores.
    """
    try:
        lines = Path("/proc/self/maps").read_text().splitlines()
    except OSError:
        return 0
    paths = {line.split()[-1] for line in lines if ".so" in line and "omp" in line.rsplit("/", 1)[-1]}
    for path in sorted(paths, key=lambda path: "torch" not in path):
        function = getattr(ctypes.CDLL(path), "GOMP_parallel", None)
        if function is not None:
            return ctypes.cast(function, ctypes.c_void_p).value or 0
    return 0


def _team() -> tuple[int, int]:
    return _openmp(), torch.get_num_threads()


def openmp_team() -> tuple[int, int]:
    """The threads that PyTorch computes with: the address of GOMP_parallel, and how many."""
    return _team()


def _contiguous(x: Tensor, dtype: torch.dtype) -> Tensor:
    return x.to(dtype).contiguous()


# Activations


def activation(kind: str, x: Tensor, *, gated: bool) -> Tensor:
    """[..., C] -> activation(x), or [..., 2C] -> activation(gate) * up where rows of x are [gate | up]."""
    result: Tensor = _Activation.apply(x, _KINDS[kind], gated)  # type: ignore[no-untyped-call]
    return result


class _Activation(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, kind: int, gated: bool) -> Tensor:
        x = x.contiguous()
        width = x.shape[-1] // (2 if gated else 1)
        out = x.new_empty((*x.shape[:-1], width))
        ctx.save_for_backward(x)
        ctx.task = kind, gated, out.numel() // width, width
        _native.train_activation(*_team(), kind, gated, x.data_ptr(), 0, out.data_ptr(), *ctx.task[2:])
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (x,) = ctx.saved_tensors
        gradient, found = gradients[0].contiguous(), torch.empty_like(x)
        kind, gated, rows, width = ctx.task
        _native.train_activation(
            *_team(), kind, gated, x.data_ptr(), gradient.data_ptr(), found.data_ptr(), rows, width
        )
        return found, None, None


# Norms


def norm(x: Tensor, weight: Tensor, bias: Tensor | None, epsilon: float, *, centered: bool) -> Tensor:
    """LayerNorm of x [..., C] if centered, else RMSNorm; weight and bias float32 [C]."""
    return norm_beside(x, weight, bias, epsilon, centered=centered)[1]


def norm_beside(
    x: Tensor, weight: Tensor, bias: Tensor | None, epsilon: float, *, centered: bool
) -> tuple[Tensor, Tensor]:
    """(x, its norm), for x + f(norm(x)): the gradients of both ways are added in one pass."""
    both: tuple[Tensor, Tensor] = _Norm.apply(x, weight, bias, epsilon, centered)  # type: ignore[no-untyped-call]
    return both


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, epsilon: float, centered: bool
    ) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        rows, weight = x.contiguous(), _contiguous(weight, torch.float32)
        bias = None if bias is None else _contiguous(bias, torch.float32)
        out = torch.empty_like(rows)
        ctx.save_for_backward(rows, weight, bias)
        ctx.task = epsilon, centered, x.numel() // x.shape[-1], x.shape[-1]
        address = 0 if bias is None else bias.data_ptr()
        _native.train_norm(
            *_team(), rows.data_ptr(), weight.data_ptr(), address, *ctx.task, out.data_ptr(), 0, 0, 0, 0
        )
        return x, out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        around, through = gradients
        if through is None:
            return around, None, None, None, None
        x, weight, bias = ctx.saved_tensors
        through, found = through.contiguous(), torch.empty_like(x)
        around = None if around is None else around.contiguous()
        sums = weight.new_empty((1 if bias is None else 2, _native.TRAINING_PIECES, x.shape[-1]))
        _native.train_norm(
            *_team(), x.data_ptr(), weight.data_ptr(), 0 if bias is None else bias.data_ptr(), *ctx.task,
            found.data_ptr(), through.data_ptr(), sums[0].data_ptr(),
            0 if bias is None else sums[1].data_ptr(), 0 if around is None else around.data_ptr(),
        )  # fmt: skip
        total = sums.sum(1)
        return found, total[0], None if bias is None else total[1], None, None


# Attention


@dataclass(frozen=True, slots=True)
class Heads:
    """H query heads, G key-value heads, D head width; epsilon of the norm of heads."""

    queries: int
    keys: int
    width: int
    scale: float
    epsilon: float = 0.0


def first_visible(documents: Tensor) -> Tensor | None:
    """int[B, T] -> int32[B, T]: the first token of each token's document.

    None where the numbers fall somewhere: the same number might then come again further on.
    """
    steps = documents.diff(dim=1)
    if bool((steps < 0).any()):
        return None
    starts = torch.zeros_like(documents)
    starts[:, 1:] = torch.where(steps > 0, torch.arange(1, documents.shape[1]), 0)
    return starts.cummax(dim=1).values.to(torch.int32)


def attention(
    joined: Tensor,
    heads: Heads,
    first: Tensor | None = None,
    angles: tuple[Tensor, Tensor] | None = None,
    weights: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """Causal attention [B, T, (H + 2G) D] -> [B, T, H D]; a row of joined is [queries | keys | values].

    first: int32[B, T], rising: the first key that a query sees; None: the row's first.  angles: cosine and
    sine, each [T, D/2] or [B, T, D/2], that turn queries and keys (rope style "half").  weights: float32[D]
    of the RMSNorm of each query head and each key head, which comes first.
    """
    if first is None:
        first = torch.zeros(joined.shape[:2], dtype=torch.int32)
    cosine, sine = (None, None) if angles is None else (_contiguous(part, torch.float32) for part in angles)
    of_query, of_key = (None, None) if weights is None else weights
    mixed: Tensor = _Attention.apply(joined, heads, first, cosine, sine, of_query, of_key)  # type: ignore[no-untyped-call]
    return mixed


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, joined: Tensor, heads: Heads, first: Tensor, cosine: Tensor | None, sine: Tensor | None,
        *weights: Tensor | None,
    ) -> Tensor:  # fmt: skip
        joined = joined.contiguous()
        ctx.heads, ctx.prepared = heads, cosine is not None or weights[0] is not None
        query, key, value = _parts(joined, heads)
        if ctx.prepared:
            query, key = _prepare((query, key), heads, cosine, sine, weights)
        out = joined.new_empty((*joined.shape[:2], heads.queries * heads.width))
        sums = torch.empty((len(joined), heads.queries, joined.shape[1]))
        saved = (query, key) if ctx.prepared else (None, None)
        ctx.save_for_backward(joined, out, sums, first, cosine, sine, *weights, *saved)
        _native.train_attention(*_team(), _fields(heads, (query, key, value), out, sums, first, None, None))
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        joined, out, sums, first, cosine, sine, *weights, query, key = ctx.saved_tensors
        heads: Heads = ctx.heads
        found = torch.empty_like(joined)
        parts = _parts(joined, heads)
        into = list(_parts(found, heads))
        if ctx.prepared:
            into[:2] = torch.empty_like(query), torch.empty_like(key)
        else:
            query, key = parts[:2]
        gradient = gradients[0].contiguous()
        fields = _fields(heads, (query, key, parts[2]), out, sums, first, gradient, into)
        _native.train_attention_backward(*_team(), fields)
        totals: list[Tensor | None] = [None, None]
        if ctx.prepared:
            targets = _parts(found, heads)
            for place in range(2):
                totals[place] = _turn_heads(
                    parts[place], heads, cosine, sine, weights[place], targets[place], into[place]
                )
        return found, None, None, None, None, *totals


def _parts(joined: Tensor, heads: Heads) -> tuple[Tensor, ...]:
    """[B, T, (H + 2G) D] -> views of the queries, keys and values."""
    sizes = [heads.queries * heads.width, heads.keys * heads.width, heads.keys * heads.width]
    return torch.split(joined, sizes, dim=-1)


def _prepare(
    parts: Sequence[Tensor], heads: Heads, cosine: Tensor | None, sine: Tensor | None,
    weights: Sequence[Tensor | None],
) -> list[Tensor]:  # fmt: skip
    """Queries and keys, normed and turned, each contiguous."""
    made = []
    for part, weight in zip(parts, weights, strict=True):
        out = part.new_empty(part.shape)
        _turn_heads(part, heads, cosine, sine, weight, out, None)
        made.append(out)
    return made


def _turn_heads(
    part: Tensor, heads: Heads, cosine: Tensor | None, sine: Tensor | None, weight: Tensor | None,
    out: Tensor, gradient: Tensor | None,
) -> Tensor | None:  # fmt: skip
    """Into out: heads normed and turned; with a gradient, the gradient of part; that of weight is given."""
    sums = part.new_empty((_native.TRAINING_PIECES, heads.width), dtype=torch.float32)
    weight = None if weight is None else _contiguous(weight.detach(), torch.float32)
    angle_rows = 1 if cosine is None else cosine.numel() // cosine.shape[-1]
    _native.train_heads(
        *_team(), part.data_ptr(), part.stride(1), 0 if weight is None else weight.data_ptr(), heads.epsilon,
        0 if cosine is None else cosine.data_ptr(), 0 if sine is None else sine.data_ptr(), angle_rows,
        part.shape[0] * part.shape[1], part.shape[2] // heads.width, heads.width,
        out.data_ptr(), out.stride(1), 0 if gradient is None else gradient.data_ptr(),
        0 if gradient is None else gradient.stride(1), sums.data_ptr(),
    )  # fmt: skip
    return None if weight is None or gradient is None else sums.sum(0)


def _fields(
    heads: Heads, inputs: Sequence[Tensor], out: Tensor, sums: Tensor, first: Tensor, gradient: Tensor | None,
    into: Sequence[Tensor] | None,
) -> tuple[int | float, ...]:  # fmt: skip
    """TrainingAttention of native/ops/training.h, in the order of its fields."""
    sequences, tokens = out.shape[:2]
    shape = (sequences, tokens, heads.queries, heads.keys, heads.width)
    after: tuple[int, ...] = (0,) * 7
    if gradient is not None and into is not None:
        after = (gradient.data_ptr(), *(part.data_ptr() for part in into), *(part.stride(1) for part in into))
    return (
        *(part.data_ptr() for part in inputs), *(part.stride(1) for part in inputs), out.data_ptr(),
        sums.data_ptr(), first.data_ptr(), *shape, heads.scale, *after,
    )  # fmt: skip


# Loss


def cross_entropy(
    logits: Tensor, targets: Tensor, scale: float, smoothing: float = 0.0, *, slopes: bool = True
) -> Tensor:
    """Losses float32[N] of logits bfloat16[N, V]; in their place comes the gradient of scale * the sum.

    targets: int64[N], each below V.  smoothing: the part of a target's probability that all V share.
    slopes: False leaves the logits as they are.
    """
    if logits.dtype != torch.bfloat16 or not logits.is_contiguous() or logits.dim() != 2:
        raise ValueError("logits must be a contiguous bfloat16 matrix")
    targets, losses = _contiguous(targets, torch.int64), torch.empty(len(logits))
    addresses = logits.data_ptr(), targets.data_ptr(), losses.data_ptr()
    if not _native.train_cross_entropy(*_team(), *addresses, scale, smoothing, slopes, *logits.shape):
        raise IndexError(f"a target is outside the vocabulary of {logits.shape[1]}")
    return losses


# Gradients of weights


def weight_gradient(
    gradient: Tensor,
    x: Tensor,
    into: Tensor | None = None,
    *,
    add: bool = False,
    bias: Tensor | None = None,
) -> Tensor:
    """gradient^T x in float32: bfloat16 [N, O] and [N, I] -> [O, I], multiples of 16.

    into: contiguous float32 [O, I] for the product, which is added to what is there if `add`.
    bias: contiguous float32 [O] for the sums of gradient over its rows.
    """
    found = torch.empty((gradient.shape[1], x.shape[1])) if into is None else into
    gradient, x = (part if part.stride(1) == 1 else part.contiguous() for part in (gradient, x))
    _native.train_weight_gradient(
        *_team(), gradient.data_ptr(), x.data_ptr(), gradient.stride(0), x.stride(0), found.data_ptr(),
        len(x), *found.shape, add, 0 if bias is None else bias.data_ptr(),
    )  # fmt: skip
    return found


def lower_into(values: Tensor, out: Tensor) -> None:
    """Contiguous float32 numbers, rounded to as many contiguous ones in bfloat16."""
    _native.train_lower(*_team(), values.data_ptr(), out.data_ptr(), values.numel())
