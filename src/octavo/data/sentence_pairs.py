"""Rows of two parts for next-sentence prediction (Devlin et al. 2018, section 3.1, task 2).

A document is cut into windows; a window splits into two parts, and in half of the rows the second part is
that of a window drawn from anywhere.  Row and draw are functions of seed, epoch and place only.

Legend: B rows of a batch, T tokens of a row.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from octavo.data.shards import TokenCorpus
from octavo.errors import FormatError

_SHORTEST = 4  # a window of fewer tokens has no two parts


@dataclass(frozen=True, eq=False)
class SentencePairs:
    """tokens: int64[B, T] as [CLS] first [SEP] second [SEP] and padding.  present: bool[B, T].  types:
    int64[B, T], 0 up to the first [SEP] and 1 after it.  follows: int64[B], 0 where second follows first."""

    tokens: NDArray[np.int64]
    present: NDArray[np.bool_]
    types: NDArray[np.int64]
    follows: NDArray[np.int64]


@dataclass(eq=False)
class SentencePairRows:
    """corpus: documents framed by one token on both sides, which are left out.

    Raises FormatError if no document is long enough.
    """

    corpus: TokenCorpus
    length: int
    beginning: int
    end: int
    padding: int
    seed: int = 0
    _windows: NDArray[np.int64] = field(init=False, repr=False)  # [rows, 2]: begin and end in the corpus
    _order: tuple[int, NDArray[np.int64]] | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        size, windows = self.length - 3, []
        for begin, end in zip(self.corpus.starts[:-1] + 1, self.corpus.starts[1:] - 1, strict=True):
            edges = np.append(np.arange(begin, end, size), end)
            windows.append(np.stack((edges[:-1], edges[1:]), axis=1))
        found = np.concatenate(windows) if windows else np.zeros((0, 2), np.int64)
        self._windows = found[found[:, 1] - found[:, 0] >= _SHORTEST]
        if not len(self._windows):
            raise FormatError(f"no document has {_SHORTEST} tokens: there are no sentences to pair")

    @property
    def rows(self) -> int:
        """Rows of one epoch."""
        return len(self._windows)

    def batch(self, first: int, count: int) -> SentencePairs:
        """Rows number `first` to `first + count` since training began."""
        tokens = np.full((count, self.length), self.padding, np.int64)
        types, follows = np.zeros_like(tokens), np.zeros(count, np.int64)
        lengths = np.zeros(count, np.int64)
        for place, row in enumerate(range(first, first + count)):
            one, other, follows[place] = self._parts(row)
            whole = [self.beginning, *one, self.end, *other, self.end]
            lengths[place] = len(whole)
            tokens[place, : len(whole)] = whole
            types[place, len(one) + 2 : len(whole)] = 1
        longest = int(lengths.max())
        present = np.arange(longest) < lengths[:, None]
        return SentencePairs(tokens[:, :longest], present, types[:, :longest], follows)

    def _parts(self, row: int) -> tuple[NDArray[np.integer], NDArray[np.integer], int]:
        """First part, second part, and 1 if it is not the one that follows."""
        epoch, place = divmod(row, self.rows)
        if self._order is None or self._order[0] != epoch:
            shuffling = np.random.Generator(np.random.PCG64([self.seed, epoch]))
            self._order = epoch, shuffling.permutation(self.rows)
        generator = np.random.Generator(np.random.PCG64([self.seed, epoch, place]))
        window = self._window(int(self._order[1][place]))
        cut = int(generator.integers(1, len(window)))
        one, other = window[:cut], window[cut:]
        if generator.random() < 0.5:
            return one, other, 0
        foreign = self._window(int(generator.integers(self.rows)))
        begin = int(generator.integers(len(foreign)))
        return one, foreign[begin : begin + self.length - 3 - cut], 1

    def _window(self, number: int) -> NDArray[np.integer]:
        begin, end = self._windows[number]
        window: NDArray[np.integer] = self.corpus.tokens[begin:end]
        return window
