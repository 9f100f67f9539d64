"""Pairs of texts, a source and its target: read, tokenized once, and batched by length.

A pair's two texts are neighbouring documents of one corpus on disk (`shards.py`): document 2 n is source n,
document 2 n + 1 its target, each with the end token behind it.  An epoch sorts the pairs by length, so that a
batch has little padding; pairs of about one length change places in each epoch, and so do the batches.
Both depend on seed and epoch only, so the batch of any step can be made without the ones before it.

Legend: B pairs of a batch, S and T tokens of its longest source and target.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from octavo.data.shards import TokenCorpus, corpus_fingerprint, stored_corpus
from octavo.data.sources import is_table, read_pairs, read_parallel
from octavo.errors import FormatError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

COLUMNS = ("source", "target")


@dataclass(frozen=True, eq=False)
class PairBatch:
    """source: int64[B, S], each with its end token; target: int64[B, T], from beginning to end token."""

    source: NDArray[np.int64]
    target: NDArray[np.int64]
    padding: int

    @property
    def target_count(self) -> int:
        """Tokens that are predicted: all of the targets but their beginning."""
        return int((self.target[:, 1:] != self.padding).sum())

    @property
    def token_count(self) -> int:
        return self.target_count


@dataclass(frozen=True, eq=False)
class PairCorpus:
    """The pairs numbered `numbers` of a corpus whose documents are sources and targets in turn."""

    corpus: TokenCorpus
    numbers: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """int64[pairs, 2]: tokens of source and target, each with its end."""
        sizes: NDArray[np.int64] = np.diff(self.corpus.starts).reshape(-1, 2)[self.numbers]
        return sizes

    def split(self, validation_fraction: float) -> tuple[PairCorpus, PairCorpus]:
        """(training, validation): the last pairs are kept for validation."""
        cut = len(self) - int(len(self) * validation_fraction)
        return PairCorpus(self.corpus, self.numbers[:cut]), PairCorpus(self.corpus, self.numbers[cut:])

    def side(self, place: int, side: int) -> NDArray[np.integer]:
        """The tokens of a source (0) or target (1), without the end."""
        begin, end = self.corpus.starts[2 * self.numbers[place] + side :][:2]
        return self.corpus.tokens[begin : end - 1]

    def select(self, pairs: NDArray[np.int64], beginning: int, padding: int) -> PairBatch:
        """A batch of the pairs at these places."""
        sources, targets = [], []
        for pair in self.numbers[pairs]:
            first, middle, last = self.corpus.starts[2 * pair : 2 * pair + 3]
            sources.append(self.corpus.tokens[first:middle])
            targets.append(np.concatenate(([beginning], self.corpus.tokens[middle:last])))
        return PairBatch(padded(sources, padding), padded(targets, padding), padding)


def padded(rows: Sequence[NDArray[np.integer]], padding: int) -> NDArray[np.int64]:
    """int64[rows, longest], short rows filled up behind."""
    block = np.full((len(rows), max(map(len, rows), default=0)), padding, np.int64)
    for place, row in enumerate(rows):
        block[place, : len(row)] = row
    return block


def read_pair_files(
    data: Sequence[Path], targets: Sequence[Path], columns: tuple[str, str] = COLUMNS
) -> Iterator[tuple[str, str]]:
    """Pairs of text files that run in parallel (targets: one for each of data), or of tables.

    Pairs of which a side is empty are left out.  Raises FormatError where files and targets do not match.
    """
    if targets and len(targets) != len(data):
        raise FormatError(
            f"{len(data)} files of sources and {len(targets)} of targets: give a target for each"
        )
    for place, path in enumerate(data):
        if not path.is_file():
            raise FormatError(f"{path}: there is no such file")
        if targets:
            if not targets[place].is_file():
                raise FormatError(f"{targets[place]}: there is no such file")
            found = read_parallel(path, targets[place])
        elif is_table(path):
            found = read_pairs(path, columns)
        else:
            raise FormatError(f"{path}: a text file of sources needs one of targets, with as many lines")
        for source, target in found:
            if source.strip() and target.strip():
                yield source.strip(), target.strip()


def tokenize_pairs(
    data: Sequence[Path],
    targets: Sequence[Path],
    tokenizer: Tokenizer,
    end: int,
    columns: tuple[str, str] = COLUMNS,
) -> PairCorpus:
    """The pairs as tokens, from the cache or made now.  Raises FormatError if there is none."""
    print_of_files = corpus_fingerprint([*data, *targets], tokenizer, "\t".join(columns))
    fingerprint = hashlib.sha256(f"pairs {print_of_files} {end}".encode()).hexdigest()[:32]

    def texts() -> Iterator[str]:
        count = 0
        for pair in read_pair_files(data, targets, columns):
            count += 1
            yield from pair
        if not count:
            raise FormatError(f"{data[0]}: there is no pair of texts in the data")

    corpus = stored_corpus(texts(), tokenizer, fingerprint, after=[end], as_given=True)
    return PairCorpus(corpus, np.arange((len(corpus.starts) - 1) // 2))


@dataclass(eq=False)
class PairBatches:
    """Batches of at most `tokens` tokens, padding counted, source and target each.

    longest: pairs with more tokens on a side are left out, and counted in `left_out`.
    Raises FormatError if none is left.
    """

    pairs: PairCorpus
    tokens: int
    beginning: int
    padding: int
    seed: int = 0
    longest: int = 256
    left_out: int = field(init=False)
    _groups: NDArray[np.int64] = field(init=False, repr=False)  # a number for each pair's lengths, rising
    _cuts: NDArray[np.int64] = field(init=False, repr=False)
    _order: tuple[int, NDArray[np.int64], NDArray[np.int64]] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        lengths = self.pairs.lengths
        self._kept = np.flatnonzero(lengths.max(axis=1) <= self.longest)
        self.left_out = len(lengths) - len(self._kept)
        if not len(self._kept):
            raise FormatError(f"every pair has a side of more than {self.longest} tokens (--longest)")
        sizes = lengths[self._kept]
        # Pairs whose targets differ by a token or two, and sources by three, are of one length.
        rough = (sizes[:, 1] // 2) * (self.longest + 1) + sizes[:, 0] // 4
        order = np.argsort(rough, kind="stable")
        self._groups = rough
        self._cuts = np.array(list(self._cut(sizes[order], rough[order])), np.int64)

    def _cut(self, sizes: NDArray[np.int64], groups: NDArray[np.int64]) -> Iterator[int]:
        """Where batches begin, in the sorted order, and its end: as large as any order of a group allows."""
        _, places, counts = np.unique(groups, return_index=True, return_counts=True)
        longest = np.maximum.reduceat(sizes.max(axis=1), places).repeat(counts)
        begin = widest = 0
        yield 0
        for place, width in enumerate(longest.tolist()):
            widest = max(widest, width)
            if place > begin and widest * (place + 1 - begin) > self.tokens:
                yield place
                begin, widest = place, width
        yield len(groups)

    @property
    def batches(self) -> int:
        """Batches of one epoch."""
        return len(self._cuts) - 1

    def batch(self, number: int) -> PairBatch:
        """Batch `number` since training began (epochs follow each other)."""
        epoch, place = divmod(number, self.batches)
        if self._order is None or self._order[0] != epoch:
            generator = np.random.Generator(np.random.PCG64([self.seed, epoch]))
            sorted_pairs = np.lexsort((generator.random(len(self._groups)), self._groups))
            self._order = epoch, sorted_pairs, generator.permutation(self.batches)
        chosen = int(self._order[2][place])
        pairs = self._order[1][self._cuts[chosen] : self._cuts[chosen + 1]]
        return self.pairs.select(self._kept[pairs], self.beginning, self.padding)

    def in_order(self) -> Iterable[PairBatch]:
        """All batches once, for validation."""
        return (self.batch(number) for number in range(self.batches))
