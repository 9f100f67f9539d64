"""Pretraining an encoder: masked tokens and, if asked, next sentences (Devlin et al. 2018, section 3.1)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from octavo.data.packing import PackedRows, validation_batches
from octavo.data.sentence_pairs import SentencePairRows
from octavo.data.shards import TokenCorpus, corpus_fingerprint, stored_corpus
from octavo.data.sources import data_paths, read_documents
from octavo.errors import FormatError
from octavo.models.bert import MaskedLanguageModel, initialize
from octavo.models.masking import mask_tokens, word_starts_of
from octavo.training.causal import Validation
from octavo.training.model_folders import load_encoder, save_encoder
from octavo.training.tasks.encoder_config import EncoderConfig
from octavo.training.tasks.encoding import (
    EncoderBatch,
    encoder_model_config,
    encoder_specials,
    encoder_tokenizer,
    tensor,
)

# A vocabulary is counted on this much text at most; more hardly changes it.
_VOCABULARY_CHARACTERS = 20_000_000
_VALIDATION_TOKENS = 1 << 16
_SAMPLE_TOKENS = 24


class MaskedLanguageModelling:
    """A MaskedLanguageModel, a WordPiece vocabulary and packed rows, from a complete configuration.

    Documents are framed as [CLS] text [SEP]; packed into one row they do not see each other.
    """

    forward_methods = ("loss",)

    def __init__(self, config: EncoderConfig, *, folder: Path | None = None) -> None:
        self.config = config
        paths = data_paths(config.data)
        texts = _limited(read_documents(paths, column=config.column))
        self.tokenizer = encoder_tokenizer(config, texts, folder)
        self.specials = encoder_specials(self.tokenizer, str(folder or config.start or config.tokenizer))
        training, kept = self._corpora(paths)
        if len(training) < 2:
            raise FormatError(f"the corpus has {len(training)} tokens: too few to train on")
        self.fingerprint = training.fingerprint
        self.bytes_per_token = training.bytes / len(training)
        self.rows = self._rows(training, config.seed)
        self.kept = self._rows(kept, 0) if len(kept) > 1 else None
        pieces = self.tokenizer.get_vocab(with_added_tokens=True)
        self.continues = torch.zeros(len(pieces), dtype=torch.bool)
        self.continues[[token for text, token in pieces.items() if text.startswith("##")]] = True
        self.model = self._build()
        self.rows_per_step = max(1, round(config.batch_tokens / config.context))
        weights = sum(each.numel() for each in self.model.bert.blocks.parameters() if each.dim() == 2)
        scores = 12.0 * config.layers * config.context * config.hidden_size
        head = config.mask_probability * self.model.bert.token_embedding.weight.numel()
        self.flops_per_token = 6.0 * (weights + head) + scores

    def _corpora(self, paths: list[Path]) -> tuple[TokenCorpus, TokenCorpus]:
        """(training, validation)"""
        whole = self.corpus(paths)
        if self.config.validation_data:
            return whole, self.corpus([Path(name).expanduser() for name in self.config.validation_data])
        return whole.split(self.config.validation)

    def corpus(self, paths: list[Path]) -> TokenCorpus:
        """The documents of files, framed."""
        frame = [self.specials.beginning], [self.specials.end]
        documents = read_documents(paths, column=self.config.column)
        fingerprint = corpus_fingerprint(paths, self.tokenizer, f"encoder {self.config.column}")
        return stored_corpus(documents, self.tokenizer, fingerprint, before=frame[0], after=frame[1])

    def _rows(self, corpus: TokenCorpus, seed: int) -> PackedRows | SentencePairRows:
        config, special = self.config, self.specials
        if config.next_sentence:
            return SentencePairRows(
                corpus, config.context, special.beginning, special.end, special.padding, seed
            )
        return PackedRows(corpus, config.context, seed, config.isolate)

    def _build(self) -> MaskedLanguageModel:
        config = self.config
        options: dict[str, Any] = {
            "next_sentence": config.next_sentence,
            "dropout": config.dropout,
            "fast": config.fast,
        }
        if config.start is not None:
            return load_encoder(Path(config.start).expanduser(), MaskedLanguageModel, **options)
        shape = encoder_model_config(config, self.tokenizer.get_vocab_size())
        model = MaskedLanguageModel(shape, **options)
        initialize(model, torch.Generator().manual_seed(config.seed))
        return model

    def batches(self, step: int, rank: int = 0, world: int = 1) -> list[EncoderBatch]:
        """The micro-batches of a step, counted from 0; of `world` processes each takes its share of rows."""
        whole = self._masked(self.rows, step * self.rows_per_step, self.rows_per_step, self.config.seed, step)
        first = rank * self.rows_per_step // world
        last = (rank + 1) * self.rows_per_step // world
        size = self.config.rows
        return [whole.rows(row, min(row + size, last)) for row in range(first, last, size)]

    def _masked(
        self, rows: PackedRows | SentencePairRows, first: int, count: int, seed: int, step: int
    ) -> EncoderBatch:
        """Rows with masks that seed and step determine, however they are cut into micro-batches."""
        if isinstance(rows, SentencePairRows):
            pairs = rows.batch(first, count)
            seen, targets = self._mask(torch.from_numpy(pairs.tokens), seed, step)
            return EncoderBatch(
                seen.numpy(), targets.numpy(), pairs.present, pairs.types, follows=pairs.follows
            )
        packed = rows.batch(first, count)
        seen, targets = self._mask(torch.from_numpy(packed.inputs.copy()), seed, step)
        return EncoderBatch(
            seen.numpy(), targets.numpy(), positions=packed.positions, documents=packed.documents
        )

    def _mask(self, tokens: Tensor, seed: int, step: int) -> tuple[Tensor, Tensor]:
        special = self.specials
        return mask_tokens(
            tokens,
            mask_token=special.mask,
            vocabulary_size=len(self.continues),
            special_tokens=[special.padding, special.beginning, special.end],
            generator=torch.Generator().manual_seed(seed * 1_000_003 + step),
            probability=self.config.mask_probability,
            word_starts=word_starts_of(tokens, self.continues) if self.config.whole_words else None,
        )

    def loss(self, module: MaskedLanguageModel, batch: EncoderBatch, scale: float) -> Tensor:
        """scale * the sum of the batch's losses, in nats."""
        inputs, targets = tensor(batch.inputs), tensor(batch.targets)
        assert inputs is not None and targets is not None
        total, _ = module.loss(
            inputs,
            targets,
            tensor(batch.present),
            tensor(batch.types),
            tensor(batch.follows),
            tensor(batch.positions),
            tensor(batch.documents),
        )
        return total * scale

    @torch.no_grad()
    def validate(self, module: MaskedLanguageModel, *, whole: bool = False) -> Validation | None:
        """The loss of a masked token (with next_sentence, plus that of a pair); the same masks each time."""
        if self.kept is None:
            return None
        module.eval()
        most = None if whole else _VALIDATION_TOKENS // self.config.context
        total, count = 0.0, 0
        for first, rows in validation_batches(self.kept.rows, self.config.rows, most):
            batch = self._masked(self.kept, first, rows, 0, first)
            total += float(self.loss(module, batch, 1.0))
            count += batch.target_count
        module.train()
        loss = total / max(count, 1)
        return Validation(loss, loss / math.log(2) / self.bytes_per_token)

    @property
    def kept_targets(self) -> int:
        """Tokens of what was kept back."""
        return 0 if self.kept is None else len(self.kept.corpus)

    @torch.no_grad()
    def sample(self, module: MaskedLanguageModel, seed: int) -> str:
        """The prompt, or the beginning of the validation text; in brackets what is put for masked words."""
        if isinstance(self.kept, PackedRows):
            tokens = torch.from_numpy(self.kept.in_order(0, 1).inputs.copy())[:, :_SAMPLE_TOKENS]
        else:
            tokens = torch.zeros((1, 0), dtype=torch.long)
        if self.config.prompt:
            tokens = torch.tensor([self.tokenizer.encode(self.config.prompt).ids[: self.config.context]])
        if not tokens.numel():
            return ""
        module.eval()
        seen, targets = self._mask(tokens, seed, 0)
        if self.config.prompt and bool((tokens == self.specials.mask).any()):
            seen, targets = tokens, torch.where(tokens == self.specials.mask, tokens, -100)
        guesses = module(seen)[0].argmax(dim=-1).tolist()
        module.train()
        pieces = []
        for token, target, guess in zip(seen[0].tolist(), targets[0].tolist(), guesses, strict=True):
            written = self.tokenizer.id_to_token(guess if target >= 0 else token) or ""
            pieces.append(f"[{written}]" if target >= 0 else written)
        return " ".join(pieces).replace(" ##", "")

    def save(self, folder: Path, parameters: dict[str, Tensor] | None = None) -> None:
        """The model folder; of other parameters than the model's, where those are shards."""
        model = self.model
        if parameters is not None:
            model = MaskedLanguageModel(model.bert.config, next_sentence=self.config.next_sentence)
            model.load_state_dict(parameters)
        save_encoder(model, folder, self.tokenizer, padding_token=self.specials.padding)


def _limited(documents: Iterator[str]) -> Iterator[str]:
    total = 0
    for document in documents:
        yield document
        total += len(document)
        if total > _VOCABULARY_CHARACTERS:
            return
