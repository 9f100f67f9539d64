"""Fine-tuning an encoder: a label for a text, for a pair of texts, or for each word.

Devlin et al. 2018, section 4 and figure 4.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from octavo.data.packing import IGNORED
from octavo.data.pairs import padded
from octavo.data.shards import corpus_fingerprint
from octavo.data.sources import read_rows
from octavo.errors import FormatError
from octavo.models.bert import SequenceClassifier, TokenClassifier, initialize
from octavo.training.causal import Validation
from octavo.training.model_folders import load_encoder, save_encoder
from octavo.training.tasks.encoder_config import COLUMNS, EncoderConfig
from octavo.training.tasks.encoding import (
    EncoderBatch,
    encoder_model_config,
    encoder_specials,
    encoder_tokenizer,
    tensor,
)
from octavo.training.tasks.scores import classification_scores
from octavo.weights.untrusted import read_json

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

Classifier = SequenceClassifier | TokenClassifier
_SAMPLES = 4


@dataclass(frozen=True, slots=True)
class Example:
    """texts: one, or the two of a pair; of words their list.  labels: one, or one for each word."""

    texts: tuple[str, ...] | tuple[tuple[str, ...]]
    labels: tuple[str, ...]

    @property
    def shown(self) -> str:
        return " | ".join(each if isinstance(each, str) else " ".join(each) for each in self.texts)


class Labelling:
    """An encoder with a head, and labelled examples, from a complete configuration.

    Raises FormatError for data without examples, with one label only, or validation labels that training
    never saw.
    """

    forward_methods = ("forward",)

    def __init__(self, config: EncoderConfig, *, folder: Path | None = None) -> None:
        self.config = config
        self.columns = config.columns or COLUMNS[config.task]
        paths = [Path(name).expanduser() for name in config.data]
        if not paths:
            raise FormatError(f"{config.task} needs labelled data: name a table with --data")
        examples = self.read(paths)
        self.labels = _known_labels(folder)
        self.labels = self.labels or sorted({label for each in examples for label in each.labels})
        if len(self.labels) < 2:
            raise FormatError(f"{paths[0]}: one label only ({', '.join(self.labels)}): nothing to tell apart")
        if config.validation_data:
            kept = self.read([Path(name).expanduser() for name in config.validation_data])
        else:
            cut = len(examples) - int(len(examples) * config.validation)
            examples, kept = examples[:cut], examples[cut:]
        texts = (str(text) for example in examples for text in example.texts)
        self.tokenizer = encoder_tokenizer(config, texts, folder)
        self.specials = encoder_specials(self.tokenizer, str(folder or config.start or config.tokenizer))
        self.examples = Examples(self, examples)
        self.kept = Examples(self, kept) if kept else None
        self.fingerprint = corpus_fingerprint(paths, self.tokenizer, " ".join((config.task, *self.columns)))
        self.model = self._build()
        self.rows_per_step = max(1, round(config.batch_tokens / config.context))
        weights = sum(each.numel() for each in self.model.bert.blocks.parameters() if each.dim() == 2)
        self.flops_per_token = 6.0 * weights

    def read(self, paths: Sequence[Path]) -> list[Example]:
        """The examples of tables; FormatError if there are none."""
        found = [
            _example(self.config.task, where, values)
            for path in paths
            for where, values in _rows(path, self.columns)
        ]
        if not found:
            raise FormatError(f"{', '.join(map(str, paths))}: there are no labelled examples")
        return found

    def _build(self) -> Classifier:
        config, labels = self.config, len(self.labels)
        kind: Any = TokenClassifier if config.task == "tokens" else SequenceClassifier
        options = {"labels": labels, "dropout": config.dropout, "fast": config.fast}
        torch.manual_seed(config.seed)  # a new head beside pretrained weights
        if config.start is not None:
            loaded: Classifier = load_encoder(Path(config.start).expanduser(), kind, **options)
            return loaded
        model: Classifier = kind(encoder_model_config(config, self.tokenizer.get_vocab_size()), **options)
        initialize(model, torch.Generator().manual_seed(config.seed))
        return model

    def batches(self, step: int, rank: int = 0, world: int = 1) -> list[EncoderBatch]:
        """The micro-batches of a step, counted from 0; of `world` processes each takes its share."""
        chosen = self.examples.shuffled(step * self.rows_per_step, self.rows_per_step, self.config.seed)
        mine = chosen[rank * len(chosen) // world : (rank + 1) * len(chosen) // world]
        size = self.config.rows
        return [self.examples.batch(mine[first : first + size]) for first in range(0, len(mine), size)]

    def loss(self, module: Classifier, batch: EncoderBatch, scale: float) -> Tensor:
        """scale * the sum of the batch's losses, in nats."""
        targets = torch.from_numpy(batch.targets)
        logits = self.logits(module, batch)
        return scale * functional.cross_entropy(
            logits.flatten(0, -2), targets.flatten(), ignore_index=IGNORED, reduction="sum"
        )

    def logits(self, module: Classifier, batch: EncoderBatch) -> Tensor:
        """[B, L] or [B, T, L]"""
        inputs = tensor(batch.inputs)
        assert inputs is not None
        logits: Tensor = module(inputs, tensor(batch.present), tensor(batch.types))
        return logits

    @torch.no_grad()
    def validate(self, module: Classifier, *, whole: bool = False) -> Validation | None:
        """Loss of an example (or word), and the scores of GLUE, on all that was kept back."""
        if self.kept is None:
            return None
        module.eval()
        total, guesses, wanted = 0.0, [], []
        for batch in self.kept.in_order(self.config.rows):
            logits, targets = self.logits(module, batch), torch.from_numpy(batch.targets)
            total += float(
                functional.cross_entropy(
                    logits.flatten(0, -2), targets.flatten(), ignore_index=IGNORED, reduction="sum"
                )
            )
            there = batch.targets != IGNORED
            guesses.append(logits.argmax(dim=-1).numpy()[there])
            wanted.append(batch.targets[there])
        module.train()
        scores = classification_scores(np.concatenate(guesses), np.concatenate(wanted), self.labels)
        loss = total / max(1, sum(map(len, wanted)))
        return Validation(loss, loss / math.log(2) / self.kept.bytes_per_label, scores)

    @property
    def kept_targets(self) -> int:
        """Labels that validation tells."""
        return 0 if self.kept is None else sum(len(each.labels) for each in self.kept.examples)

    @torch.no_grad()
    def sample(self, module: Classifier, seed: int) -> str:
        """Some examples that were kept back, with the label that is there and the one that is found."""
        if self.kept is None:
            return ""
        module.eval()
        places = np.random.Generator(np.random.PCG64([seed])).permutation(len(self.kept))[:_SAMPLES]
        lines = []
        for place in places.tolist():
            batch = self.kept.batch(np.array([place]))
            found = self.logits(module, batch).argmax(dim=-1).numpy()[batch.targets != IGNORED]
            names = " ".join(self.labels[label] for label in found.tolist())
            example = self.kept.examples[place]
            lines.append(f"{example.shown[:100]} -> {names} (is {' '.join(example.labels)})")
        module.train()
        return "\n".join(lines)

    def save(self, folder: Path, parameters: dict[str, Tensor] | None = None) -> None:
        """The model folder; of other parameters than the model's, where those are shards."""
        model = self.model
        if parameters is not None:
            model = type(model)(model.bert.config, len(self.labels))
            model.load_state_dict(parameters)
        save_encoder(model, folder, self.tokenizer, padding_token=self.specials.padding, labels=self.labels)


