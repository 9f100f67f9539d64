"""The Transformer of "Attention Is All You Need" (Vaswani et al. 2017): an encoder and a decoder.

The numbers in parentheses are the paper's sections and equations.  Legend: B pairs of sentences, S source
tokens, T target tokens, C hidden size, H heads, D = C / H head width, V vocabulary (one for both languages).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from octavo.errors import UnsupportedError
from octavo.layers.dropout import Dropout
from octavo.layers.initialization import glorot_
from octavo.layers.normalization import LayerNorm


@dataclass(frozen=True)
class Seq2SeqConfig:
    """Sizes of the base model (table 3) but for the vocabulary; lengths count tokens.

    norm_position: "post" is the paper's (5.4: norm(x + sublayer(x))); "pre" is x + sublayer(norm(x)), which
        trains without warm-up (Xiong et al. 2020), with one more norm at the end of each stack.
    """

    vocabulary_size: int
    hidden_size: int = 512
    heads: int = 8
    encoder_layers: int = 6
    decoder_layers: int = 6
    feed_forward_size: int = 2048
    dropout: float = 0.1
    label_smoothing: float = 0.1
    norm_position: Literal["post", "pre"] = "post"
    norm_epsilon: float = 1e-5
    padding_token: int = 0
    beginning_token: int = 1
    end_token: int = 2

    def __post_init__(self) -> None:
        if self.hidden_size % (2 * self.heads):
            raise UnsupportedError(
                f"hidden_size {self.hidden_size} must be a multiple of twice the {self.heads} heads"
            )
        if self.norm_position not in ("post", "pre"):
            raise UnsupportedError(f"norm_position {self.norm_position!r}: it is 'post' or 'pre'")
        for name in ("dropout", "label_smoothing"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise UnsupportedError(f"{name} is {getattr(self, name)}; it is in [0, 1)")
        specials = (self.padding_token, self.beginning_token, self.end_token)
        if len(set(specials)) < 3 or not all(0 <= token < self.vocabulary_size for token in specials):
            raise UnsupportedError("padding, beginning and end must be three tokens of the vocabulary")


def sinusoidal_positions(count: int, width: int, *, start: int = 0) -> Tensor:
    """float[count, width]: sines and cosines of position / 10000^(2i / width), in turn (3.5)."""
    positions = torch.arange(start, start + count, dtype=torch.float64)[:, None]
    frequencies = torch.exp(torch.arange(0, width, 2, dtype=torch.float64) * (-math.log(10_000.0) / width))
    angles = positions * frequencies
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(1).to(torch.float32)


@dataclass
class KeysAndValues:
    """What one attention layer has seen so far: keys and values [B, H, tokens, D], None before the first."""

    key: Tensor | None = None
    value: Tensor | None = None

    def append(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Takes in new tokens and gives all."""
        if self.key is not None and self.value is not None:
            key, value = torch.cat((self.key, key), dim=2), torch.cat((self.value, value), dim=2)
        self.key, self.value = key, value
        return key, value

    def select(self, rows: Tensor) -> None:
        """Keeps the sequences rows int[N], in that order; one may be there more than once."""
        if self.key is not None and self.value is not None:
            self.key, self.value = self.key.index_select(0, rows), self.value.index_select(0, rows)


