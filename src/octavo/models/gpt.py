"""The decoder: every causal language model that ModelConfig can describe, in one plain forward.

GPT-2 (Radford et al. 2019), Llama (Touvron et al. 2023), Mistral, Qwen 2 and 3, Gemma 2 and 3 and Phi 3 are
this model with other values in its config.  Legend: B sequences, T tokens, V vocabulary.
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
    """x + attention(norm(x)), then x + feed_forward(norm(x)); Gemma norms what is added, too."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        # The only biases: all linear layers of GPT-2, and the query, key and value of Qwen 2.
        all_biases = config.architecture == "gpt2"
        input_bias = all_biases or config.architecture == "qwen2"
        self.attention_norm = build_norm(config)
        self.attention = Attention(config, layer, input_bias=input_bias, output_bias=all_biases)
        self.feed_forward_norm = build_norm(config)
        self.feed_forward = FeedForward(config, bias=all_biases)
        both = config.norm_position == "both"
        self.post_attention_norm = build_norm(config) if both else nn.Identity()
        self.post_feed_forward_norm = build_norm(config) if both else nn.Identity()

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        """[B, T, hidden], positions int[T] -> [B, T, hidden]."""
        x = x + self.post_attention_norm(self.attention(self.attention_norm(x), positions))
        x = x + self.post_feed_forward_norm(self.feed_forward(self.feed_forward_norm(x)))
        return x


class GPT(nn.Module):
    """Tokens in, logits of the next token out."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        if config.is_encoder or config.norm_position == "post":
            raise UnsupportedError(f"{config.architecture} is not a pre-norm causal decoder")
        self.config = config
        self.token_embedding = nn.Embedding(config.vocabulary_size, config.hidden_size)
        if config.learned_positions:
            self.position_embedding = nn.Embedding(config.learned_positions, config.hidden_size)
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.layers))
        self.output_norm = build_norm(config)
        if not config.tied_embeddings:
            self.output = nn.Linear(config.hidden_size, config.vocabulary_size, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """int[B, T] -> logits float[B, T, V]."""
        hidden = self.hidden(tokens)
        head = self.token_embedding if self.config.tied_embeddings else self.output
        logits = hidden @ head.weight.T
        if cap := self.config.logit_softcap:
            logits = cap * torch.tanh(logits / cap)
        return logits

    def hidden(self, tokens: Tensor) -> Tensor:
        """int[B, T] -> the normed hidden states [B, T, hidden] that the logits are read from."""
        positions = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.token_embedding(tokens) * self.config.embedding_scale
        if self.config.learned_positions:
            x = x + self.position_embedding(positions)
        for block in self.blocks:
            x = block(x, positions)
        hidden: Tensor = self.output_norm(x)
        return hidden
