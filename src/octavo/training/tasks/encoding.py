"""What pretraining and fine-tuning an encoder share: batches, configuration, tokenizer."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from octavo.data.packing import IGNORED
from octavo.data.vocabulary import ENCODER_SPECIALS, load_tokenizer, special_tokens, train_word_pieces
from octavo.model_config import ModelConfig
from octavo.training.tasks.encoder_config import EncoderConfig

if TYPE_CHECKING:
    from tokenizers import Tokenizer


@dataclass(frozen=True, eq=False)
class EncoderBatch:
    """inputs: int64[B, T], what the model sees.  targets: int64[B, T] or int64[B], IGNORED for none.

    present: bool[B, T], False for padding, or None for no padding.  types: int64[B, T], 0 and 1 for the parts
    of a pair, or None.  positions, documents: int64[B, T] of packed rows, or None.
    follows: int64[B] of next-sentence prediction (0: the second part follows the first), or None.
    """

    inputs: NDArray[np.int64]
    targets: NDArray[np.int64]
    present: NDArray[np.bool_] | None = None
    types: NDArray[np.int64] | None = None
    positions: NDArray[np.int64] | None = None
    documents: NDArray[np.int64] | None = None
    follows: NDArray[np.int64] | None = None

    @property
    def target_count(self) -> int:
        """What the sum of the losses is divided by."""
        return int((self.targets != IGNORED).sum())

    @property
    def token_count(self) -> int:
        return self.inputs.size if self.present is None else int(self.present.sum())

    def rows(self, first: int, last: int) -> EncoderBatch:
        """Some of its rows."""
        parts: dict[str, Any] = {each.name: getattr(self, each.name) for each in fields(self)}
        cut: dict[str, Any] = {
            name: None if part is None else part[first:last] for name, part in parts.items()
        }
        return replace(self, **cut)


def tensor(array: NDArray[np.generic] | None) -> Tensor | None:
    """The array as a tensor over a memory of its own."""
    return None if array is None else torch.from_numpy(np.ascontiguousarray(array))


def encoder_model_config(config: EncoderConfig, vocabulary_size: int) -> ModelConfig:
    """The network of Devlin et al. 2018: post-norm, GELU, learned positions, two token types."""
    width = config.hidden_size // config.heads
    return ModelConfig(
        architecture="bert",
        vocabulary_size=vocabulary_size,
        context_length=config.context,
        hidden_size=config.hidden_size,
        layers=config.layers,
        heads=config.heads,
        key_value_heads=config.heads,
        head_width=width,
        feed_forward_size=4 * config.hidden_size,
        norm="layer",
        norm_epsilon=1e-12,
        norm_position="post",
        activation="gelu",
        gated=False,
        learned_positions=config.context,
        token_types=2,
        causal=False,
        attention_scale=width**-0.5,
        embedding_norm=True,
        pooling="mean",
    )


def encoder_tokenizer(config: EncoderConfig, texts: Iterable[str], folder: Path | None) -> Tokenizer:
    """The run's own, the pretrained model's, the one that is named, or a new one of the texts."""
    if folder is not None and (folder / "tokenizer.json").exists():
        return load_tokenizer(folder)
    if config.start is not None:
        return load_tokenizer(Path(config.start).expanduser())
    if config.tokenizer != "wordpiece":
        return load_tokenizer(Path(config.tokenizer).expanduser())
    return train_word_pieces(texts, vocabulary_size=config.vocabulary_size, lowercase=config.lowercase)


@dataclass(frozen=True, slots=True)
class Specials:
    """Ids of an encoder's special tokens."""

    padding: int
    unknown: int
    beginning: int
    end: int
    mask: int


def encoder_specials(tokenizer: Tokenizer, where: str) -> Specials:
    """Raises FormatError where the vocabulary lacks one."""
    return Specials(*special_tokens(tokenizer, ENCODER_SPECIALS, where))
