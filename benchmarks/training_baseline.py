"""The peer of the training benchmark: a GPT-2 written plainly in PyTorch, as a careful newcomer writes it.

Layer norms, learned positions, exact GELU, PyTorch's own causal attention, tied embeddings, float32 and
`torch.optim.AdamW` as it comes: the shape and defaults of the small character-level GPTs that people train on
a laptop.  Nothing of octavo is imported here.  Legend: B sequences, T tokens, C hidden size, V vocabulary.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True, slots=True)
class PlainConfig:
    """Sizes of a plain GPT; block is the context in tokens."""

    vocabulary_size: int
    block: int
    layers: int
    heads: int
    width: int


class PlainBlock(nn.Module):
    def __init__(self, config: PlainConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.first_norm = nn.LayerNorm(config.width, bias=False)
        self.query_key_value = nn.Linear(config.width, 3 * config.width, bias=False)
        self.projection = nn.Linear(config.width, config.width, bias=False)
        self.second_norm = nn.LayerNorm(config.width, bias=False)
        self.widen = nn.Linear(config.width, 4 * config.width, bias=False)
        self.narrow = nn.Linear(4 * config.width, config.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, C] -> [B, T, C]."""
        sequences, tokens, width = x.shape
        parts = self.query_key_value(self.first_norm(x)).split(width, dim=2)
        query, key, value = (
            part.view(sequences, tokens, self.heads, width // self.heads).transpose(1, 2) for part in parts
        )
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.projection(mixed.transpose(1, 2).contiguous().view(sequences, tokens, width))
        return x + self.narrow(functional.gelu(self.widen(self.second_norm(x))))


class PlainGPT(nn.Module):
    def __init__(self, config: PlainConfig) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(config.vocabulary_size, config.width)
        self.position_embedding = nn.Embedding(config.block, config.width)
        self.blocks = nn.ModuleList(PlainBlock(config) for _ in range(config.layers))
        self.last_norm = nn.LayerNorm(config.width, bias=False)
        self.head = nn.Linear(config.width, config.vocabulary_size, bias=False)
        self.head.weight = self.token_embedding.weight
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                residual = name.endswith(("projection.weight", "narrow.weight"))
                deviation = 0.02 / math.sqrt(2 * config.layers) if residual else 0.02
                nn.init.normal_(parameter, std=deviation)

    def forward(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """int[B, T] twice -> the mean cross-entropy in nats."""
        positions = torch.arange(tokens.shape[1])
        x = self.token_embedding(tokens) + self.position_embedding(positions)
        for block in self.blocks:
            x = block(x)
        logits = self.head(self.last_norm(x))
        return functional.cross_entropy(logits.view(-1, logits.shape[-1]), targets.reshape(-1))


def random_batch(
    ids: Tensor, sequences: int, tokens: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Windows at random places: inputs int[B, T] and, one further, targets int[B, T]."""
    starts = torch.randint(len(ids) - tokens, (sequences,), generator=generator)
    inputs = torch.stack([ids[start : start + tokens] for start in starts])
    targets = torch.stack([ids[start + 1 : start + 1 + tokens] for start in starts])
    return inputs, targets


def plain_optimizer(
    model: nn.Module, learning_rate: float, betas: tuple[float, float]
) -> torch.optim.Optimizer:
    """AdamW as it comes, weight decay on matrices only."""
    matrices = [parameter for parameter in model.parameters() if parameter.dim() >= 2]
    vectors = [parameter for parameter in model.parameters() if parameter.dim() < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=learning_rate, betas=betas)


def plain_step(
    model: PlainGPT, optimizer: torch.optim.Optimizer, inputs: Tensor, targets: Tensor, clip: float = 1.0
) -> float:
    """One update; the loss in nats."""
    optimizer.zero_grad(set_to_none=True)
    loss = model(inputs, targets)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), clip)
    optimizer.step()
    return loss.item()
