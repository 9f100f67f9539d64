"""Documents from files: text, Markdown and source code, JSONL, CSV, Parquet, what Hugging Face `datasets`
saved, and the built-in corpus.

A document is one string that stands by itself: a text file, a line of JSONL, a row of a table.  Files come in
sorted order, so the same paths always give the same corpus.
"""

from __future__ import annotations

import csv
import json
import sysconfig
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from itertools import zip_longest
from pathlib import Path

from octavo.errors import FormatError, UnsupportedError

TABLES = (".csv", ".tsv")
LINES = (".jsonl", ".ndjson")
PARQUET = (".parquet",)
# What a folder is searched for; a file that is named outright is read as text whatever its name.
TEXTS = (".txt", ".md", ".rst", ".py", ".pyi", ".c", ".h", ".cpp", ".html", ".xml", ".toml", ".yaml", ".yml")
DEFAULT_COLUMN = "text"
# Names a table's or a line's text may have when nobody says which column to take.
COLUMNS = (DEFAULT_COLUMN, "content", "document", "sentence")
MAX_LINE_BYTES = 64 << 20


def read_documents(paths: Sequence[Path], *, column: str | None = None) -> Iterator[str]:
    """The documents of files and folders (searched through), in sorted order; empty ones are left out.

    column: the key or column of JSONL, CSV and Parquet that holds the text.
    Raises FormatError that names file and line, or a path that is not there.
    """
    for path in list_files(paths):
        for document in _read_file(path, column):
            if document.strip():
                yield document


def list_files(paths: Sequence[Path]) -> list[Path]:
    """The files that `paths` mean: folders are searched for text and tables, or are a saved data set."""
    found: list[Path] = []
    for path in paths:
        if is_saved_dataset(path):
            found.append(path)
        elif path.is_dir():
            kinds = (*TEXTS, *LINES, *TABLES, *PARQUET)
            inside = sorted(file for file in path.rglob("*") if file.suffix in kinds and file.is_file())
            if not inside:
                raise FormatError(
                    f"{path}: the folder has no file of a kind that is read: {', '.join(kinds)}"
                )
            found += inside
        elif path.exists():
            found.append(path)
        else:
            raise FormatError(f"{path}: there is no such file or folder")
    return found


def data_paths(names: Sequence[str], base: Path = Path()) -> list[Path]:
    """What --data and a ladder name: files and folders (from `base`), "package:NAME" for an installed
    package's source, "stdlib:" for Python's library, which no name at all means, too.

    Raises FormatError for a package that is not installed.
    """
    paths: list[Path] = []
    for name in names:
        kind, _, package = name.partition(":")
        if name == "stdlib:":
            paths += standard_library_files()
        elif kind == "package":
            spec = find_spec(package)
            if spec is None or not spec.submodule_search_locations:
                raise FormatError(f"data: {name}: no package {package!r} is installed")
            paths += sorted(Path(spec.submodule_search_locations[0]).rglob("*.py"))
        else:
            paths.append(base / Path(name).expanduser())
    return paths or standard_library_files()


def standard_library_files() -> list[Path]:
    """The built-in corpus, on every machine: the source and docstrings of Python's own standard library.

    Installed packages and the library's tests are left out; the order is that of the names.
    """
    root = Path(sysconfig.get_paths()["stdlib"])
    skipped = {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__", "lib2to3"}
    files = (path for path in root.rglob("*.py") if not skipped & set(path.relative_to(root).parts))
    return sorted(files)


def read_pairs(path: Path, columns: tuple[str, str]) -> Iterator[tuple[str, str]]:
    """Two columns of a CSV, TSV, JSONL or Parquet file as pairs (a sentence and its translation)."""
    for where, (first, second) in read_rows(path, columns):
        yield _as_text(first, f"{where}: {columns[0]}"), _as_text(second, f"{where}: {columns[1]}")


def read_rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[str, tuple[object, ...]]]:
    """(where, the values of the columns as they are) of each row of a table; see `_read_table` for numbers.

    Raises FormatError that names file and line, for a column that is not there among others.
    """
    if path.suffix in LINES:
        for where, line in _read_json(path):
            if not isinstance(line, dict):
                raise FormatError(f"{where}: must be an object with {', '.join(columns)}")
            yield where, tuple(line[_choose_column(list(line), name, where)] for name in columns)
    elif path.suffix in TABLES:
        yield from _read_cells(path, columns)
    elif path.suffix in PARQUET or is_saved_dataset(path):
        for values in _read_batches(path, columns):
            yield str(path), values
    else:
        raise FormatError(f"{path}: no table: give JSONL, CSV, TSV, Parquet or a saved data set")


