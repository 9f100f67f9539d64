"""The decoder: every causal language model that ModelConfig can describe, in one plain forward.

GPT-2 (Radford et al. 2019), Llama (Touvron et al. 2023), Mistral, Qwen 2 and 3, Gemma 2 and 3 and Phi 3 are
this model with other values in its config.  Legend: B sequences, T tokens, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from octavo.errors import UnsupportedError
from octavo.layers.attention import Attention
from octavo.layers.fused import fused_norm, fused_norm_beside
from octavo.layers.mlp import FeedForward
from octavo.layers.normalization import LayerNorm, RMSNorm, build_norm
from octavo.model_config import ModelConfig


class Block(nn.Module):
    """x + attention(norm(x)), then x + feed_forward(norm(x)); Gemma norms what is added, too."""

    def __init__(self, config: ModelConfig, layer: int, *, fast: bool = False, dropout: float = 0.0) -> None:
        super().__init__()
        # The only biases: all linear layers of GPT-2, and the query, key and value of Qwen 2.
        all_biases = config.architecture == "gpt2"
        input_bias = all_biases or config.architecture == "qwen2"
        self.attention_norm = build_norm(config)
        self.attention = Attention(config, layer, input_bias=input_bias, output_bias=all_biases, fast=fast)
        self.feed_forward_norm = build_norm(config)
        self.feed_forward = FeedForward(config, bias=all_biases, fast=fast)
        both = config.norm_position == "both"
        self.post_attention_norm = build_norm(config) if both else nn.Identity()
        self.post_feed_forward_norm = build_norm(config) if both else nn.Identity()
        self.dropout = nn.Dropout(dropout)
        self.norm_beside = fused_norm_beside if fast else plain_norm_beside

    def forward(self, x: Tensor, positions: Tensor, documents: Tensor | None = None) -> Tensor:
        """[B, T, hidden], positions int[T] or int[B, T], documents int[B, T] -> [B, T, hidden]."""
        x, normed = self.norm_beside(self.attention_norm, x)
        mixed = self.attention(normed, positions, documents=documents)
        x, normed = self.norm_beside(
            self.feed_forward_norm, x + self.dropout(self.post_attention_norm(mixed))
        )
        x = x + self.dropout(self.post_feed_forward_norm(self.feed_forward(normed)))
        return x


def plain_norm_beside(norm: LayerNorm | RMSNorm, x: Tensor) -> tuple[Tensor, Tensor]:
    """The slow twin of `fused_norm_beside`."""
    return x, plain_norm(norm, x)


def plain_norm(norm: LayerNorm | RMSNorm, x: Tensor) -> Tensor:
    """The slow twin of `fused_norm`."""
    normed: Tensor = norm(x)
    return normed


class GPT(nn.Module):
    """Tokens in, logits of the next token out.

    fast: the fused functions of `layers/fused.py`, for training.  dropout: of what each block adds and of the
    embeddings, while training (Srivastava et al. 2014; GPT-2 puts it there).
    """

    def __init__(self, config: ModelConfig, *, fast: bool = False, dropout: float = 0.0) -> None:
        super().__init__()
        if config.is_encoder or config.norm_position == "post":
            raise UnsupportedError(f"{config.architecture} is not a pre-norm causal decoder")
        self.config = config
        self.token_embedding = nn.Embedding(config.vocabulary_size, config.hidden_size)
        if config.learned_positions:
            self.position_embedding = nn.Embedding(config.learned_positions, config.hidden_size)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(
            Block(config, layer, fast=fast, dropout=dropout) for layer in range(config.layers)
        )
        self.output_norm = build_norm(config)
        self.norm = fused_norm if fast else plain_norm
        # Keep only what goes into each block and compute the rest again in the backward pass (Chen et al.
        # 2016): a third more time, and memory for the activations of one block.
        self.recompute = False
        if not config.tied_embeddings:
            self.output = nn.Linear(config.hidden_size, config.vocabulary_size, bias=False)

    @property
    def head_weight(self) -> Tensor:
        """[V, hidden]: what the logits are the products with."""
        return self.token_embedding.weight if self.config.tied_embeddings else self.output.weight

    def forward(
        self, tokens: Tensor, positions: Tensor | None = None, documents: Tensor | None = None
    ) -> Tensor:
        """int[B, T] -> logits float[B, T, V]; positions and documents as in `hidden`."""
        hidden = self.hidden(tokens, positions, documents)
        logits = hidden @ self.head_weight.to(hidden.dtype).T
        if cap := self.config.logit_softcap:
            logits = cap * torch.tanh(logits / cap)
        return logits

    def hidden(
        self, tokens: Tensor, positions: Tensor | None = None, documents: Tensor | None = None
    ) -> Tensor:
        """int[B, T] -> the normed hidden states [B, T, hidden] that the logits are read from.

        positions: int[T] or int[B, T], by default 0 to T - 1.  documents: int[B, T]; tokens of a row with
        different numbers do not see each other (packed rows).
        """
        if positions is None:
            positions = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.token_embedding(tokens) * self.config.embedding_scale
        if self.config.learned_positions:
            x = x + self.position_embedding(positions)
        # Embeddings may be kept in float32 beside blocks in bfloat16.
        first = self.blocks[0]
        assert isinstance(first, Block)
        x = self.dropout(x).to(first.attention.output.weight.dtype)
        for block in self.blocks:
            if self.recompute and torch.is_grad_enabled():
                x = checkpoint(block, x, positions, documents, use_reentrant=False)
            else:
                x = block(x, positions, documents)
        return self.norm(self.output_norm, x)


def initialize(model: GPT, seed: int) -> None:
    """Fresh weights: normal with deviation 1 / sqrt(inputs), at most 0.02 for embeddings (GPT-2 section 2.3).

    What a block adds at the end of its two parts begins at zero, so that the model begins as the identity
    (Zhang, Dauphin and Ma 2019, Fixup; Bachlechner et al. 2020, ReZero).
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("attention.output.weight", "feed_forward.down.weight")):
                parameter.zero_()
            elif "embedding" in name:
                parameter.normal_(std=0.02, generator=generator)
            elif parameter.dim() == 2:
                parameter.normal_(std=parameter.shape[1] ** -0.5, generator=generator)
            elif name.endswith("bias"):
                parameter.zero_()
