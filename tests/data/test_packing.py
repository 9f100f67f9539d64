"""Packed rows: nothing is dropped, nothing crosses a document, and any batch can be made alone."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from octavo.data.packing import IGNORED, PackedRows, validation_batches
from octavo.data.shards import TokenCorpus, corpus_of, stored_corpus, tokenize_corpus
from octavo.data.vocabulary import END_OF_TEXT, train_tokenizer
from octavo.errors import FormatError

DOCUMENTS = [list(range(10, 10 + length)) for length in (3, 1, 12, 7, 2, 20)]


@pytest.mark.parametrize("length", [4, 8, 50])
def test_every_token_is_an_input_once_an_epoch(length: int) -> None:
    corpus = corpus_of(DOCUMENTS)
    rows = PackedRows(corpus, length, seed=3)
    for epoch in range(2):
        batch = rows.batch(epoch * rows.rows, rows.rows)
        seen = np.bincount(batch.inputs.ravel(), minlength=40)
        needed = np.bincount(np.asarray(corpus.tokens, np.int64), minlength=40)
        assert (seen >= needed).all()
        assert seen.sum() - needed.sum() < length


def test_targets_positions_and_documents_of_a_row() -> None:
    batch = PackedRows(corpus_of([[1, 2, 3], [4], [5, 6, 7, 8]]), 8).in_order(0, 1)
    assert batch.inputs.tolist() == [[1, 2, 3, 4, 5, 6, 7, 8]]
    assert batch.targets.tolist() == [[2, 3, IGNORED, IGNORED, 6, 7, 8, IGNORED]]
    assert batch.positions.tolist() == [[0, 1, 2, 0, 0, 1, 2, 3]]
    assert batch.documents is not None
    assert batch.documents.tolist() == [[0, 0, 0, 1, 2, 2, 2, 2]]
    assert batch.target_count == 5


def test_rows_that_are_not_isolated_are_windows() -> None:
    batch = PackedRows(corpus_of([[1, 2, 3], [4], [5, 6, 7, 8]]), 4, isolate=False).in_order(0, 2)
    assert batch.targets.tolist() == [[2, 3, 4, 5], [6, 7, 8, IGNORED]]
    assert batch.documents is None
    assert batch.positions.tolist() == [[0, 1, 2, 3]] * 2


def test_a_batch_depends_on_seed_and_place_only() -> None:
    corpus = corpus_of(DOCUMENTS)
    ahead, fresh = PackedRows(corpus, 4, seed=1), PackedRows(corpus, 4, seed=1)
    for row in range(40):
        ahead.batch(row, 1)
    np.testing.assert_array_equal(ahead.batch(40, 3).inputs, fresh.batch(40, 3).inputs)
    whole, pieces = fresh.batch(5, 4), [fresh.batch(5 + row, 1) for row in range(4)]
    np.testing.assert_array_equal(whole.inputs, np.concatenate([piece.inputs for piece in pieces]))
    other = PackedRows(corpus, 4, seed=2)
    assert not np.array_equal(other.batch(0, 12).inputs, fresh.batch(0, 12).inputs)


def test_a_quick_validation_sees_all_parts() -> None:
    whole = list(validation_batches(70, 8))
    assert whole[:2] == [(0, 8), (8, 8)] and whole[-1] == (64, 6)
    assert list(validation_batches(70, 8, 70)) == whole
    assert list(validation_batches(70, 8, 32)) == [(0, 8), (24, 8), (48, 8)]
    assert list(validation_batches(70, 8, 1)) == [(0, 8)]


def test_the_split_keeps_whole_documents() -> None:
    training, kept = corpus_of(DOCUMENTS).split(0.4)
    assert len(training) + len(kept) == 45
    assert list(kept.tokens) == DOCUMENTS[-1]
    assert list(training.starts) == [0, 3, 4, 16, 23, 25]
    alone, rest = corpus_of([list(range(100))]).split(0.1)
    assert (len(alone), len(rest)) == (90, 10)


def test_a_corpus_is_tokenized_once(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("To be, or not to be.\n" * 20)
    (tmp_path / "more.jsonl").write_text('{"text": "a line"}\n"a string"\n\n')
    paths = [text, tmp_path / "more.jsonl"]
    tokenizer = train_tokenizer(["To be, or not to be. a line"] * 3, vocabulary_size=300)
    corpus = tokenize_corpus(paths, tokenizer, cache=tmp_path / "cache")
    assert len(corpus.starts) == 4
    assert corpus.bytes == 20 * 21 + len("a line") + len("a string")
    end = tokenizer.token_to_id(END_OF_TEXT)
    documents = _documents(corpus)
    assert all(document[0] == document[-1] == end for document in documents)
    assert "a string" in [tokenizer.decode(document[1:-1]) for document in documents]
    again = tokenize_corpus(paths, tokenizer, cache=tmp_path / "cache")
    assert again.fingerprint == corpus.fingerprint
    assert len(list((tmp_path / "cache").iterdir())) == 1
    text.write_text("changed")
    assert tokenize_corpus(paths, tokenizer, cache=tmp_path / "cache").fingerprint != corpus.fingerprint


def test_documents_lie_in_the_order_of_their_hashes(tmp_path: Path) -> None:
    """What is kept back is then of the same kind as the rest, whatever the files are called."""
    texts = [f"{kind} number {n}" for kind in ("first", "second") for n in range(40)]
    tokenizer = train_tokenizer(texts, vocabulary_size=300)
    shuffled = stored_corpus(texts, tokenizer, "a", cache=tmp_path)
    again = stored_corpus(reversed(texts), tokenizer, "b", cache=tmp_path)
    given = stored_corpus(texts, tokenizer, "c", as_given=True, cache=tmp_path)
    assert _documents(shuffled) == _documents(again) != _documents(given)
    assert [tokenizer.decode(each) for each in _documents(given)] == texts
    assert sorted(_documents(shuffled)) == sorted(_documents(given))
    _, kept = shuffled.split(0.5)
    kinds = [tokenizer.decode(each).split()[0] for each in _documents(kept)]
    assert 10 < kinds.count("first") < 30


def _documents(corpus: TokenCorpus) -> list[list[int]]:
    return [list(corpus.tokens[begin:end]) for begin, end in pairwise(corpus.starts)]


def test_a_corpus_without_text_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("  \n")
    tokenizer = train_tokenizer(["ab"] * 3, vocabulary_size=257)
    with pytest.raises(FormatError, match="corpus is empty"):
        tokenize_corpus([tmp_path / "empty.txt"], tokenizer, cache=tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())