def read_parallel(first: Path, second: Path) -> Iterator[tuple[str, str]]:
    """Line n of two text files as a pair, as parallel corpora come.  Raises FormatError if one is longer."""
    missing = object()
    left, right = _read_lines_of_text(first), _read_lines_of_text(second)
    for number, (one, other) in enumerate(zip_longest(left, right, fillvalue=missing), 1):
        if one is missing or other is missing:
            longer, shorter = (first, second) if other is missing else (second, first)
            raise FormatError(f"{longer} has a line {number} and {shorter} has not: they are no pairs")
        yield str(one), str(other)


def is_table(path: Path) -> bool:
    """Whether a file has columns or keys: JSONL, CSV, TSV, Parquet, a saved data set."""
    return path.suffix in (*TABLES, *LINES, *PARQUET) or is_saved_dataset(path)


def is_saved_dataset(path: Path) -> bool:
    """Whether a folder is what `save_to_disk` of Hugging Face `datasets` writes: rows, or their splits."""
    return (path / "dataset_info.json").is_file() or (path / "dataset_dict.json").is_file()


def _read_lines_of_text(path: Path) -> Iterator[str]:
    """The lines of a text file, one at a time: parallel corpora may be larger than memory."""
    with path.open("rb") as file:
        for number, line in enumerate(iter(lambda: file.readline(MAX_LINE_BYTES), b""), 1):
            if b"\0" in line:
                raise FormatError(f"{path}:{number}: a binary file; give text with a sentence a line")
            try:
                yield line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
            except UnicodeDecodeError as error:
                raise FormatError(f"{path}:{number}: not UTF-8 text: {error}") from error


def _read_file(path: Path, column: str | None) -> Iterator[str]:
    if path.suffix in LINES:
        yield from _read_lines(path, column)
    elif path.suffix in TABLES:
        yield from _read_table(path, column)
    elif path.suffix in PARQUET or is_saved_dataset(path):
        yield from _read_columns(path, column)
    else:
        yield _read_text(path)


def _read_text(path: Path) -> str:
    content = path.read_bytes()
    if b"\0" in content[:8192]:
        raise FormatError(f"{path}: a binary file; give text, JSONL, CSV or Parquet")
    try:
        return content.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        if path.suffix == ".py":  # the standard library has a few files in other encodings
            return content.decode("latin-1").replace("\r\n", "\n")
        raise FormatError(f"{path}: not UTF-8 text: {error}") from error


def _read_lines(path: Path, column: str | None) -> Iterator[str]:
    for where, value in _read_json(path):
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict):
            yield _text_of(value, column, where)
        else:
            raise FormatError(f"{where}: must be an object or a string")


def _read_json(path: Path) -> Iterator[tuple[str, object]]:
    """(where, value) of each line that is not empty."""
    with path.open("rb") as file:
        for number, line in enumerate(iter(lambda: file.readline(MAX_LINE_BYTES), b""), 1):
            where = f"{path}:{number}"
            if not line.strip():
                continue
            try:
                yield where, json.loads(line)
            except (ValueError, RecursionError) as error:
                raise FormatError(f"{where}: not a line of JSON: {error}") from error


def _read_table(path: Path, column: str | None) -> Iterator[str]:
    """A column by its name in the first line; or by its number, from 1, of a table without such a line."""
    if column is not None and column.isdecimal():
        for _, (value,) in _read_cells(path, (column,)):
            yield str(value)
        return
    names: list[str] | None = None
    for where, row in _read_csv(path):
        if names is None:
            names = row
        else:
            yield _text_of(dict(zip(names, row, strict=False)), column, where)


