"""The loss of a language model: cross-entropy over the vocabulary, without ever holding all logits.

Legend: N tokens, C hidden size, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from octavo.data.packing import IGNORED
from octavo.layers import native_training
from octavo.layers.native_product import columns_product, rows_product

# Logits of one chunk: 4 M numbers are 16 MB, about what the caches share.
CHUNK_LOGITS = 1 << 22
# The same where no float32 copy of them is made: fewer passes over the gradient of a large vocabulary.
CHUNK_LOGITS_IN_PLACE = 1 << 26
# And where there is no such gradient.
CHUNK_ROWS = 512
# Up to this vocabulary the output layer is so small that it is computed in float32.
EXACT_VOCABULARY = 512


def plain_cross_entropy(
    hidden: Tensor, weight: Tensor, targets: Tensor, scale: float = 1.0, smoothing: float = 0.0
) -> Tensor:
    """scale * sum of -log p(target): hidden [N, C], weight [V, C], targets int[N] -> [].  The slow twin.

    smoothing: the part of a target's probability that is spread evenly over all V (Szegedy et al. 2016).
    """
    logits = hidden.float() @ weight.float().T
    return scale * functional.cross_entropy(
        logits, targets, ignore_index=IGNORED, reduction="sum", label_smoothing=smoothing
    )


def linear_cross_entropy(
    hidden: Tensor, weight: Tensor, targets: Tensor, scale: float = 1.0, smoothing: float = 0.0
) -> Tensor:
    """`plain_cross_entropy` in chunks of tokens, whose gradients are made in the forward pass.

    Positions without a target take no part at all.  (The idea: Wijmans et al. 2024, "Cut your losses".)
    """
    keep = targets != IGNORED
    if not bool(keep.all()):
        hidden, targets = hidden[keep], targets[keep]
    if not torch.is_grad_enabled():  # where a function cannot see it, and would make gradients for nobody
        hidden, weight = hidden.detach(), weight.detach()
    loss: Tensor = _LinearCrossEntropy.apply(hidden, weight, targets, scale, smoothing)  # type: ignore[no-untyped-call]
    return loss


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, scale: float, smoothing: float
    ) -> Tensor:
        tokens, vocabulary = hidden.shape[0], weight.shape[0]
        exact = torch.promote_types(weight.dtype, torch.float32)
        dtype = exact if vocabulary <= EXACT_VOCABULARY else hidden.dtype
        head = weight.to(dtype)
        need_hidden, need_weight = ctx.needs_input_grad[:2]
        hidden_gradient = torch.empty_like(hidden) if need_hidden else None
        weight_gradient = None
        if need_weight:
            weight_gradient = torch.empty_like(weight) if tokens else torch.zeros_like(weight)
        loss = torch.zeros((), dtype=exact)
        native = native_training.suits(hidden, 1) and dtype == torch.bfloat16 and not smoothing
        step = max(1, (CHUNK_LOGITS_IN_PLACE if native else CHUNK_LOGITS) // vocabulary)
        if native and not need_weight:
            step = CHUNK_ROWS
        for begin in range(0, tokens, step):
            rows = slice(begin, min(begin + step, tokens))
            part = hidden[rows].to(dtype)
            logits = rows_product(part, head)
            if native:
                wants_slopes = need_hidden or need_weight
                losses = native_training.cross_entropy(logits, targets[rows], scale, slopes=wants_slopes)
                loss += losses.sum() * scale
                _collect(logits, head, part, hidden_gradient, weight_gradient, rows)
                continue
            logits, wanted = logits.to(exact), targets[rows, None]
            normalizers = torch.logsumexp(logits, dim=-1, keepdim=True)
            chosen = logits.gather(1, wanted)
            if smoothing:
                chosen = torch.lerp(chosen, logits.mean(dim=-1, keepdim=True), smoothing)
            loss += (normalizers - chosen).sum() * scale
            if not (need_hidden or need_weight):
                continue
            slopes = logits.sub_(normalizers).exp_()  # softmax - one at the target
            if smoothing:
                slopes.sub_(smoothing / vocabulary)
            slopes.scatter_add_(1, wanted, torch.full_like(normalizers, smoothing - 1.0))
            slopes = slopes.mul_(scale).to(dtype)
            _collect(slopes, head, part, hidden_gradient, weight_gradient, rows)
        ctx.save_for_backward(hidden_gradient, weight_gradient)
        return loss

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        hidden_gradient, weight_gradient = ctx.saved_tensors
        upstream = gradients[0]
        if float(upstream) != 1.0:
            hidden_gradient = None if hidden_gradient is None else hidden_gradient * upstream
            weight_gradient = None if weight_gradient is None else weight_gradient * upstream
        return hidden_gradient, weight_gradient, None, None, None


def _collect(
    slopes: Tensor, head: Tensor, part: Tensor, hidden: Tensor | None, weight: Tensor | None, rows: slice
) -> None:
    """From gradients of the logits of some rows to those of the hidden states and of the output layer."""
    if hidden is not None:
        hidden[rows] = columns_product(slopes, head)
    if weight is not None:
        # What was there before the first rows is whatever memory held.
        if native_training.suits(slopes) and native_training.suits(part) and weight.dtype == torch.float32:
            native_training.weight_gradient(slopes, part, weight, add=rows.start > 0)
        elif rows.start:
            weight += slopes.T @ part
        else:
            weight.copy_(slopes.T @ part)