class MultiHeadAttention(nn.Module):
    """concat(softmax(Q K^T / sqrt(D)) V) W_O, with Q from one sequence and K, V from another (3.2)."""

    def __init__(self, config: Seq2SeqConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.dropout = config.dropout
        self.query, self.key, self.value, self.output = (
            nn.Linear(config.hidden_size, config.hidden_size, bias=False) for _ in range(4)
        )

    def keys_and_values(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """[B, S, C] -> keys and values, each [B, H, S, D]."""
        return self._split(self.key(memory)), self._split(self.value(memory))

    def forward(self, x: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        """[B, T, C], keys and values [B, H, S, D], mask bool broadcastable to [B, H, T, S] -> [B, T, C].

        mask: True where a query may look; None: everywhere.
        """
        query = self._split(self.query(x))
        dropout = self.dropout if self.training else 0.0
        mixed = functional.scaled_dot_product_attention(query, key, value, mask, dropout)
        output: Tensor = self.output(mixed.transpose(1, 2).flatten(2))
        return output

    def _split(self, x: Tensor) -> Tensor:
        sequences, tokens, width = x.shape
        return x.view(sequences, tokens, self.heads, width // self.heads).transpose(1, 2)


class Sublayer(nn.Module):
    """What surrounds every sublayer: the residual, the dropout and the norm (3.1, 5.4)."""

    def __init__(self, config: Seq2SeqConfig) -> None:
        super().__init__()
        self.norm = LayerNorm(config.hidden_size, config.norm_epsilon)
        self.dropout = Dropout(config.dropout)
        self.is_pre = config.norm_position == "pre"

    def before(self, x: Tensor) -> Tensor:
        """What the sublayer gets."""
        normed: Tensor = self.norm(x) if self.is_pre else x
        return normed

    def after(self, x: Tensor, result: Tensor) -> Tensor:
        """What comes out, given what the sublayer made of it."""
        x = x + self.dropout(result)
        normed: Tensor = x if self.is_pre else self.norm(x)
        return normed


class FeedForward(nn.Module):
    """max(0, x W_1 + b_1) W_2 + b_2 (equation 2)."""

    def __init__(self, config: Seq2SeqConfig) -> None:
        super().__init__()
        self.up = nn.Linear(config.hidden_size, config.feed_forward_size)
        self.down = nn.Linear(config.feed_forward_size, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, C] -> [B, T, C]."""
        output: Tensor = self.down(torch.relu(self.up(x)))
        return output


class EncoderBlock(nn.Module):
    """Self-attention, then feed-forward."""

    def __init__(self, config: Seq2SeqConfig) -> None:
        super().__init__()
        self.attention, self.attention_sublayer = MultiHeadAttention(config), Sublayer(config)
        self.feed_forward, self.feed_forward_sublayer = FeedForward(config), Sublayer(config)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """[B, S, C], bool[B, 1, 1, S] -> [B, S, C]."""
        normed = self.attention_sublayer.before(x)
        result = self.attention(normed, *self.attention.keys_and_values(normed), mask)
        x = self.attention_sublayer.after(x, result)
        result = self.feed_forward(self.feed_forward_sublayer.before(x))
        return self.feed_forward_sublayer.after(x, result)


class DecoderBlock(nn.Module):
    """Self-attention to what has been written, attention to the source, then feed-forward."""

    def __init__(self, config: Seq2SeqConfig) -> None:
        super().__init__()
        self.attention, self.attention_sublayer = MultiHeadAttention(config), Sublayer(config)
        self.cross_attention, self.cross_sublayer = MultiHeadAttention(config), Sublayer(config)
        self.feed_forward, self.feed_forward_sublayer = FeedForward(config), Sublayer(config)

    def read(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """The encoder's output [B, S, C] -> the source's keys and values, each [B, H, S, D]."""
        return self.cross_attention.keys_and_values(memory)

    def forward(
        self,
        x: Tensor,
        source: tuple[Tensor, Tensor],
        source_mask: Tensor,
        mask: Tensor | None,
        written: KeysAndValues | None = None,
    ) -> Tensor:
        """[B, T, C], the source's keys and values [B, H, S, D], masks -> [B, T, C]; written grows by T."""
        normed = self.attention_sublayer.before(x)
        key, value = self.attention.keys_and_values(normed)
        if written is not None:
            key, value = written.append(key, value)
        x = self.attention_sublayer.after(x, self.attention(normed, key, value, mask))
        normed = self.cross_sublayer.before(x)
        x = self.cross_sublayer.after(x, self.cross_attention(normed, *source, source_mask))
        result = self.feed_forward(self.feed_forward_sublayer.before(x))
        return self.feed_forward_sublayer.after(x, result)


@dataclass
class DecodingState:
    """What decoding carries from token to token: the source, seen once, and what has been written."""

    source: list[tuple[Tensor, Tensor]]  # each decoder block's keys and values of the source
    source_mask: Tensor  # bool[B, 1, 1, S]
    written: list[KeysAndValues]
    length: int = field(default=0)  # target tokens so far

    def select(self, rows: Tensor) -> None:
        """Keeps the sequences rows int[N], in that order."""
        self.source = [(key.index_select(0, rows), value.index_select(0, rows)) for key, value in self.source]
        self.source_mask = self.source_mask.index_select(0, rows)
        for layer in self.written:
            layer.select(rows)


class Seq2Seq(nn.Module):
    """Source tokens and the target so far in, logits of the next target token out."""

    def __init__(self, config: Seq2SeqConfig) -> None:
        super().__init__()
        self.config = config
        # One matrix embeds the source, embeds the target and reads out the logits (3.4).
        self.embedding = nn.Embedding(config.vocabulary_size, config.hidden_size)
        self.encoder = nn.ModuleList(EncoderBlock(config) for _ in range(config.encoder_layers))
        self.decoder = nn.ModuleList(DecoderBlock(config) for _ in range(config.decoder_layers))
        pre = config.norm_position == "pre"
        self.encoder_norm, self.decoder_norm = (
            LayerNorm(config.hidden_size, config.norm_epsilon) if pre else nn.Identity() for _ in range(2)
        )
        self.dropout = Dropout(config.dropout)
        self.initialize()

    def initialize(self, generator: torch.Generator | None = None) -> None:
        """Glorot for matrices, as the authors' code; 1 / sqrt(C) for embeddings, which get times sqrt(C)."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                glorot_(module.weight, generator=generator)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        with torch.no_grad():
            self.embedding.weight.normal_(0.0, self.config.hidden_size**-0.5, generator=generator)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """int[B, S] and int[B, T] (from the beginning token on), both padded -> logits [B, T, V].

        Row t of the logits tells of target token t + 1.
        """
        return self.logits(self.decode(self.encode(source), target))

    def encode(self, source: Tensor) -> DecodingState:
        """int[B, S] -> the state in which nothing has been written yet."""
        mask = (source != self.config.padding_token)[:, None, None, :]
        x = self.embed(source, 0)
        for block in self.encoder:
            x = block(x, mask)
        x = self.encoder_norm(x)
        keys_and_values = [block.read(x) for block in self._decoder_blocks()]
        return DecodingState(keys_and_values, mask, [KeysAndValues() for _ in self.decoder])

    def decode(self, state: DecodingState, target: Tensor) -> Tensor:
        """The state and the next int[B, T] tokens -> hidden states [B, T, C]; the state grows by them."""
        tokens, before = target.shape[1], state.length
        mask = None  # a single token sees all before it
        if tokens > 1:
            seen = torch.ones(tokens, before + tokens, dtype=torch.bool, device=target.device)
            mask = seen.tril(before)
        x = self.embed(target, before)
        for block, source, written in zip(self.decoder, state.source, state.written, strict=True):
            x = block(x, source, state.source_mask, mask, written)
        state.length += tokens
        hidden: Tensor = self.decoder_norm(x)
        return hidden

    def logits(self, hidden: Tensor) -> Tensor:
        """[..., C] -> [..., V]."""
        return hidden @ self.embedding.weight.to(hidden.dtype).T

    def embed(self, tokens: Tensor, start: int) -> Tensor:
        """int[B, T] from position start on -> dropout(embedding * sqrt(C) + position) [B, T, C] (3.4)."""
        x = self.embedding(tokens) * math.sqrt(self.config.hidden_size)
        positions = sinusoidal_positions(tokens.shape[1], self.config.hidden_size, start=start)
        # Embeddings may be kept in float32 beside blocks in bfloat16.
        first = self.encoder[0]
        assert isinstance(first, EncoderBlock)
        embedded: Tensor = self.dropout(x + positions.to(x)).to(first.attention.output.weight.dtype)
        return embedded

    def loss(self, source: Tensor, target: Tensor) -> Tensor:
        """int[B, S] and int[B, T], from the beginning to the end token -> mean loss of a target token.

        As `smoothed_cross_entropy`, by torch's kernel; padding never comes to the output layer.
        """
        hidden = self.decode(self.encode(source), target[:, :-1])
        present = target[:, 1:] != self.config.padding_token
        return functional.cross_entropy(
            self.logits(hidden[present]),
            target[:, 1:][present],
            label_smoothing=self.config.label_smoothing,
        )

    def _decoder_blocks(self) -> list[DecoderBlock]:
        return [block for block in self.decoder if isinstance(block, DecoderBlock)]


def smoothed_cross_entropy(
    logits: Tensor, targets: Tensor, smoothing: float, padding: int
) -> tuple[Tensor, Tensor]:
    """Logits [..., V] and targets int[...] -> the sum of losses and how many targets are no padding.

    The target distribution gives 1 - smoothing to the token and spreads the rest evenly over all V (5.4;
    Szegedy et al. 2016, section 7).  Sums, so that parts of a batch add up to the whole; `Seq2Seq.loss` is
    the fast way to the same.
    """
    present = targets != padding
    log_probabilities = logits[present].log_softmax(dim=-1)
    chosen = log_probabilities.gather(-1, targets[present][:, None]).sum()
    spread = log_probabilities.mean(dim=-1).sum()
    return -(1.0 - smoothing) * chosen - smoothing * spread, present.sum()