def _read_cells(path: Path, columns: Sequence[str]) -> Iterator[tuple[str, tuple[str, ...]]]:
    places = [int(name) - 1 for name in columns] if all(name.isdecimal() for name in columns) else []
    for where, row in _read_csv(path):
        if not places:
            places = [row.index(_choose_column(row, name, where)) for name in columns]
            continue
        for place in places:
            if not 0 <= place < len(row):
                raise FormatError(f"{where}: no column {place + 1}: the line has {len(row)}")
        yield where, tuple(row[place] for place in places)


def _read_csv(path: Path) -> Iterator[tuple[str, list[str]]]:
    """(where, cells) of each line that is not empty.

    Tab-separated files have no quotes (IANA, text/tab-separated-values): one is a character like any other.
    """
    tabs = path.suffix == ".tsv"
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.reader(file, csv.excel_tab, quoting=csv.QUOTE_NONE) if tabs else csv.reader(file)
        try:
            for row in rows:
                if row:
                    yield f"{path}:{rows.line_num}", row
        except (csv.Error, UnicodeDecodeError) as error:
            raise FormatError(f"{path}:{rows.line_num + 1}: not a table of text: {error}") from error


def _read_columns(path: Path, column: str | None) -> Iterator[str]:
    for names, values in _batches(path, lambda names: [_choose_column(names, column, str(path))]):
        for value in values[0]:
            yield _as_text(value, f"{path}: {names[0]}")


def _read_batches(path: Path, columns: Sequence[str]) -> Iterator[tuple[object, ...]]:
    def choose(names: Sequence[str]) -> list[str]:
        return [_choose_column(names, name, str(path)) for name in columns]

    for _, values in _batches(path, choose):
        yield from zip(*values, strict=True)


def _batches(
    path: Path, choose: Callable[[Sequence[str]], list[str]]
) -> Iterator[tuple[list[str], list[list[object]]]]:
    """(names, their values) of some thousand rows at a time, of a Parquet file or a saved data set."""
    return (_dataset_batches if is_saved_dataset(path) else _parquet_batches)(path, choose)


def _dataset_batches(
    path: Path, choose: Callable[[Sequence[str]], list[str]]
) -> Iterator[tuple[list[str], list[list[object]]]]:
    if (path / "dataset_dict.json").is_file():
        splits = sorted(each.name for each in path.iterdir() if is_saved_dataset(each))
        raise FormatError(
            f"{path}: has several splits; name one: {', '.join(map(str, (path / n for n in splits)))}"
        )
    try:
        from datasets import load_from_disk
    except ImportError as error:
        raise UnsupportedError(f"{path}: reading a saved data set needs: pip install datasets") from error
    try:
        rows = load_from_disk(str(path))  # maps its Arrow files into memory; runs no code of theirs
        names = choose(rows.column_names)
        for batch in rows.select_columns(names).iter(batch_size=4096):
            yield names, [list(batch[name]) for name in names]
    except (ValueError, OSError, KeyError, TypeError) as error:
        raise FormatError(f"{path}: {error}") from error


def _parquet_batches(
    path: Path, choose: Callable[[Sequence[str]], list[str]]
) -> Iterator[tuple[list[str], list[list[object]]]]:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise UnsupportedError(f"{path}: reading Parquet needs pyarrow: pip install pyarrow") from error
    try:
        file = parquet.ParquetFile(path)
        names = choose(file.schema_arrow.names)
        for batch in file.iter_batches(columns=names):
            yield names, [batch.column(name).to_pylist() for name in names]
    except (ValueError, OSError) as error:  # pyarrow's own errors derive from these
        raise FormatError(f"{path}: {error}") from error


def _text_of(values: dict[str, object], column: str | None, where: str) -> str:
    name = _choose_column(list(values), column, where)
    return _as_text(values[name], f"{where}: {name}")


def _choose_column(names: Sequence[str], column: str | None, where: str) -> str:
    wanted = (column,) if column is not None else COLUMNS
    for name in wanted:
        if name in names:
            return name
    if column is None and len(names) == 1:
        return names[0]
    listed = ", ".join(map(str, names))[:200]
    raise FormatError(f"{where}: no column {' or '.join(wanted)}; there are {listed}: name one with --column")


def _as_text(value: object, where: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise FormatError(f"{where}: must be text, not {type(value).__name__}")
    return value
