"""Packed rows: all tokens of a corpus in rows of one length, and documents that do not see each other.

The corpus is a ring of tokens.  An epoch cuts it into rows of T, beginning at a place of its own, and takes
them in an order of its own; both depend on seed and epoch only, so the batch of any step can be made without
the ones before it.  No token is dropped: a document that a row cuts goes on in another row, where its
positions start again at 0.

Legend: B rows of a batch, T tokens of a row.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from octavo.data.shards import TokenCorpus

# The target of a token that has nothing to predict (the end of a document, padding).
IGNORED = -100


@dataclass(frozen=True, eq=False)
class Batch:
    """inputs, targets: int64[B, T]; a target is IGNORED where the next token is of another document.

    positions: int64[B, T], from 0 in each document.  documents: int64[B, T], a number for each document of
    the row, or None if no row holds more than one.
    """

    inputs: NDArray[np.int64]
    targets: NDArray[np.int64]
    positions: NDArray[np.int64]
    documents: NDArray[np.int64] | None

    @property
    def target_count(self) -> int:
        """Tokens whose successor is predicted: what a loss is divided by."""
        return int((self.targets != IGNORED).sum())

    @property
    def token_count(self) -> int:
        """Tokens that the model sees."""
        return self.inputs.size


@dataclass(eq=False)
class PackedRows:
    """The rows of a corpus in an order that seed and epoch determine.

    isolate: documents of one row do not see each other; else a row is a plain window of the text.
    """

    corpus: TokenCorpus
    length: int
    seed: int = 0
    isolate: bool = True
    _order: tuple[int, NDArray[np.int64], int] | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.length < 1 or len(self.corpus) < 2:
            raise ValueError(f"rows of {self.length} tokens out of {len(self.corpus)}: at least 1 out of 2")

    @property
    def rows(self) -> int:
        """Rows of one epoch."""
        return -(-len(self.corpus) // self.length)

    def batch(self, first: int, count: int) -> Batch:
        """Rows number `first` to `first + count` since training began (epochs follow each other)."""
        return self._gather(np.array([self._begin(row) for row in range(first, first + count)]))

    def in_order(self, first: int, count: int) -> Batch:
        """Rows as they lie in the corpus, for validation; the last one may go on at the beginning."""
        return self._gather(np.arange(first, first + count) * self.length)

    def _begin(self, row: int) -> int:
        epoch, place = divmod(row, self.rows)
        if self._order is None or self._order[0] != epoch:
            generator = np.random.Generator(np.random.PCG64([self.seed, epoch]))
            order = generator.permutation(self.rows)
            self._order = epoch, order, int(generator.integers(self.length)) if epoch else 0
        return int(self._order[1][place]) * self.length + self._order[2]

    def _gather(self, begins: NDArray[np.int64]) -> Batch:
        size = len(self.corpus)
        places = (begins[:, None] + np.arange(self.length + 1)) % size
        tokens = np.asarray(self.corpus.tokens[places], np.int64)
        inputs, targets = tokens[:, :-1], tokens[:, 1:].copy()
        # The ring's seam is the end of the last document: nothing is predicted across it.
        documents = np.searchsorted(self.corpus.starts, places, side="right") - 1
        laps = (begins[:, None] + np.arange(self.length + 1)) // size
        documents = documents + laps * len(self.corpus.starts)
        if not self.isolate:
            targets[laps[:, 1:] != laps[:, :-1]] = IGNORED
            return Batch(inputs, targets, np.broadcast_to(np.arange(self.length), inputs.shape), None)
        changes = documents[:, 1:] != documents[:, :-1]
        targets[changes] = IGNORED
        numbers = np.zeros_like(inputs)
        numbers[:, 1:] = np.cumsum(changes[:, :-1], axis=1)
        several = bool(numbers[:, -1].any())
        return Batch(inputs, targets, _restarted_positions(changes), numbers if several else None)


def validation_batches(rows: int, size: int, most_rows: int | None = None) -> Iterator[tuple[int, int]]:
    """(first row, rows) of each batch of a part kept back; of `most_rows`, if given, that lie evenly in it.

    The first rows alone would tell of the first few documents only.
    """
    firsts = range(0, rows, size)
    if most_rows is not None:
        wanted = max(1, -(-most_rows // size))
        firsts = firsts[:: -(-len(firsts) // wanted)]
    for first in firsts:
        yield first, min(size, rows - first)


def _restarted_positions(changes: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Positions int64[B, T] that begin again at 0 after each change, bool[B, T] ("the next is another")."""
    places = np.broadcast_to(np.arange(changes.shape[1]), changes.shape)
    beginnings = np.zeros_like(places)
    beginnings[:, 1:] = np.where(changes[:, :-1], places[:, 1:], 0)
    return places - np.maximum.accumulate(beginnings, axis=1)
