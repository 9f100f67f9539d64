"""Documents from files: text, Markdown and source code, JSONL, CSV, Parquet, and the built-in corpus.

A document is one string that stands by itself: a text file, a line of JSONL, a row of a table.  Files come in
sorted order, so the same paths always give the same corpus.
"""

from __future__ import annotations

import csv
import json
import sysconfig
from collections.abc import Iterator, Sequence
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
    """The files that `paths` mean: folders are searched for text, JSONL, CSV and Parquet."""
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
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
    yield from zip(_read_file(path, columns[0]), _read_file(path, columns[1]), strict=True)


def read_parallel(first: Path, second: Path) -> Iterator[tuple[str, str]]:
    """Line n of two text files as a pair, as parallel corpora come.  Raises FormatError if one is longer."""
    left, right = (_read_text(path).splitlines() for path in (first, second))
    if len(left) != len(right):
        raise FormatError(f"{first} has {len(left)} lines and {second} has {len(right)}: they are no pairs")
    yield from zip(left, right, strict=True)


def _read_file(path: Path, column: str | None) -> Iterator[str]:
    if path.suffix in LINES:
        yield from _read_lines(path, column)
    elif path.suffix in TABLES:
        yield from _read_table(path, column)
    elif path.suffix in PARQUET:
        yield from _read_parquet(path, column)
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
    with path.open("rb") as file:
        for number, line in enumerate(iter(lambda: file.readline(MAX_LINE_BYTES), b""), 1):
            where = f"{path}:{number}"
            if not line.strip():
                continue
            try:
                value = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise FormatError(f"{where}: not a line of JSON: {error}") from error
            if isinstance(value, str):
                yield value
            elif isinstance(value, dict):
                yield _text_of(value, column, where)
            else:
                raise FormatError(f"{where}: must be an object or a string")


def _read_table(path: Path, column: str | None) -> Iterator[str]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file, delimiter="\t" if path.suffix == ".tsv" else ",")
        try:
            for row in rows:
                yield _text_of(row, column, f"{path}:{rows.line_num}")
        except (csv.Error, UnicodeDecodeError) as error:
            raise FormatError(f"{path}:{rows.line_num}: not a table of text: {error}") from error


def _read_parquet(path: Path, column: str | None) -> Iterator[str]:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise UnsupportedError(f"{path}: reading Parquet needs pyarrow: pip install pyarrow") from error
    try:
        file = parquet.ParquetFile(path)
        name = _choose_column(file.schema_arrow.names, column, str(path))
        for batch in file.iter_batches(columns=[name]):
            for value in batch.column(0).to_pylist():
                yield _as_text(value, f"{path}: {name}")
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
