"""The encoder: BERT (Devlin et al. 2018), its tasks, and its sentence embeddings (Reimers and Gurevych 2019).

Legend: B texts, T tokens of the longest, C hidden size, V vocabulary, L labels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from octavo.errors import UnsupportedError
from octavo.layers.activations import ACTIVATIONS
from octavo.layers.attention import Attention
from octavo.layers.dropout import Dropout
from octavo.layers.mlp import FUSED_ACTIVATIONS, FeedForward
from octavo.layers.normalization import build_norm
from octavo.model_config import ModelConfig
from octavo.models.masking import NO_TARGET


class Block(nn.Module):
    """norm(x + attention(x)), then norm(x + feed_forward(x)): norms after the sums, as in 2017."""

    def __init__(self, config: ModelConfig, layer: int, dropout: float = 0.0, *, fast: bool = False) -> None:
        super().__init__()
        self.attention = Attention(config, layer, input_bias=True, output_bias=True, fast=fast)
        self.attention_output_norm = build_norm(config)
        self.feed_forward = FeedForward(config, bias=True, fast=fast)
        self.layer_output_norm = build_norm(config)
        self.dropout = Dropout(dropout)

    def forward(
        self, x: Tensor, positions: Tensor, present: Tensor | None, documents: Tensor | None = None
    ) -> Tensor:
        """[B, T, C], positions int[T] or int[B, T], present bool[B, T], documents int[B, T] -> [B, T, C]."""
        mixed = self.attention(x, positions, present, documents)
        x = self.attention_output_norm(x + self.dropout(mixed))
        normed: Tensor = self.layer_output_norm(x + self.dropout(self.feed_forward(x)))
        return normed


class BERT(nn.Module):
    """Tokens in, a hidden state for each out; `embed` makes one vector of each text.

    dropout: of the embeddings and of what each block adds, while training (appendix A.2: 0.1).
    fast: fused functions instead of their slow twins, for training.
    """

    def __init__(self, config: ModelConfig, *, dropout: float = 0.0, fast: bool = False) -> None:
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
        self.dropout = Dropout(dropout)
        self.blocks = nn.ModuleList(
            Block(config, layer, dropout, fast=fast) for layer in range(config.layers)
        )

    def forward(
        self,
        tokens: Tensor,
        present: Tensor | None = None,
        token_types: Tensor | None = None,
        positions: Tensor | None = None,
        documents: Tensor | None = None,
    ) -> Tensor:
        """int[B, T], bool[B, T] (False: padding; None: no padding) -> hidden states [B, T, C].

        token_types: int[B, T], of a pair 0 for the first text and 1 for the second; None: all 0.
        positions and documents: of packed rows, as in GPT.  The states of padding mean nothing.
        """
        if positions is None:
            positions = torch.arange(tokens.shape[1], device=tokens.device)
        x: Tensor = self.token_embedding(tokens) * self.config.embedding_scale
        if self.config.learned_positions:
            x = x + self.position_embedding(positions)
        if self.config.token_types and token_types is None:
            x = x + self.token_type_embedding.weight[0]
        elif self.config.token_types:
            x = x + self.token_type_embedding(token_types)
        elif token_types is not None:
            raise UnsupportedError("this encoder has no token types: it does not know pairs")
        # Embeddings may be kept in float32 beside blocks in bfloat16.
        first = self.blocks[0]
        assert isinstance(first, Block)
        x = self.dropout(self.embedding_norm(x)).to(first.attention.output.weight.dtype)
        for block in self.blocks:
            x = block(x, positions, present, documents)
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


class Pooler(nn.Module):
    """tanh of a linear layer of the first token's state: what whole texts and pairs are judged by."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, hidden: Tensor) -> Tensor:
        """[B, T, C] -> [B, C]."""
        return torch.tanh(self.dense(hidden[:, 0].to(self.dense.weight.dtype)))