class Examples:
    """Examples as tokens, in an order that seed and epoch determine."""

    def __init__(self, task: Labelling, examples: list[Example]) -> None:
        self.examples = examples
        numbers = {label: number for number, label in enumerate(task.labels)}
        self._padding = task.specials.padding
        self._rows, self._types = [], []
        self._targets: list[NDArray[np.int64]] = []
        text_bytes = labels = 0
        for example, encoded in zip(examples, _encode(task, examples), strict=True):
            for label in example.labels:
                if label not in numbers:
                    raise FormatError(
                        f"label {label!r} of {example.shown[:60]!r} is none of the training data"
                    )
            known = [numbers[label] for label in example.labels]
            self._rows.append(np.array(encoded.ids, np.int64))
            self._types.append(np.array(encoded.type_ids, np.int64))
            self._targets.append(_targets(task.config.task, encoded, known))
            text_bytes, labels = text_bytes + len(example.shown.encode()), labels + len(known)
        self.bytes_per_label = text_bytes / max(1, labels)
        self._order: tuple[int, NDArray[np.int64]] | None = None

    def __len__(self) -> int:
        return len(self.examples)

    def shuffled(self, first: int, count: int, seed: int) -> NDArray[np.int64]:
        """Places of examples number `first` to `first + count` since training began, shorter ones first."""
        chosen = []
        for number in range(first, first + count):
            epoch, place = divmod(number, len(self))
            if self._order is None or self._order[0] != epoch:
                self._order = (
                    epoch,
                    np.random.Generator(np.random.PCG64([seed, epoch])).permutation(len(self)),
                )
            chosen.append(int(self._order[1][place]))
        return np.array(sorted(chosen, key=lambda place: len(self._rows[place])), np.int64)

    def in_order(self, size: int) -> Iterator[EncoderBatch]:
        for first in range(0, len(self), size):
            yield self.batch(np.arange(first, min(first + size, len(self))))

    def batch(self, places: NDArray[np.int64]) -> EncoderBatch:
        """These examples, padded to the longest."""
        rows = [self._rows[place] for place in places]
        lengths = np.array([len(row) for row in rows])
        targets = [self._targets[place] for place in places]
        several = bool(targets) and targets[0].ndim == 1
        return EncoderBatch(
            padded(rows, self._padding),
            padded(targets, IGNORED) if several else np.array(targets, np.int64),
            present=np.arange(lengths.max()) < lengths[:, None],
            types=padded([self._types[place] for place in places], 0),
        )


