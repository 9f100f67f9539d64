"""The encoder: BERT (Devlin et al. 2018), and its sentence embeddings (Reimers and Gurevych 2019).

Legend: B texts, T tokens of the longest, C hidden size.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from octavo.errors import UnsupportedError
from octavo.layers.attention import Attention
from octavo.layers.mlp import FeedForward
from octavo.layers.normalization import build_norm
from octavo.model_config import ModelConfig


class Block(nn.Module):
    """norm(x + attention(x)), then norm(x + feed_forward(x)): norms after the sums, as in 2017."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.attention = Attention(config, layer, input_bias=True, output_bias=True)
        self.attention_output_norm = build_norm(config)
        self.feed_forward = FeedForward(config, bias=True)
        self.layer_output_norm = build_norm(config)

    def forward(self, x: Tensor, positions: Tensor, present: Tensor | None) -> Tensor:
        """[B, T, C], positions int[T], present bool[B, T] -> [B, T, C]."""
        x = self.attention_output_norm(x + self.attention(x, positions, present))
        normed: Tensor = self.layer_output_norm(x + self.feed_forward(x))
        return normed


class BERT(nn.Module):
    """Tokens in, a hidden state for each out; `embed` makes one vector of each text."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        if not config.is_encoder or config.norm_position != "post":
            raise UnsupportedError(f"{config.architecture} is not a post-norm encoder")
        self.config = config
        self.token_embedding = nn.Embedding(config.vocabulary_size, config.hidden_size)
        if config.learned_positions:
            self.position_embedding = nn.Embedding(config.learned_positions, config.hidden_size)
        if config.token_types:
            self.token_type_embedding = nn.Embedding(config.token_types, config.hidden_size)
        self.embedding_norm = build_norm(config) if config.embedding_norm else nn.Identity()
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.layers))

    def forward(self, tokens: Tensor, present: Tensor | None = None) -> Tensor:
        """int[B, T], bool[B, T] (False: padding; None: no padding) -> hidden states [B, T, C].

        All tokens are of type 0: one text, not a pair.  The states of padding mean nothing.
        """
        positions = torch.arange(tokens.shape[1], device=tokens.device)
        x: Tensor = self.token_embedding(tokens) * self.config.embedding_scale
        if self.config.learned_positions:
            x = x + self.position_embedding(positions)
        if self.config.token_types:
            x = x + self.token_type_embedding.weight[0]
        x = self.embedding_norm(x)
        for block in self.blocks:
            x = block(x, positions, present)
        return x

    def embed(self, tokens: Tensor, present: Tensor | None = None) -> Tensor:
        """int[B, T], bool[B, T] -> one vector for each text [B, C], by the config's pooling."""
        hidden: Tensor = self(tokens, present)
        if self.config.pooling == "cls":
            pooled = hidden[:, 0]
        elif self.config.pooling == "mean":
            weights = torch.ones_like(tokens) if present is None else present
            weights = weights.to(hidden.dtype)[:, :, None]
            pooled = (hidden * weights).sum(dim=1) / weights.sum(dim=1)
        else:
            raise UnsupportedError("this encoder has no pooling: use its hidden states, or set pooling")
        if self.config.normalize_embeddings:
            pooled = nn.functional.normalize(pooled, dim=-1)
        return pooled