class MaskedLanguageModel(nn.Module):
    """Pretraining (section 3.1): tell masked tokens; with next_sentence, also whether B really follows A.

    The output matrix is the token embedding (with a bias of its own).
    """

    def __init__(
        self,
        config: ModelConfig,
        *,
        next_sentence: bool = False,
        dropout: float = 0.0,
        fast: bool = False,
    ) -> None:
        super().__init__()
        self.bert = BERT(config, dropout=dropout, fast=fast)
        self.transform = nn.Linear(config.hidden_size, config.hidden_size)
        self.activation = (FUSED_ACTIVATIONS if fast else ACTIVATIONS)[config.activation]
        self.transform_norm = build_norm(config)
        self.output_bias = nn.Parameter(torch.zeros(config.vocabulary_size))
        self.pooler = Pooler(config) if next_sentence else None
        self.next_sentence = nn.Linear(config.hidden_size, 2) if next_sentence else None
        initialize(self)

    def forward(
        self, tokens: Tensor, present: Tensor | None = None, token_types: Tensor | None = None
    ) -> Tensor:
        """int[B, T] -> logits of the token at each place [B, T, V]; arguments as of BERT."""
        return self.logits(self.bert(tokens, present, token_types))

    def logits(self, hidden: Tensor) -> Tensor:
        """[..., C] -> [..., V]."""
        x = self.transform_norm(self.activation(self.transform(hidden.to(self.transform.weight.dtype))))
        return functional.linear(x, self.bert.token_embedding.weight, self.output_bias)

    def next_sentence_logits(self, hidden: Tensor) -> Tensor:
        """[B, T, C] -> [B, 2]: label 0, the second text follows the first; 1, it does not."""
        if self.pooler is None or self.next_sentence is None:
            raise UnsupportedError("this model has no next-sentence head: build it with next_sentence=True")
        scores: Tensor = self.next_sentence(self.pooler(hidden))
        return scores

    def loss(
        self,
        tokens: Tensor,
        targets: Tensor,
        present: Tensor | None = None,
        token_types: Tensor | None = None,
        next_labels: Tensor | None = None,
        positions: Tensor | None = None,
        documents: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Sum of the losses over masked tokens and their number; targets as `mask_tokens` makes them.

        next_labels: int[B]; its mean loss is added once for each masked token, so that sum / number is the
        sum of both means (appendix A.2).  The output layer sees the masked tokens alone.
        """
        hidden = self.bert(tokens, present, token_types, positions, documents)
        chosen = targets != NO_TARGET
        count = chosen.sum()
        total = functional.cross_entropy(self.logits(hidden[chosen]), targets[chosen], reduction="sum")
        if next_labels is not None:
            follows = functional.cross_entropy(self.next_sentence_logits(hidden), next_labels)
            total = total + follows * count
        return total, count


class SequenceClassifier(nn.Module):
    """One of L labels (a number, if L is 1) for a text, or for a pair by its types (figures 4a, 4b)."""

    def __init__(self, config: ModelConfig, labels: int, *, dropout: float = 0.0, fast: bool = False) -> None:
        super().__init__()
        self.bert = BERT(config, dropout=dropout, fast=fast)
        self.pooler = Pooler(config)
        self.dropout = Dropout(dropout)
        self.classifier = nn.Linear(config.hidden_size, labels)
        initialize(self)

    def forward(
        self, tokens: Tensor, present: Tensor | None = None, token_types: Tensor | None = None
    ) -> Tensor:
        """int[B, T] -> logits [B, L]; arguments as of BERT."""
        hidden = self.bert(tokens, present, token_types)
        logits: Tensor = self.classifier(self.dropout(self.pooler(hidden)))
        return logits


class TokenClassifier(nn.Module):
    """One of L labels for each token (figure 4d); with 2, the start and the end of a span (figure 4c)."""

    def __init__(self, config: ModelConfig, labels: int, *, dropout: float = 0.0, fast: bool = False) -> None:
        super().__init__()
        self.bert = BERT(config, dropout=dropout, fast=fast)
        self.dropout = Dropout(dropout)
        self.classifier = nn.Linear(config.hidden_size, labels)
        initialize(self)

    def forward(
        self, tokens: Tensor, present: Tensor | None = None, token_types: Tensor | None = None
    ) -> Tensor:
        """int[B, T] -> logits [B, T, L]; arguments as of BERT."""
        hidden = self.bert(tokens, present, token_types).to(self.classifier.weight.dtype)
        logits: Tensor = self.classifier(self.dropout(hidden))
        return logits


def initialize(model: nn.Module, generator: torch.Generator | None = None) -> None:
    """BERT's first weights: normal of deviation 0.02, cut off at two deviations; biases 0 (its own code)."""
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.trunc_normal_(module.weight, std=0.02, a=-0.04, b=0.04, generator=generator)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
