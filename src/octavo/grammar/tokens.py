"""A tokenizer's vocabulary as bytes, and the trie over it that masks are computed on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from octavo import _native
from octavo.grammar.errors import GrammarError


class TokenizerInfo:
    """What a grammar needs of a tokenizer: the bytes of each token, which are special, which end the text.

    A token of no bytes, and every special token, is never matched as text; stop tokens are allowed where the
    text is complete.  `vocabulary_size` may exceed the number of tokens (padding of the model's last layer).
    """

    def __init__(
        self,
        token_bytes: Sequence[bytes | None],
        *,
        stop_token_ids: Iterable[int] = (),
        special_token_ids: Iterable[int] = (),
        vocabulary_size: int | None = None,
    ) -> None:
        self.vocabulary_size = max(len(token_bytes), vocabulary_size or 0)
        self.stop_token_ids = tuple(sorted(set(stop_token_ids)))
        special = set(special_token_ids) | set(self.stop_token_ids)
        if any(not 0 <= token < self.vocabulary_size for token in special):
            raise GrammarError(f"a special or stop token is outside the vocabulary of {self.vocabulary_size}")
        self.token_bytes: list[bytes] = [
            b"" if token is None or number in special else bytes(token)
            for number, token in enumerate(token_bytes)
        ]

    @cached_property
    def trie(self) -> TokenTrie:
        """For the engine in Python."""
        return TokenTrie(self.token_bytes)

    @cached_property
    def native(self) -> _native.GrammarVocabulary:
        return _native.GrammarVocabulary(self.token_bytes, list(self.stop_token_ids), self.vocabulary_size)

    @cached_property
    def max_token_bytes(self) -> int:
        return max(map(len, self.token_bytes), default=0)

    @classmethod
    def from_tokenizer(cls, tokenizer: Any, vocabulary_size: int | None = None) -> TokenizerInfo:
        """From an object with `token_bytes`, a list or a function of the id.

        Where it has them, also `vocab_size`, `stop_ids` and `special_ids`.
        """
        known = tokenizer.token_bytes
        if callable(known):
            size = int(getattr(tokenizer, "vocab_size", 0) or len(tokenizer))
            known = [known(token) for token in range(size)]
        return cls(
            known,
            stop_token_ids=getattr(tokenizer, "stop_ids", ()),
            special_token_ids=getattr(tokenizer, "special_ids", ()),
            vocabulary_size=vocabulary_size,
        )

    def split(self, data: bytes) -> list[int] | None:
        """Tokens that spell some bytes, the longest first; None where no token has a byte that is needed."""
        found: list[int] | None = self.native.split(data)
        return found

    @property
    def mask_words(self) -> int:
        return (self.vocabulary_size + 31) // 32


class TokenTrie:
    """The vocabulary in depth-first order, in flat arrays.

    Node n has byte[n], its subtree is n .. end[n]-1, and the tokens of its subtree are
    order[first[n]:first[end[n]]], where `order` holds token ids by their bytes; node 0 is the root.  Tokens
    with equal bytes share a node.
    """

    def __init__(self, token_bytes: Sequence[bytes]) -> None:
        numbered = sorted((token, number) for number, token in enumerate(token_bytes) if token)
        self.order: npt.NDArray[np.int32] = np.array([number for _, number in numbered], np.int32)
        self.max_token_bytes = max((len(token) for token, _ in numbered), default=0)
        byte, end, first, own = [0], [0], [0], [0]
        path: list[int] = [0]
        before = b""
        for position, (token, _) in enumerate(numbered):
            common = _common_prefix(before, token)
            for node in path[common + 1 :]:
                end[node] = len(byte)
            del path[common + 1 :]
            for value in token[common:]:
                path.append(len(byte))
                byte.append(value)
                end.append(0)
                first.append(position)
                own.append(0)
            own[path[-1]] += 1
            before = token
        for node in path:
            end[node] = len(byte)
        self.byte: list[int] = byte
        self.end: list[int] = end
        self.first: list[int] = [*first, len(numbered)]
        self.own: list[int] = own  # tokens that end exactly here

    def child(self, node: int, byte: int) -> int | None:
        """The node below `node` for a byte."""
        below = node + 1
        while below < self.end[node]:
            if self.byte[below] == byte:
                return below
            below = self.end[below]
        return None


def _common_prefix(left: bytes, right: bytes) -> int:
    count = 0
    for a, b in zip(left, right, strict=False):
        if a != b:
            break
        count += 1
    return count


def allocate_token_bitmask(rows: int, vocabulary_size: int) -> npt.NDArray[np.int32]:
    """[rows, ceil(vocabulary_size / 32)], every token allowed; bit t % 32 of word t // 32 is token t."""
    return np.full((rows, (vocabulary_size + 31) // 32), -1, np.int32)


def bitmask_to_bools(mask: npt.NDArray[np.int32], vocabulary_size: int) -> npt.NDArray[np.bool_]:
    return np.unpackbits(mask.view(np.uint8), bitorder="little")[:vocabulary_size].astype(np.bool_)


def bools_to_bitmask(allowed: npt.NDArray[np.bool_]) -> npt.NDArray[np.int32]:
    padded = np.zeros((len(allowed) + 31) // 32 * 32, np.bool_)
    padded[: len(allowed)] = allowed
    return np.packbits(padded, bitorder="little").view(np.int32)
