"""A run that pretrains a BERT, or fine-tunes one on labelled texts, labelled pairs or labelled words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from octavo.errors import FormatError, UnsupportedError
from octavo.training.config import TrainingConfig
from octavo.weights.untrusted import read_json

# Task -> the columns of its tables when none are named.
COLUMNS: Mapping[str, tuple[str, ...]] = {
    "pretrain": (),
    "classify": ("text", "label"),
    "pairs": ("first", "second", "label"),
    "tokens": ("words", "tags"),
}


@dataclass(frozen=True, slots=True)
class EncoderConfig(TrainingConfig):
    """See TrainingConfig; what differs:

    task: "pretrain" learns to tell masked tokens of text (Devlin et al. 2018, section 3.1); "classify",
        "pairs" and "tokens" learn labels of texts, of pairs of texts and of words (section 4).
    start: a folder with a pretrained BERT, whose vocabulary is taken too; None begins with fresh weights.
    columns: of the tables of labelled data, names or (without a line of names) numbers from 1; by default
        text, label; first, second, label; words, tags, both as lists or separated by spaces.
    validation_data: files like data, instead of a part that is kept back.
    context: tokens of a row.  rows: of a forward pass; batch_tokens: of an update (fine-tuning: rows of an
        update are batch_tokens / context, however short the texts).

    Pretraining: mask_probability of the tokens are told, whole words at a time with whole_words.
    next_sentence: rows of two parts, and whether the second follows the first in its document.
    lowercase: of the vocabulary that is made.
    """

    model: ClassVar[str] = "bert"

    task: str = "pretrain"
    start: str | None = None
    columns: tuple[str, ...] = ()
    validation_data: tuple[str, ...] = ()
    mask_probability: float = 0.15
    whole_words: bool = True
    next_sentence: bool = False
    lowercase: bool = True

    tokenizer: str = "wordpiece"
    vocabulary_size: int = 8192
    architecture: str = "bert"
    context: int = 128
    rows: int = 64
    dropout: float = 0.1

    def __post_init__(self) -> None:
        """Raises UnsupportedError that names the key for an impossible value."""
        if self.architecture != "bert":
            raise UnsupportedError(f"architecture: {self.architecture!r}; an encoder's is 'bert'")
        if self.task not in COLUMNS:
            raise UnsupportedError(f"task: {self.task!r}; one of {', '.join(COLUMNS)}")
        if self.columns and len(self.columns) != len(COLUMNS[self.task]):
            raise UnsupportedError(
                f"columns: {', '.join(self.columns)}; {self.task} has {len(COLUMNS[self.task])}: "
                f"{', '.join(COLUMNS[self.task]) or 'none (use column)'}"
            )
        if not 0 < self.mask_probability < 1:
            raise UnsupportedError(f"mask_probability: {self.mask_probability}; a part, between 0 and 1")
        if self.next_sentence and (self.task != "pretrain" or self.context < 8):
            raise UnsupportedError("next_sentence: belongs to pretraining, with a context of at least 8")
        if self.tokenizer in ("bpe", "characters"):
            raise UnsupportedError(
                f"tokenizer: {self.tokenizer!r}; an encoder's is 'wordpiece' or a tokenizer.json"
            )
        self._check_common()

    def prepared(self) -> EncoderConfig:
        """With the sizes of the pretrained encoder.  Raises FormatError where `start` is none."""
        if self.start is None:
            return self
        path = Path(self.start).expanduser() / "config.json"
        if not path.is_file():
            raise FormatError(f"{self.start}: no config.json is here; from: is the folder of a trained BERT")
        values = read_json(path)
        if values.get("model_type") != "bert":
            raise FormatError(f"{path}: model_type: {values.get('model_type')!r}; a BERT is needed")
        names = ("num_hidden_layers", "hidden_size", "num_attention_heads", "max_position_embeddings")
        sizes = [values.get(name) for name in names]
        for name, size in zip(names, sizes, strict=True):
            if not isinstance(size, int) or size < 1:
                raise FormatError(f"{path}: {name}: {str(size)[:40]} is not possible")
        layers, hidden, heads, longest = (int(str(size)) for size in sizes)
        return replace(
            self, layers=layers, hidden_size=hidden, heads=heads, context=min(self.context, longest)
        )

    def default_learning_rate(self, hidden: int) -> float:
        """As for a decoder; a pretrained encoder moves a tenth as fast (A.3: 2e-5 to 5e-5 of 1e-4)."""
        rate = super(EncoderConfig, self).default_learning_rate(hidden)
        return rate * (0.1 if self.start else 1.0)
