"""The language-modelling task: what the loop asks for when it trains a decoder.

A task owns model and data and knows nothing of optimizers, checkpoints or screens; the loop knows nothing of
tokens.  Another kind of training is another class with these methods.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from octavo.data.packing import Batch, PackedRows, validation_batches
from octavo.data.shards import TokenCorpus, tokenize_corpus
from octavo.data.sources import data_paths, read_documents
from octavo.data.vocabulary import Kind, end_of_text_token, load_tokenizer, train_tokenizer
from octavo.errors import FormatError
from octavo.models.gpt import GPT, initialize
from octavo.models.saving import save_model
from octavo.training.config import TrainingConfig, model_config
from octavo.training.losses import linear_cross_entropy

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# A vocabulary is counted on this much text at most; more hardly changes it.
_VOCABULARY_CHARACTERS = 20_000_000
_VALIDATION_TOKENS = 1 << 16


@dataclass(frozen=True, slots=True)
class Validation:
    """loss: nats a token.  bits_per_byte: comparable between tokenizers.  scores: of a task, by name."""

    loss: float
    bits_per_byte: float
    scores: Mapping[str, float] = field(default_factory=dict)

    @property
    def perplexity(self) -> float:
        return math.exp(min(self.loss, 700.0))


class Task(Protocol):
    """What the loop needs.  `fingerprint` of the data is compared on resume."""

    model: Any
    tokenizer: Any
    fingerprint: str
    flops_per_token: float
    # Of the model, those that the loss calls: where weights are sharded, they are gathered for these.
    forward_methods: tuple[str, ...]

    # Tokens or labels that a whole validation tells.
    @property
    def kept_targets(self) -> int: ...

    def batches(self, step: int, rank: int = 0, world: int = 1) -> list[Any]: ...
    def loss(self, module: Any, batch: Any, scale: float) -> Tensor: ...
    def validate(self, module: Any, *, whole: bool = False) -> Validation | None: ...
    def sample(self, module: Any, seed: int) -> str: ...
    def save(self, folder: Path, parameters: dict[str, Tensor] | None = None) -> None: ...


class LanguageModelling:
    """A decoder, a tokenizer and packed rows, from a complete configuration.

    Raises FormatError for a corpus that is empty or too small for one row.
    """

    forward_methods: tuple[str, ...] = ("hidden",)

    def __init__(self, config: TrainingConfig, *, folder: Path | None = None) -> None:
        self.config = config
        paths = data_paths(config.data)
        self.tokenizer = _tokenizer(config, paths, folder)
        corpus = tokenize_corpus(paths, self.tokenizer, column=config.column)
        self._prepare(corpus, self.tokenizer.get_vocab_size(), end_of_text_token(self.tokenizer))

    @classmethod
    def of_corpus(
        cls, config: TrainingConfig, corpus: TokenCorpus, vocabulary_size: int, model: GPT | None = None
    ) -> LanguageModelling:
        """Of tokens that are there already, without a tokenizer; of a model that is there, or a new one."""
        task = cls.__new__(cls)
        task.config = config
        task.tokenizer = None
        task._prepare(corpus, vocabulary_size, None, model)
        return task

    tokenizer: Tokenizer | None

    def _prepare(
        self, corpus: TokenCorpus, vocabulary_size: int, end: int | None, model: GPT | None = None
    ) -> None:
        config = self.config
        training, kept = corpus.split(config.validation)
        if len(training) < 2:
            raise FormatError(f"the corpus has {len(corpus)} tokens: too few to train on")
        self.fingerprint = corpus.fingerprint
        self.rows = PackedRows(training, config.context, config.seed, config.isolate)
        self.kept = PackedRows(kept, config.context, 0, config.isolate) if len(kept) > 1 else None
        self.bytes_per_token = corpus.bytes / len(corpus)
        if model is None:
            shape = model_config(config, vocabulary_size, end)
            model = GPT(shape, fast=config.fast, dropout=config.dropout)
            initialize(model, config.seed)
        self.model, shape = model, model.config
        self.rows_per_step = max(1, round(config.batch_tokens / config.context))
        # 2 of each weight in a product forward and 4 backward, and the same for scores and mixtures, of
        # which a causal mask leaves half (Kaplan et al. 2020, section 2.1).
        weights = sum(parameter.numel() for parameter in self.model.parameters() if parameter.dim() == 2)
        if shape.learned_positions:
            weights -= shape.learned_positions * shape.hidden_size
        self.flops_per_token = 6.0 * weights + 6.0 * shape.layers * config.context * shape.hidden_size

    def batches(self, step: int, rank: int = 0, world: int = 1) -> list[Batch]:
        """The micro-batches of a step, counted from 0; of `world` processes each takes its share of rows."""
        begin = step * self.rows_per_step
        first = begin + rank * self.rows_per_step // world
        last = begin + (rank + 1) * self.rows_per_step // world
        size = self.config.rows
        return [self.rows.batch(row, min(size, last - row)) for row in range(first, last, size)]

    def loss(self, module: GPT, batch: Batch, scale: float) -> Tensor:
        """scale * the sum of the batch's losses, in nats."""
        targets = torch.from_numpy(batch.targets).flatten()
        return linear_cross_entropy(_hidden(module, batch).flatten(0, 1), module.head_weight, targets, scale)

    @torch.no_grad()
    def validate(self, module: GPT, *, whole: bool = False) -> Validation | None:
        """The loss on the part kept back, on 65,536 tokens of it or all; None if there is none."""
        if self.kept is None:
            return None
        module.eval()
        total, count = 0.0, 0
        for batch in self._kept_batches(whole):
            total += float(self.loss(module, batch, 1.0))
            count += batch.target_count
        module.train()
        loss = total / max(count, 1)
        return Validation(loss, loss / math.log(2) / self.bytes_per_token)

    @property
    def kept_targets(self) -> int:
        """Tokens of what was kept back."""
        return 0 if self.kept is None else len(self.kept.corpus)

    def _kept_batches(self, whole: bool) -> Iterator[Batch]:
        assert self.kept is not None
        most = None if whole else _VALIDATION_TOKENS // self.config.context
        for first, count in validation_batches(self.kept.rows, self.config.rows, most):
            yield self.kept.in_order(first, count)

    @torch.no_grad()
    def sample(self, module: GPT, seed: int, tokens: int = 64, temperature: float = 0.8) -> str:
        """A text that the model goes on with from the prompt, or from nothing; "" without a tokenizer."""
        if self.tokenizer is None:
            return ""
        module.eval()
        generator = torch.Generator().manual_seed(seed)
        end = end_of_text_token(self.tokenizer)
        ids: list[int] = self.tokenizer.encode(self.config.prompt, add_special_tokens=False).ids
        ids = [0 if end is None else end, *ids]
        for _ in range(tokens):
            window = torch.tensor([ids[-self.config.context :]])
            logits = module.hidden(window)[:, -1].float() @ module.head_weight.T.float()
            weights = torch.softmax(logits[0] / temperature, dim=-1)
            chosen = int(torch.multinomial(weights, 1, generator=generator))
            if chosen == end:
                break
            ids.append(chosen)
        module.train()
        text: str = self.tokenizer.decode(ids[1:])
        return text

    def save(self, folder: Path, parameters: dict[str, Tensor] | None = None) -> None:
        """The Hugging Face folder; of other parameters than the model's, where those are shards."""
        model = self.model
        if parameters is not None:
            model = GPT(self.model.config)
            model.load_state_dict(parameters)
        save_model(model, folder, self.tokenizer)


