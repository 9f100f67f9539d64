"""Multi-head attention (Vaswani et al. 2017, section 3.2), the naive way: the full matrix of scores.

Legend: B sequences, T tokens, S keys (here S = T), H query heads, G key-value heads (H a multiple of G,
Ainslie et al. 2023, GQA), D head width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from octavo.layers import native_training
from octavo.layers.fused import causal_attention, norm_and_rotate
from octavo.layers.normalization import RMSNorm
from octavo.layers.rope import looked_up_angles, rope_angles, rotate
from octavo.model_config import ModelConfig


def attention_mask(queries: Tensor, keys: Tensor, *, causal: bool, window: int = 0) -> Tensor:
    """bool[..., T, S]: may the query at position queries[..., t] see the key at position keys[..., s]?

    causal: only keys up to its own position.  window: only the `window` nearest of those, itself included
    (Beltagy et al. 2020, Longformer, section 3.1); 0 means all.
    """
    distance = queries[..., :, None] - keys[..., None, :]
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
    """The attention of one layer: project, norm each head if asked, rotate, attend, project back.

    fast: take the fused functions for training where the layer's config allows it.
    """

    def __init__(
        self,
        config: ModelConfig,
        layer: int,
        *,
        input_bias: bool = False,
        output_bias: bool = False,
        fast: bool = False,
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
        self.joined: nn.Module | None = None
        if config.query_key_norm:
            self.query_norm = RMSNorm(width, config.norm_epsilon, config.norm_offset)
            self.key_norm = RMSNorm(width, config.norm_epsilon, config.norm_offset)
        whole_rope = self.rope is None or (self.rope.style == "half" and self.rope.width == width)
        plain_mask = not self.window and not config.attention_softcap
        self.fast = fast and whole_rope and plain_mask

    def forward(
        self, x: Tensor, positions: Tensor, present: Tensor | None = None, documents: Tensor | None = None
    ) -> Tensor:
        """[B, T, hidden], positions int[T] or int[B, T] -> [B, T, hidden].

        present: bool[B, T], False for padding.  documents: int[B, T]; tokens with different numbers do not
        see each other.
        """
        mixed = None
        if self.fast and (present is None or not self.config.causal):
            native = self.joined is not None and self.config.causal and native_training.suits(x)
            if native and self.joined is not None and not self.config.head_width % 32:
                mixed = self._attend_native(self.joined(x), positions, documents)
            if mixed is None:
                mixed = self._attend_fast(x, positions, present, documents).transpose(1, 2).flatten(2)
        else:
            mixed = self._attend(x, positions, present, documents).transpose(1, 2).flatten(2)
        output: Tensor = self.output(mixed)
        return output

    def _attend_native(self, joined: Tensor, positions: Tensor, documents: Tensor | None) -> Tensor | None:
        """The same by kernels of our own: [B, T, (H + 2G) D] -> [B, T, H D]; None: not in order."""
        config = self.config
        first = None if documents is None else native_training.first_visible(documents)
        if documents is not None and first is None:
            return None
        heads = native_training.Heads(
            config.heads,
            config.key_value_heads,
            config.head_width,
            config.attention_scale,
            config.norm_epsilon,
        )
        angles = None if self.rope is None else looked_up_angles(self.rope, positions)
        weights = None
        if config.query_key_norm:
            weights = self.query_norm.scale_weight(), self.key_norm.scale_weight()
        return native_training.attention(joined, heads, first, angles, weights)

    def _attend(
        self, x: Tensor, positions: Tensor, present: Tensor | None, documents: Tensor | None
    ) -> Tensor:
        """[B, T, hidden] -> [B, H, T, D], as the papers say it."""
        config = self.config
        query, key, value = (part.transpose(1, 2) for part in self._projections(x))
        if config.query_key_norm:
            query, key = self.query_norm(query), self.key_norm(key)
        if self.rope is not None:
            cosine, sine = rope_angles(self.rope, positions)
            query = rotate(query, cosine, sine, self.rope.style)
            key = rotate(key, cosine, sine, self.rope.style)
        mask = attention_mask(positions, positions, causal=config.causal, window=self.window)
        if mask.dim() == 3:
            mask = mask[:, None]
        if present is not None:
            mask = mask & present[:, None, None, :]
        if documents is not None:
            mask = mask & (documents[:, None, :, None] == documents[:, None, None, :])
        return naive_attention(
            query, key, value, mask, scale=config.attention_scale, softcap=config.attention_softcap
        )

    def _attend_fast(
        self, x: Tensor, positions: Tensor, present: Tensor | None, documents: Tensor | None
    ) -> Tensor:
        """The same by fused functions; positions count up by one within a document."""
        config = self.config
        query, key, value = self._projections(x)
        cosine = sine = None
        if self.rope is not None:
            cosine, sine = rope_angles(self.rope, positions)
        normed = config.query_key_norm
        query = norm_and_rotate(
            query, self.query_norm if normed else None, cosine, sine, config.attention_scale
        )
        key = norm_and_rotate(key, self.key_norm if normed else None, cosine, sine)
        value = value.transpose(1, 2)
        queries_per_key = config.heads // config.key_value_heads
        if queries_per_key > 1:
            key = key.repeat_interleave(queries_per_key, dim=1)
            value = value.repeat_interleave(queries_per_key, dim=1)
        if config.causal:
            return causal_attention(query, key, value, documents)
        mask = None if present is None else present[:, None, None, :]
        if documents is not None:
            same = documents[:, None, :, None] == documents[:, None, None, :]
            mask = same if mask is None else same & mask
        return functional.scaled_dot_product_attention(query, key, value, mask, scale=1.0)

    def _projections(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Query [B, T, H, D], key and value [B, T, G, D]."""
        config = self.config
        if self.joined is not None:
            heads = [config.heads, config.key_value_heads, config.key_value_heads]
            query, key, value = self.joined(x).unflatten(2, (-1, config.head_width)).split(heads, dim=2)
        else:
            query, key, value = (
                layer(x).unflatten(2, (-1, config.head_width)) for layer in self.layers_of_one_input()
            )
        return query, key, value

    def layers_of_one_input(self) -> list[nn.Linear]:
        """Those that one product may compute together."""
        return [self.query, self.key, self.value]
