"""Finding special tokens in text: the longest at the leftmost place, in linear time."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping


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
