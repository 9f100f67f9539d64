"""Token healing: the prompt's last tokens are taken back and written anew, within the bytes that they had.

A prompt that ends with `http:` ends with a token that the model never saw before `//`, since `://` is a token
of its own.  Taking back what some longer token begins with lets the model spell the seam as it knows it
(Lundberg 2023, "The art of prompt design: prompt boundaries and token healing"; guidance).

V: vocabulary, W: words of a mask, ceil(V / 32).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

MOST_TAKEN_BACK = 4  # tokens


class SortedVocabulary:
    """Tokens in the order of their bytes; those without any (control tokens) are left out."""

    def __init__(self, token_bytes: Sequence[bytes]) -> None:
        numbered = sorted((data, token) for token, data in enumerate(token_bytes) if data)
        self.token_bytes = token_bytes
        self._texts = [data for data, _ in numbered]
        self._tokens = np.array([token for _, token in numbered], np.int32)

    def beginning_with(self, data: bytes) -> NDArray[np.int32]:
        """Tokens that begin with these bytes, int32."""
        first = bisect_left(self._texts, data)
        last = bisect_right(self._texts, data, lo=first, key=lambda text: text[: len(data)])
        return self._tokens[first:last]

    def spelling(self, data: bytes) -> NDArray[np.int32]:
        """Tokens that are exactly these bytes, int32."""
        return self._tokens[bisect_left(self._texts, data) : bisect_right(self._texts, data)]

    def take_back(self, tokens: Sequence[int]) -> tuple[list[int], bytes]:
        """A prompt without the longest end that a longer token begins with, and the bytes of that end.

        At most MOST_TAKEN_BACK tokens, whole characters, never a control token and never the whole prompt.
        """
        kept, healed, tail = len(tokens), b"", b""
        for place in range(len(tokens) - 1, max(len(tokens) - 1 - MOST_TAKEN_BACK, 0), -1):
            data = self.token_bytes[tokens[place]]
            if not data:
                break
            tail = data + tail
            longer = len(self.beginning_with(tail)) > len(self.spelling(tail))
            if longer and tail[0] & 0xC0 != 0x80:
                kept, healed = place, tail
        return list(tokens[:kept]), healed


class HealedPrompt:
    """The constraint (constraint.py) of a free text that must begin with the bytes taken back."""

    shortened = False

    def __init__(self, data: bytes, vocabulary: SortedVocabulary) -> None:
        self._data = data
        self._vocabulary = vocabulary

    def mask(self, generated: Sequence[int]) -> NDArray[np.int32] | None:
        """int32 [W], or None once the bytes are there."""
        rest = self._rest(generated)
        if not rest:
            return None
        words = np.zeros((len(self._vocabulary.token_bytes) + 31) // 32, np.int32)
        allowed = [self._vocabulary.beginning_with(rest)]
        allowed += [self._vocabulary.spelling(rest[:length]) for length in range(1, len(rest))]
        for tokens in allowed:
            np.bitwise_or.at(words, tokens // 32, np.left_shift(np.int32(1), tokens % 32))
        return words

    def admit(self, generated: Sequence[int], token: int, remaining: int) -> int:
        """The token: no text needs an end."""
        return token

    def forced(self, generated: Sequence[int], remaining: int) -> list[int]:
        """None."""
        return []

    def ending(self, generated: Sequence[int]) -> list[int] | None:
        """None: no text needs one."""
        return None

    def finished(self, generated: Sequence[int]) -> bool:
        """Never."""
        return False

    def admissible(self, generated: Sequence[int], tokens: Sequence[int]) -> int:
        """How many of these tokens, from the first on, can follow."""
        rest = self._rest(generated)
        for count, token in enumerate(tokens):
            data = self._vocabulary.token_bytes[token]
            if not rest:
                break
            if not data or not (data.startswith(rest) or rest.startswith(data)):
                return count
            rest = rest[len(data) :]
        return len(tokens)

    def places(self, generated: Sequence[int]) -> Sequence[Hashable]:
        """None: there is no grammar to learn from."""
        return ()

    def _rest(self, generated: Sequence[int]) -> bytes:
        rest = self._data
        for token in generated:
            if not rest:
                break
            rest = rest[len(self._vocabulary.token_bytes[token]) :]
        return rest
