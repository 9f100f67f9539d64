"""Text to ids and back, identical to the model's own tokenizer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Protocol

from octavo.text.encoders import Encoder, SpecialTokenSplitter
from octavo.text.gguf_vocabulary import read_gguf_tokenizer
from octavo.text.streaming import StreamDecoder
from octavo.text.vocabulary import Vocabulary


class _TextEncoder(Protocol):
    def encode(self, text: str, *, parse_special: bool) -> list[int]: ...


class Tokenizer:
    """A model's tokenizer.

    vocabulary_size: number of ids.  beginning_id: the token that begins a text, if there is one.
    end_ids: every id that ends a generation.  add_beginning: whether `encode` adds beginning_id by default.
    tokens: how the file writes each of them.
    special_tokens: "bos_token", "eos_token", ... -> text, as chat templates name them.
    """

    def __init__(self, vocabulary: Vocabulary, encoder: _TextEncoder) -> None:
        self._vocabulary = vocabulary
        self._encoder = encoder
        self._bytes: dict[int, bytes] = {}
        self.vocabulary_size: int = len(vocabulary.tokens)
        self.tokens: Sequence[str] = vocabulary.tokens
        self.beginning_id: int | None = vocabulary.beginning_id
        self.end_ids: frozenset[int] = vocabulary.end_ids
        self.add_beginning: bool = vocabulary.beginning_id in vocabulary.prefix
        self.special_tokens: Mapping[str, str] = vocabulary.names

    @classmethod
    def from_file(cls, tokenizer_json: Path, config: Mapping[str, object] | None = None) -> Tokenizer:
        """From a Hugging Face tokenizer.json.

        config: tokenizer_config.json's content, optionally with eos_token_id (int or list) of the generation
        config; without it the files beside tokenizer_json are read where present.  Raises FormatError.
        """
        from octavo.text.huggingface import read_tokenizer_file

        return cls(*read_tokenizer_file(tokenizer_json, config))

    @classmethod
    def from_gguf(cls, metadata: Mapping[str, object]) -> Tokenizer:
        """From GGUF metadata, key -> value (arrays are lists or numpy arrays).

        Raises FormatError for inconsistent fields, UnsupportedError for kinds that octavo does not have.
        """
        parts = read_gguf_tokenizer(metadata)
        encoder = _SplittingEncoder(
            parts.encoder, parts.control_texts, parts.user_texts, strip_after=parts.strip_after_control
        )
        return cls(parts.vocabulary, encoder)

    def encode(self, text: str, *, add_special: bool = True, parse_special: bool = False) -> list[int]:
        """The ids of `text`.

        add_special: add the beginning and end tokens that the model was trained with.
        parse_special: control tokens written in the text (rendered chat) become those tokens; by default they
        are plain text, so a user cannot forge them.  Lone surrogates are encoded as U+FFFD.
        """
        ids = self._encoder.encode(_without_surrogates(text), parse_special=parse_special)
        return [*self._vocabulary.prefix, *ids, *self._vocabulary.suffix] if add_special else ids

    def decode(self, ids: Sequence[int], *, skip_special: bool = True, continuation: bool = False) -> str:
        """The text of `ids`; invalid UTF-8 becomes U+FFFD.

        skip_special: leave control tokens out.  continuation: the ids go on from earlier text, so the space
        that SentencePiece and WordPiece put before the first word stays.
        """
        stream = self.stream(skip_special=skip_special, continuation=continuation)
        return "".join(map(stream.push, ids)) + stream.finish()

    def token_bytes(self, id: int) -> bytes:
        """The exact bytes a token stands for; b"" for control tokens and for ids past the vocabulary."""
        data = self._bytes.get(id)
        if data is None:
            data = b"" if id in self._vocabulary.control else self._vocabulary.bytes_of(id)
            self._bytes[id] = data
        return data

    def stream(self, *, skip_special: bool = True, continuation: bool = False) -> StreamDecoder:
        """A decoder for ids as they are generated; the arguments are those of `decode`."""
        return StreamDecoder(
            self.token_bytes if skip_special else self._vocabulary.bytes_of,
            strip_first_space=self._vocabulary.strip_first_space and not continuation,
        )


class _SplittingEncoder:
    """Takes control tokens out if asked to, then user-defined tokens, and encodes what lies between them.

    The order is SentencePiece's: the space before a text counts when user-defined tokens are looked for.
    """

    def __init__(
        self, encoder: Encoder, control: Mapping[str, int], user: Mapping[str, int], *, strip_after: bool
    ) -> None:
        self._encoder = encoder
        self._control_texts = control
        self._user = SpecialTokenSplitter(user)
        self._strip_after = strip_after

    @cached_property
    def _control(self) -> SpecialTokenSplitter:
        return SpecialTokenSplitter(self._control_texts)

    def encode(self, text: str, *, parse_special: bool) -> list[int]:
        ids: list[int] = []
        for piece in self._control.split(text) if parse_special else [text] * bool(text):
            if isinstance(piece, int):
                ids.append(piece)
                continue
            if ids and self._strip_after:
                piece = piece.lstrip()
            for part in self._user.split(self._encoder.escape(piece) if piece else ""):
                if isinstance(part, int):
                    ids.append(part)
                else:
                    ids += self._encoder.encode(part)
        return ids


def _without_surrogates(text: str) -> str:
    """Surrogate pairs joined, lone surrogates replaced: what a browser does with the same string."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text