def _known_labels(folder: Path | None) -> list[str]:
    """The labels of a folder that was trained before, in their order; else none."""
    if folder is None or not (folder / "config.json").is_file():
        return []
    names = read_json(folder / "config.json").get("id2label")
    if not isinstance(names, dict):
        raise FormatError(f"{folder / 'config.json'}: id2label: is missing; this BERT has learned no labels")
    return [str(names[number]) for number in sorted(names, key=int)]


def _rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[str, tuple[object, ...]]]:
    if not path.is_file():
        raise FormatError(f"{path}: there is no such file")
    yield from read_rows(path, columns)


def _example(task: str, where: str, values: tuple[object, ...]) -> Example:
    *texts, label = values
    if task == "tokens":
        words, tags = _words(texts[0], where), _words(label, where)
        if len(words) != len(tags):
            raise FormatError(f"{where}: {len(words)} words and {len(tags)} tags")
        return Example((words,), tags)
    for value in texts:
        if not isinstance(value, str):
            raise FormatError(f"{where}: must be text, not {type(value).__name__}")
    if label is None or isinstance(label, list | dict) or str(label) == "":
        raise FormatError(f"{where}: the label must be a word or a number")
    return Example(tuple(str(value) for value in texts), (str(label),))


def _words(value: object, where: str) -> tuple[str, ...]:
    if isinstance(value, str):
        return tuple(value.split())
    if isinstance(value, list) and all(isinstance(each, str | int) for each in value):
        return tuple(map(str, value))
    raise FormatError(f"{where}: must be words, as a list or separated by spaces")


def _encode(task: Labelling, examples: list[Example]) -> list[Encoding]:
    tokenizer: Tokenizer = task.tokenizer
    tokenizer.enable_truncation(task.config.context)
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True
    texts: list[Any] = [each.texts if len(each.texts) == 2 else each.texts[0] for each in examples]
    try:
        return tokenizer.encode_batch(texts, is_pretokenized=task.config.task == "tokens")
    finally:
        tokenizer.no_truncation()


def _targets(task: str, encoded: Encoding, labels: list[int]) -> NDArray[np.int64]:
    """int64[]: the label; or int64[T]: that of each word at its first piece, IGNORED elsewhere."""
    if task != "tokens":
        return np.array(labels[0], np.int64)
    before, targets = None, []
    for word in encoded.word_ids:
        targets.append(IGNORED if word is None or word == before else labels[word])
        before = word
    return np.array(targets, np.int64)
