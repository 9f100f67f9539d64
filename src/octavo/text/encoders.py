"""Text to ids: the search for special tokens, and for each kind of vocabulary an encoder of the rest."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from octavo.errors import FormatError
from octavo.text.merging import WordCache, merge
from octavo.text.pretokenizers import PreTokenizer
from octavo.text.string_table import StringTable
from octavo.text.vocabulary import SPACE_MARK, byte_alphabet

_CHUNK = 16_384
_SAFE_CUT = re.compile("[A-Za-z](?= )")


class Encoder(Protocol):
    """Encodes the text between special tokens."""

    def escape(self, text: str) -> str:
        """Text between control tokens in the form in which user-defined tokens are looked for."""

    def encode(self, text: str) -> list[int]:
        """Ids of escaped text without user-defined tokens."""


class ByteLevelEncoder:
    """Byte-level BPE (Radford et al., 2019): cut, spell the bytes, merge within each cut."""

    def __init__(self, tokens: StringTable, merges: StringTable, cuts: PreTokenizer) -> None:
        self._tokens = tokens
        self._merges = merges
        self._cuts = cuts
        self._cutter = cuts.build()
        # SmolLM2 has no token for some bytes that UTF-8 seldom uses; its own tokenizer drops them, so do we.
        self._missing = {
            ord(character): None for character in byte_alphabet().values() if tokens.find(character) is None
        }
        self._words = WordCache(self._encode_word)

    def escape(self, text: str) -> str:
        return text

    def encode(self, text: str) -> list[int]:
        if self._cuts.compose and not text.isascii():
            from tokenizers import normalizers

            text = normalizers.NFC().normalize_str(text)
        ids: list[int] = []
        for chunk in _chunks(text):
            for word, _ in self._cutter.pre_tokenize_str(chunk):
                ids += self._words.ids(word)
        return ids

    def _rank(self, left: str, right: str) -> int | None:
        return self._merges.find(f"{left} {right}")

    def _encode_word(self, word: str) -> list[int]:
        if self._cuts.ignore_merges and (whole := self._tokens.find(word)) is not None:
            return [whole]
        return [self._id_of(symbol) for symbol in merge(word.translate(self._missing), self._rank)]

    def _id_of(self, symbol: str) -> int:
        id = self._tokens.find(symbol)
        if id is None:
            raise FormatError(f"tokenizer.ggml.merges makes {symbol!r}, not in tokenizer.ggml.tokens")
        return id


def _chunks(text: str) -> Iterator[str]:
    """Parts of a long text, to bound the list of cuts: every family cuts between a letter and a space."""
    begin = 0
    while len(text) - begin > 2 * _CHUNK and (found := _SAFE_CUT.search(text, begin + _CHUNK)):
        yield text[begin : found.end()]
        begin = found.end()
    yield text[begin:]


class SentencePieceEncoder:
    """SentencePiece's BPE: merge neighbours whose union is the best-scored token; bytes for what is left.

    tokens: by id, spaces written as U+2581.  ranks: by id, 0 for the best score, equal where scores are.
    unmergeable: tokens that text never becomes (control, byte, ...).  byte_ids: the 256 byte tokens, or none.
    """

    def __init__(
        self,
        tokens: StringTable,
        ranks: Sequence[int],
        *,
        unmergeable: frozenset[int],
        byte_ids: Sequence[int],
        unknown_id: int | None,
        space_prefix: bool,
    ) -> None:
        self._tokens = tokens
        self._ranks = ranks
        self._unmergeable = unmergeable
        self._byte_ids = byte_ids
        self._unknown_id = unknown_id
        self._space_prefix = space_prefix
        self._boundary = _word_boundary(tokens)
        self._words = WordCache(self._encode_word)

    def escape(self, text: str) -> str:
        return (SPACE_MARK if self._space_prefix else "") + text.replace(" ", SPACE_MARK)

    def encode(self, text: str) -> list[int]:
        ids: list[int] = []
        for word in self._boundary.split(text):
            ids += self._words.ids(word)
        return ids

    def _rank(self, left: str, right: str) -> int | None:
        id = self._tokens.find(left + right)
        return None if id is None or id in self._unmergeable else self._ranks[id]

    def _encode_word(self, word: str) -> list[int]:
        ids: list[int] = []
        unknown_before = False
        for symbol in merge(word, self._rank):
            id = self._tokens.find(symbol)
            if id is not None and id not in self._unmergeable:
                ids.append(id)
                unknown_before = False
            elif self._byte_ids:
                ids += [self._byte_ids[byte] for byte in symbol.encode()]
            elif self._unknown_id is not None and not unknown_before:
                ids.append(self._unknown_id)  # one for a run, as the original does
                unknown_before = True
        return ids


def _word_boundary(tokens: StringTable) -> re.Pattern[str]:
    """Where text may be cut without changing the result.

    Before a space mark, after a character that no token has before one.  (Gemma has one token with ">" there;
    SentencePiece makes none by default.)
    """
    before = tokens.characters_before(SPACE_MARK) - {SPACE_MARK}
    kept = "".join(map(re.escape, sorted(before)))
    return re.compile(f"(?<=[^{SPACE_MARK}{kept}])(?={SPACE_MARK})")


class WordPieceEncoder:
    """BERT's tokenizer by the `tokenizers` library: clean, cut at spaces and punctuation, longest first."""

    def __init__(self, ids: Mapping[str, int], *, unknown: str, lowercase: bool) -> None:
        from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

        self._library = Tokenizer(
            models.WordPiece(vocab=dict(ids), unk_token=unknown, max_input_chars_per_word=100)
        )
        self._library.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
        self._library.pre_tokenizer = pre_tokenizers.BertPreTokenizer()

    def escape(self, text: str) -> str:
        return text

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self._library.encode(text, add_special_tokens=False).ids
        return ids


class SpecialTokenSplitter:
    """Splits text at the tokens given.  Between them, text is ordinary and goes to the encoder.

    A search for the tokens' first two characters, then a dict lookup for each length that such a token has:
    an alternation of Gemma's 6,400 special tokens would cost more to compile than everything else together.
    """

    def __init__(self, tokens: Mapping[str, int]) -> None:
        self._ids = {text: token for text, token in tokens.items() if text}
        lengths: dict[str, set[int]] = {}
        for text in self._ids:
            lengths.setdefault(text[:2], set()).add(len(text))
        self._lengths = {start: sorted(found, reverse=True) for start, found in lengths.items()}
        starts = sorted(self._lengths, key=len, reverse=True)
        self._start = re.compile("|".join(map(re.escape, starts))) if starts else None

    def split(self, text: str) -> Iterator[str | int]:
        """Pieces of text (never empty) and ids of special tokens, in order."""
        if self._start is None:
            if text:
                yield text
            return
        begin = position = 0
        while (found := self._start.search(text, position)) is not None:
            position = found.start()
            length = self._match(text, position)
            if not length:
                position += 1
                continue
            if begin < position:
                yield text[begin:position]
            yield self._ids[text[position : position + length]]
            begin = position = position + length
        if begin < len(text):
            yield text[begin:]

    def _match(self, text: str, position: int) -> int:
        """Length of the longest token at `position`, 0 if there is none."""
        for start in (text[position : position + 2], text[position]):
            for length in self._lengths.get(start, ()):
                if text[position : position + length] in self._ids:
                    return length
        return 0
