"""The tokenizer that a GGUF file describes in its metadata (ggml/docs/gguf.md, section "Tokenizer")."""

from __future__ import annotations

import enum
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from octavo.errors import FormatError, UnsupportedError
from octavo.text.encoders import (
    ByteLevelEncoder,
    Encoder,
    SentencePieceEncoder,
    WordPieceEncoder,
)
from octavo.text.pretokenizers import PreTokenizer, pretokenizer
from octavo.text.string_table import StringTable
from octavo.text.vocabulary import SPACE_MARK, Spelling, Vocabulary, find_end_ids

_MODELS = ("gpt2", "llama", "bert")
_NAMES = {"bos": "bos_token", "eos": "eos_token", "unknown": "unk_token", "padding": "pad_token"}


class TokenType(enum.IntEnum):
    """tokenizer.ggml.token_type."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True)
class GgufTokenizer:
    """All that a Tokenizer is made of."""

    vocabulary: Vocabulary
    encoder: Encoder
    control_texts: Mapping[str, int]
    user_texts: Mapping[str, int]
    strip_after_control: bool = False


def read_gguf_tokenizer(metadata: Mapping[str, object]) -> GgufTokenizer:
    """Builds the tokenizer from GGUF key -> value.

    Raises FormatError for inconsistent fields, UnsupportedError for a tokenizer that octavo does not have.
    """
    return _Reader(metadata).read()


class _Reader:
    """Checks each field once, where it is read."""

    def __init__(self, metadata: Mapping[str, object]) -> None:
        self._metadata = metadata
        self.model = self._text("model", None)
        if self.model not in _MODELS:
            raise UnsupportedError(
                f"the GGUF field tokenizer.ggml.model is {self.model!r}; octavo has {', '.join(_MODELS)}"
            )
        self.tokens = self._texts("tokens")
        if not self.tokens:
            raise FormatError("the GGUF field tokenizer.ggml.tokens is empty")
        self.types = self._types()

    def read(self) -> GgufTokenizer:
        architecture = self._metadata.get("general.architecture")
        escape_spaces = self.model == "llama"
        control = self._texts_of(escape_spaces, TokenType.CONTROL, TokenType.UNKNOWN)
        user = self._texts_of(escape_spaces, TokenType.USER_DEFINED)
        return GgufTokenizer(
            vocabulary=self._vocabulary(control),
            encoder={"gpt2": self._byte_level, "llama": self._sentencepiece, "bert": self._wordpiece}[
                self.model
            ](),
            control_texts=control,
            user_texts=user,
            # Phi-3's own tokenizer.json swallows the white space after its marks; GGUF has no field for it.
            strip_after_control=architecture == "phi3" and self.model == "llama",
        )

    def _vocabulary(self, control: Mapping[str, int]) -> Vocabulary:
        named = {name: self._id(name) for name in ("bos", "eos", "eot", "eom", "unknown", "padding")}
        prefix, suffix, beginning = self._frame(named)
        return Vocabulary(
            tokens=self._wordpiece_tokens() if self.model == "bert" else self.tokens,
            spelling={
                "gpt2": Spelling.BYTE_LEVEL,
                "llama": Spelling.SENTENCEPIECE,
                "bert": Spelling.WORDPIECE,
            }[self.model],
            control=frozenset(control.values()),
            literal=self._ids_of(TokenType.USER_DEFINED) if self.model == "gpt2" else frozenset(),
            end_ids=find_end_ids((named["eos"], named["eot"], named["eom"]), control)
            if self.model != "bert"
            else frozenset(),
            beginning_id=beginning,
            prefix=prefix,
            suffix=suffix,
            strip_first_space=self.model == "bert" or (self.model == "llama" and self._space_prefix()),
            names={name: self.tokens[id] for key, name in _NAMES.items() if (id := named[key]) is not None},
        )

    def _frame(self, named: Mapping[str, int | None]) -> tuple[tuple[int, ...], tuple[int, ...], int | None]:
        """Ids before and after a text encoded with special tokens, and the beginning token."""
        beginning, end = named["bos"], named["eos"]
        if self.model == "bert":
            first = self._id("cls") if beginning is None else beginning
            last = self._id("seperator")  # so spelled in the format
            if first is None or last is None:
                raise FormatError("a WordPiece GGUF needs tokenizer.ggml.bos_token_id and seperator_token_id")
            return (first,), (last,), first
        default = self.model == "llama" or self._pretokenizer().add_beginning
        add_beginning = self._flag("add_bos_token", default) and beginning is not None
        add_end = self._flag("add_eos_token", False) and end is not None
        return (
            (cast(int, beginning),) if add_beginning else (),
            (cast(int, end),) if add_end else (),
            beginning,
        )

    def _byte_level(self) -> Encoder:
        return ByteLevelEncoder(self.tokens, self._texts("merges"), self._pretokenizer())

    def _pretokenizer(self) -> PreTokenizer:
        return pretokenizer(self._text("pre", "default"))

    def _sentencepiece(self) -> Encoder:
        scores = np.asarray(self._metadata.get("tokenizer.ggml.scores"))
        if scores.shape != (len(self.tokens),) or scores.dtype.kind != "f":
            raise FormatError(f"tokenizer.ggml.scores must be {len(self.tokens)} floats")
        if not np.isfinite(scores).all():
            raise FormatError("tokenizer.ggml.scores holds values that are not finite")
        spelled = self.tokens.replaced(" ", SPACE_MARK) if self.tokens.holding(" ") else self.tokens
        return SentencePieceEncoder(
            spelled,
            array("i", np.unique(-scores, return_inverse=True)[1].astype(np.int32).tobytes()),
            unmergeable=self._ids_of(TokenType.CONTROL, TokenType.UNKNOWN, TokenType.BYTE, TokenType.UNUSED),
            byte_ids=self._byte_ids(),
            unknown_id=self._id("unknown"),
            space_prefix=self._space_prefix(),
        )

    def _wordpiece(self) -> Encoder:
        ids = dict(zip(self._wordpiece_tokens(), range(len(self.tokens)), strict=True))
        unknown = self._id("unknown")
        if unknown is None:
            raise FormatError("a WordPiece GGUF needs tokenizer.ggml.unknown_token_id")
        # The format has no field for case: a vocabulary without one capital is an uncased one.
        normal = (self.tokens[id] for id in self._ids_of(TokenType.NORMAL))
        cased = any("A" <= character <= "Z" for text in normal for character in text if text[0] != "[")
        return WordPieceEncoder(ids, unknown=self.tokens[unknown], lowercase=not cased)

    def _wordpiece_tokens(self) -> Sequence[str]:
        """BERT's own spelling: GGUF marks words (U+2581) where BERT marks what continues them (##)."""

        def respell(text: str) -> str:
            if text.startswith(SPACE_MARK):
                return text[1:]
            return text if text.startswith("[") and text.endswith("]") else "##" + text

        return [respell(text) for text in self.tokens]

    def _space_prefix(self) -> bool:
        return self._flag("add_space_prefix", True)

    def _byte_ids(self) -> Sequence[int]:
        """The ids of <0x00> to <0xFF>, or nothing if the vocabulary lacks some."""
        byte_type = self._ids_of(TokenType.BYTE)
        by_text = {self.tokens[id].upper(): id for id in byte_type}
        names = [f"<0X{byte:02X}>" for byte in range(256)]
        return [by_text[name] for name in names] if all(name in by_text for name in names) else []

    def _ids_of(self, *types: TokenType) -> frozenset[int]:
        return frozenset(np.flatnonzero(np.isin(self.types, types)).tolist())

    def _texts_of(self, escape_spaces: bool, *types: TokenType) -> dict[str, int]:
        texts = {self.tokens[id]: id for id in sorted(self._ids_of(*types))}
        return {text.replace(" ", SPACE_MARK): id for text, id in texts.items()} if escape_spaces else texts

    def _types(self) -> np.ndarray:
        values = self._metadata.get("tokenizer.ggml.token_type")
        if values is None:
            return np.full(len(self.tokens), TokenType.NORMAL)
        types = np.asarray(values)
        if types.shape != (len(self.tokens),) or types.dtype.kind not in "iu":
            raise FormatError(f"tokenizer.ggml.token_type must be {len(self.tokens)} integers")
        return types

    def _texts(self, name: str) -> StringTable:
        key = f"tokenizer.ggml.{name}"
        values = self._metadata.get(key)
        if isinstance(values, list):
            try:
                return StringTable.of(key, values)
            except TypeError:
                values = None
        if not isinstance(values, StringTable):
            raise FormatError(f"the GGUF field {key} must be an array of strings")
        values.check()
        return values

    def _text(self, name: str, default: str | None) -> str:
        value = self._metadata.get(f"tokenizer.ggml.{name}", default)
        if not isinstance(value, str):
            raise FormatError(f"the GGUF field tokenizer.ggml.{name} must be a string, not {value!r:.80}")
        return value

    def _flag(self, name: str, default: bool) -> bool:
        value = self._metadata.get(f"tokenizer.ggml.{name}", default)
        if not isinstance(value, (bool, np.bool_)):
            raise FormatError(
                f"the GGUF field tokenizer.ggml.{name} must be true or false, not {value!r:.80}"
            )
        return bool(value)

    def _id(self, name: str) -> int | None:
        key = f"tokenizer.ggml.{name}_token_id"
        value = self._metadata.get(key)
        if value is None:
            return None
        if not isinstance(value, (int, np.integer)) or not 0 <= int(value) < len(self.tokens):
            raise FormatError(f"the GGUF field {key} is {value!r:.80}, outside 0 to {len(self.tokens) - 1}")
        return int(value)
