"""Training a tokenizer: byte-level byte-pair encoding, or one token for each byte that occurs.

Byte-pair encoding: Sennrich, Haddow and Birch 2016; over bytes, as in GPT-2 (Radford et al. 2019, section
2.2).  The `tokenizers` library does the counting, and its tokenizer.json is what is written.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from octavo.errors import FormatError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Kind = Literal["bpe", "characters"]
END_OF_TEXT = "<|endoftext|>"
# All single bytes and the end of text.
SMALLEST_VOCABULARY = 257


def train_tokenizer(
    documents: Iterable[str], *, kind: Kind = "bpe", vocabulary_size: int = 4096
) -> Tokenizer:
    """A byte-level tokenizer of at most `vocabulary_size` tokens whose token 0 is END_OF_TEXT.

    kind "characters": no merges, and only the bytes that occur, so plain ASCII gets one token a character;
    bytes that never occurred cannot be encoded.  Raises FormatError for a corpus without text, ValueError for
    a size that cannot hold all bytes.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    characters = kind == "characters"
    if not characters and vocabulary_size < SMALLEST_VOCABULARY:
        raise ValueError(
            f"vocabulary_size: {vocabulary_size}; a byte-level tokenizer has at least {SMALLEST_VOCABULARY}"
        )
    tokenizer = Tokenizer(models.BPE())
    split = not characters  # GPT-2's pattern keeps merges within words
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=split)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=SMALLEST_VOCABULARY if characters else vocabulary_size,
        min_frequency=1 << 60 if characters else 2,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=[] if characters else sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(documents, trainer)
    if characters and tokenizer.get_vocab_size() < 2:
        raise FormatError("the corpus is empty: there is no text to make a vocabulary of")
    return tokenizer


def load_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer of a tokenizer.json, or of a folder that has one.  Raises FormatError."""
    from tokenizers import Tokenizer

    file = path / "tokenizer.json" if path.is_dir() else path
    if not file.is_file():
        raise FormatError(f"{file}: there is no such tokenizer.json")
    try:
        return Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises bare Exception
        raise FormatError(f"{file} is not a tokenizer.json that can be read: {error}") from error


def end_of_text_token(tokenizer: Tokenizer) -> int | None:
    """The id that separates documents, if the vocabulary has one of the usual names for it."""
    for name in (END_OF_TEXT, "</s>", "<|im_end|>", "<eos>"):
        token: int | None = tokenizer.token_to_id(name)
        if token is not None:
            return token
    return None