def _hidden(module: GPT, batch: Batch) -> Tensor:
    inputs = torch.from_numpy(batch.inputs)
    positions = torch.from_numpy(batch.positions.copy())
    if batch.documents is None:
        return module.hidden(inputs, positions[0] if _all_alike(batch) else positions)
    return module.hidden(inputs, positions, torch.from_numpy(batch.documents))


def _all_alike(batch: Batch) -> bool:
    """Rows of one document each: every row has positions 0 to T - 1."""
    return bool((batch.positions == batch.positions[:1]).all())


def _tokenizer(config: TrainingConfig, paths: list[Path], folder: Path | None) -> Tokenizer:
    """The one that the run has already, the one that is named, or a new one of the corpus."""
    if folder is not None and (folder / "tokenizer.json").exists():
        return load_tokenizer(folder)
    if config.tokenizer not in ("bpe", "characters"):
        return load_tokenizer(Path(config.tokenizer).expanduser())
    kind: Kind = "bpe" if config.tokenizer == "bpe" else "characters"
    documents = _limited(read_documents(paths, column=config.column), _VOCABULARY_CHARACTERS, kind)
    return train_tokenizer(documents, kind=kind, vocabulary_size=config.vocabulary_size)


def _limited(documents: Iterator[str], most: int, kind: str) -> Iterator[str]:
    """For pair counts some text is enough; a character vocabulary must have seen all of it."""
    total = 0
    for document in documents:
        yield document
        total += len(document)
        if kind == "bpe" and total > most:
            return
