"""Documents from every kind of file, and clear errors for what is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from octavo.data.sources import (
    data_paths,
    read_documents,
    read_pairs,
    read_parallel,
    read_rows,
    standard_library_files,
)
from octavo.data.vocabulary import ENCODER_SPECIALS, train_tokenizer, train_word_pieces
from octavo.errors import FormatError


def test_tables_and_lines(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('text,label\n"one, two",1\nthree,0\n')
    (tmp_path / "b.tsv").write_text("en\tde\nhouse\tHaus\n")
    (tmp_path / "c.jsonl").write_text('{"text": "four"}\n{"text": null}\n')
    assert list(read_documents([tmp_path / "a.csv", tmp_path / "c.jsonl"])) == ["one, two", "three", "four"]
    assert list(read_documents([tmp_path / "b.tsv"], column="de")) == ["Haus"]
    assert list(read_pairs(tmp_path / "b.tsv", ("en", "de"))) == [("house", "Haus")]
    with pytest.raises(FormatError, match=r"b\.tsv:2: no column text.*there are en, de: name one"):
        list(read_documents([tmp_path / "b.tsv"]))


def test_columns_by_number_and_quotes(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text('say "no\t1\nyes" he said\t0\n')
    assert list(read_documents([tmp_path / "a.tsv"], column="1")) == ['say "no', 'yes" he said']
    assert [values for _, values in read_rows(tmp_path / "a.tsv", ("2", "1"))][0] == ("1", 'say "no')
    with pytest.raises(FormatError, match=r"a\.tsv:1: no column 3: the line has 2"):
        list(read_rows(tmp_path / "a.tsv", ("1", "3")))


def test_rows_of_every_kind(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"words": ["a", "b"], "n": 1}\n')
    assert list(read_rows(tmp_path / "a.jsonl", ("words", "n"))) == [
        (f"{tmp_path / 'a.jsonl'}:1", (["a", "b"], 1))
    ]
    (tmp_path / "a.csv").write_text("n,text\n1,x\n2\n")
    rows = read_rows(tmp_path / "a.csv", ("text", "n"))
    assert next(rows)[1] == ("x", "1")
    with pytest.raises(FormatError, match=r"a\.csv:3: no column 2"):
        next(rows)
    with pytest.raises(FormatError, match="no table"):
        next(read_rows(tmp_path / "a.txt", ("text",)))


def test_what_datasets_saved(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="not installed: pip install datasets")
    rows = datasets.Dataset.from_dict({"text": ["one", "two"], "other": ["eins", "zwei"]})
    rows.save_to_disk(tmp_path / "rows")
    assert list(read_documents([tmp_path / "rows"])) == ["one", "two"]
    assert list(read_pairs(tmp_path / "rows", ("text", "other"))) == [("one", "eins"), ("two", "zwei")]
    with pytest.raises(FormatError, match="no column nothing; there are text, other"):
        list(read_documents([tmp_path / "rows"], column="nothing"))
    datasets.DatasetDict(train=rows, test=rows).save_to_disk(tmp_path / "splits")
    with pytest.raises(FormatError, match=r"several splits; name one: .*test, .*train"):
        list(read_documents([tmp_path / "splits"]))
    (tmp_path / "rows" / "state.json").write_text("nothing")
    with pytest.raises(FormatError, match="rows"):
        list(read_documents([tmp_path / "rows"]))


def test_parquet(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(arrow.table({"text": ["one", "two"], "n": [1, 2]}), tmp_path / "t.parquet")
    assert list(read_documents([tmp_path / "t.parquet"])) == ["one", "two"]
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 nothing")
    with pytest.raises(FormatError, match="bad.parquet"):
        list(read_documents([tmp_path / "bad.parquet"]))


def test_bad_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "binary.txt").write_bytes(b"\x00\x01\x02")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    (tmp_path / "bad.jsonl").write_text('{"text": "fine"}\n{"text": 3}\nnot json\n')
    for name, words in (
        ("binary.txt", "a binary file"),
        ("latin.txt", "not UTF-8"),
        ("bad.jsonl", "bad.jsonl:2: text: must be text, not int"),
    ):
        with pytest.raises(FormatError, match=words):
            list(read_documents([tmp_path / name]))
    with pytest.raises(FormatError, match="nothing.txt: there is no such"):
        list(read_documents([tmp_path / "nothing.txt"]))
    (tmp_path / "folder").mkdir()
    with pytest.raises(FormatError, match="no file of a kind"):
        list(read_documents([tmp_path / "folder"]))


def test_parallel_files(tmp_path: Path) -> None:
    (tmp_path / "x.en").write_text("a\nb\n")
    (tmp_path / "x.de").write_text("c\nd\n")
    assert list(read_parallel(tmp_path / "x.en", tmp_path / "x.de")) == [("a", "c"), ("b", "d")]
    (tmp_path / "x.de").write_text("c\n")
    with pytest.raises(FormatError, match="x.en has a line 2 and .*x.de has not"):
        list(read_parallel(tmp_path / "x.en", tmp_path / "x.de"))


def test_the_built_in_corpus() -> None:
    files = standard_library_files()
    assert files == sorted(files)
    assert any(file.name == "argparse.py" for file in files)
    assert not any("site-packages" in file.parts or "test" in file.parts for file in files)


def test_names_of_data(tmp_path: Path) -> None:
    assert data_paths([]) == data_paths(["stdlib:"]) == standard_library_files()
    assert data_paths(["a.txt", str(tmp_path)], Path("base")) == [Path("base/a.txt"), tmp_path]
    assert any(path.name == "__init__.py" for path in data_paths(["package:octavo"]))
    with pytest.raises(FormatError, match="no package 'no_such_package' is installed"):
        data_paths(["package:no_such_package"])


def test_a_vocabulary_of_characters() -> None:
    tokenizer = train_tokenizer(["hello\n", "world"], kind="characters")
    assert tokenizer.get_vocab_size() == 1 + len(set("hello\nworld"))
    ids = tokenizer.encode("low").ids
    assert len(ids) == 3
    assert tokenizer.decode(ids) == "low"
    with pytest.raises(FormatError, match="empty"):
        train_tokenizer([], kind="characters")
    with pytest.raises(ValueError, match="at least 257"):
        train_tokenizer(["a"], vocabulary_size=100)


def test_a_vocabulary_of_word_pieces() -> None:
    texts = [f"Unhappily the {n} happy people of Ruritania, unhappy {n} times." for n in range(90)]
    tokenizer = train_word_pieces(texts, vocabulary_size=120)
    again = train_word_pieces(texts, vocabulary_size=120)
    assert tokenizer.to_str() == again.to_str()
    assert [tokenizer.id_to_token(number) for number in range(5)] == list(ENCODER_SPECIALS)
    assert 60 < tokenizer.get_vocab_size() <= 120
    encoded = tokenizer.encode("The happy", "unhappily ruritanian?")
    assert encoded.tokens[0] == "[CLS]" and encoded.tokens.count("[SEP]") == 2
    assert encoded.type_ids == sorted(encoded.type_ids) and encoded.type_ids[-1] == 1
    assert tokenizer.decode(encoded.ids) == "the happy unhappily ruritanian [UNK]".replace(" [UNK]", "")
    with pytest.raises(FormatError, match="empty"):
        train_word_pieces([])
