"""Batches of pairs: every pair once an epoch, little padding, an order that seed and epoch determine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from octavo.data.pairs import PairBatches, PairCorpus, read_pair_files, tokenize_pairs
from octavo.data.shards import corpus_of
from octavo.data.vocabulary import PAIR_SPECIALS, train_tokenizer
from octavo.errors import FormatError

PADDING, BEGINNING, END = 0, 1, 2


def pairs(count: int = 300, longest: int = 30) -> PairCorpus:
    """Pair n: its number and some more tokens on both sides, each with its end."""
    generator = np.random.default_rng(0)
    documents = []
    for number in range(count):
        for _ in range(2):
            documents.append([number + 3, *generator.integers(3, 400, generator.integers(1, longest)), END])
    return PairCorpus(corpus_of(documents), np.arange(count))


def numbers(batches: PairBatches, epoch: int) -> list[list[int]]:
    begin = epoch * batches.batches
    return [batches.batch(begin + place).source[:, 0].tolist() for place in range(batches.batches)]


def test_every_pair_once_in_an_order_of_each_epoch() -> None:
    batches = PairBatches(pairs(), 256, BEGINNING, PADDING, seed=3)
    first, second = numbers(batches, 0), numbers(batches, 1)
    for epoch in (first, second):
        assert sorted(sum(epoch, [])) == list(range(3, 303))
    assert first != second and {frozenset(each) for each in first} != {frozenset(each) for each in second}
    again = PairBatches(pairs(), 256, BEGINNING, PADDING, seed=3)
    assert (
        again.batch(batches.batches + 2).source.tolist() == batches.batch(batches.batches + 2).source.tolist()
    )
    assert numbers(PairBatches(pairs(), 256, BEGINNING, PADDING, seed=4), 0) != first


def test_a_batch_holds_its_tokens_and_little_padding() -> None:
    corpus = pairs()
    batches = PairBatches(corpus, 256, BEGINNING, PADDING)
    real = padded = 0
    for number in range(batches.batches):
        batch = batches.batch(number)
        assert len(batch.source) * (batch.target.shape[1] - 1) <= 256
        assert batch.source.size <= 256
        assert (batch.target[:, 0] == BEGINNING).all()
        real += batch.target_count
        padded += batch.target[:, 1:].size
    assert real == corpus.lengths[:, 1].sum()
    assert real > 0.8 * padded


def test_long_pairs_are_left_out_and_counted() -> None:
    corpus = pairs()
    batches = PairBatches(corpus, 64, BEGINNING, PADDING, longest=16)
    assert batches.left_out == int((corpus.lengths.max(axis=1) > 16).sum()) > 0
    with pytest.raises(FormatError, match="every pair has a side of more than 1 tokens"):
        PairBatches(corpus, 64, BEGINNING, PADDING, longest=1)


def test_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OCTAVO_DATA_CACHE", str(tmp_path / "cache"))
    source, target, table = tmp_path / "a.en", tmp_path / "a.de", tmp_path / "a.tsv"
    source.write_text("a house\n\na tree\n")
    target.write_text("ein Haus\nnichts\nein Baum\n")
    table.write_text("a house\tein Haus\na tree\tein Baum\n")
    expected = [("a house", "ein Haus"), ("a tree", "ein Baum")]
    assert list(read_pair_files([source], [target])) == expected
    assert list(read_pair_files([table], [], ("1", "2"))) == expected
    tokenizer = train_tokenizer(
        sum(map(list, expected), []), vocabulary_size=300, specials=PAIR_SPECIALS, space_first=True
    )
    corpus = tokenize_pairs([source], [target], tokenizer, END)
    texts = [tokenizer.decode(corpus.side(1, side).tolist()).strip() for side in (0, 1)]
    assert texts == ["a tree", "ein Baum"]
    for data, targets, words in (
        ([source], [], "needs one of targets"),
        ([source], [target, target], "a target for each"),
        ([tmp_path / "none"], [target], "no such file"),
    ):
        with pytest.raises(FormatError, match=words):
            list(read_pair_files(data, targets))
    source.write_text("\n\n\n")
    with pytest.raises(FormatError, match="no pair of texts"):
        tokenize_pairs([source], [target], tokenizer, END)
    source.write_bytes(b"\x00\x01\n\n\n")
    with pytest.raises(FormatError, match=r"a\.en:1: a binary file"):
        tokenize_pairs([source], [target], tokenizer, END)
