"""Perplexity: exp of the mean negative log-likelihood of a text's tokens.

The text is cut into windows of `context` tokens that do not overlap; a model sees only the window.  Which
tokens count is a convention, and figures of different conventions do not compare:

- ours (`scored_from=1`): every token but the first of a window, so `context - 1` in each; a last, shorter
  window counts too if it has two tokens.
- llama.cpp's `perplexity` (`scored_from=context // 2 + 1`): only the second half of each window (with at
  least half a window of context before them, so the figure is lower), and full windows alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from octavo.evaluation.agreement import log_normalizers

ScoreFunction = Callable[[NDArray[np.int32]], NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Perplexity:
    """perplexity = exp(nats_per_token); `tokens` is how many were counted."""

    perplexity: float
    tokens: int
    nats_per_token: float


def perplexity(
    score_function: ScoreFunction,
    token_ids: Sequence[int] | NDArray[np.int32],
    context: int = 512,
    *,
    beginning_token: int | None = None,
    scored_from: int = 1,
) -> Perplexity:
    """How well a model predicts a text.

    score_function: ids int32[T], T <= context -> logits float32[T, V]; row t is about token t + 1.
    token_ids: the text's tokens without special tokens.
    beginning_token: takes the place of the first token of every window (as in llama.cpp), for models that
        expect one; None for those that do not.
    scored_from: index in its window of the first token that counts, from 1.
    Raises ValueError where no token would count.
    """
    ids = np.asarray(token_ids, dtype=np.int32)
    if context < 2 or not 1 <= scored_from < context:
        raise ValueError(f"context {context} and scored_from {scored_from} leave no token to count")
    total, counted = 0.0, 0
    for start in range(0, len(ids), context):
        window = ids[start : start + context].copy()
        if len(window) <= scored_from or (len(window) < context and scored_from > 1):
            break
        if beginning_token is not None:
            window[0] = beginning_token
        losses = token_losses(score_function(window)[:-1], window[1:])[scored_from - 1 :]
        total += math.fsum(losses)
        counted += len(losses)
    if not counted:
        raise ValueError(f"a text of {len(ids)} tokens has none to count: give a longer text or less context")
    nats = total / counted
    return Perplexity(math.exp(nats), counted, nats)


def token_losses(logits: NDArray[np.float32], targets: NDArray[np.int32]) -> NDArray[np.float64]:
    """-log softmax(logits)[target] in nats: [T, V], [T] -> float64[T]."""
    chosen = logits[np.arange(len(targets)), targets].astype(np.float64)
    return log_normalizers(logits) - chosen
