"""Multi-head attention (Vaswani et al. 2017, section 3.2), the naive way: the full matrix of scores.

Legend: B sequences, T tokens, S keys (here S = T), H query heads, G key-value heads (H a multiple of G,
Ainslie et al. 2023, GQA), D head width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from octavo.layers.normalization import RMSNorm
from octavo.layers.rope import rope_angles, rotate
from octavo.model_config import ModelConfig


def attention_mask(queries: Tensor, keys: Tensor, *, causal: bool, window: int = 0) -> Tensor:
    """bool[T, S]: may the query at position queries[t] see the key at position keys[s]?

    causal: only keys up to its own position.  window: only the `window` nearest of those, itself included
    (Beltagy et al. 2020, Longformer, section 3.1); 0 means all.
    """
    distance = queries[:, None] - keys[None, :]
    visible = torch.ones_like(distance, dtype=torch.bool)
    if causal:
        visible &= distance >= 0
    if window:
        visible &= distance < window
        if not causal:
            visible &= distance > -window
    return visible


def naive_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor, *, scale: float, softcap: float = 0.0
) -> Tensor:
    """softmax(cap(query key^T scale) + mask) value: [B, H, T, D], [B, G, S, D] twice -> [B, H, T, D].

    mask: bool, broadcastable to [B, H, T, S], True where a query may look; every query must see a key.
    softcap: scores become softcap * tanh(score / softcap) (Gemma 2 report, section 2); 0 for none.
    """
    queries_per_key = query.shape[1] // key.shape[1]
    key = key.repeat_interleave(queries_per_key, dim=1)
    value = value.repeat_interleave(queries_per_key, dim=1)
    scores = query @ key.transpose(-1, -2) * scale
    if softcap:
        scores = softcap * torch.tanh(scores / softcap)
    scores = scores.masked_fill(~mask, float("-inf"))
    return torch.softmax(scores, dim=-1) @ value


class Attention(nn.Module):
    """The attention of one layer: project, norm each head if asked, rotate, attend, project back."""

    def __init__(
        self, config: ModelConfig, layer: int, *, input_bias: bool = False, output_bias: bool = False
    ) -> None:
        super().__init__()
        self.config = config
        self.window = config.window(layer)
        self.rope = config.layer_rope(layer)
        hidden, width = config.hidden_size, config.head_width
        self.query = nn.Linear(hidden, config.heads * width, bias=input_bias)
        self.key = nn.Linear(hidden, config.key_value_heads * width, bias=input_bias)
        self.value = nn.Linear(hidden, config.key_value_heads * width, bias=input_bias)
        self.output = nn.Linear(config.heads * width, hidden, bias=output_bias)
        if config.query_key_norm:
            self.query_norm = RMSNorm(width, config.norm_epsilon, config.norm_offset)
            self.key_norm = RMSNorm(width, config.norm_epsilon, config.norm_offset)

    def forward(self, x: Tensor, positions: Tensor, present: Tensor | None = None) -> Tensor:
        """[B, T, hidden], positions int[T], present bool[B, T] (False: padding) -> [B, T, hidden]."""
        config = self.config
        query = self._heads(self.query(x), config.heads)
        key = self._heads(self.key(x), config.key_value_heads)
        value = self._heads(self.value(x), config.key_value_heads)
        if config.query_key_norm:
            query, key = self.query_norm(query), self.key_norm(key)
        if self.rope is not None:
            cosine, sine = rope_angles(self.rope, positions)
            query = rotate(query, cosine, sine, self.rope.style)
            key = rotate(key, cosine, sine, self.rope.style)
        mask = attention_mask(positions, positions, causal=config.causal, window=self.window)
        if present is not None:
            mask = mask & present[:, None, None, :]
        mixed = naive_attention(
            query, key, value, mask, scale=config.attention_scale, softcap=config.attention_softcap
        )
        output: Tensor = self.output(mixed.transpose(1, 2).flatten(2))
        return output

    def _heads(self, x: Tensor, heads: int) -> Tensor:
        """[B, T, heads * D] -> [B, heads, T, D]."""
        sequences, tokens, _ = x.shape
        return x.view(sequences, tokens, heads, self.config.head_width).transpose(1, 2)
