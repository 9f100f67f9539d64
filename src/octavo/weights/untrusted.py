"""Files that nobody vouches for: mapped bytes, JSON with limits, and fields checked for kind and range."""

from __future__ import annotations

import json
import mmap
import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from octavo.errors import FormatError

MAX_JSON_BYTES = 64_000_000
# Every element of a JSON array or object but the first has a comma: this bounds what parsing can allocate.
MAX_JSON_COMMAS = 4_000_000


def map_file(path: Path) -> NDArray[np.uint8]:
    """The bytes of a regular file as a read-only view of its mapping, uint8 [bytes].

    Raises FormatError if it is empty or no regular file, OSError if it cannot be opened.
    """
    # Looked at before it is opened, as opening a pipe can block for ever; and again after.
    if not stat.S_ISREG(path.stat().st_mode):
        raise FormatError(f"{path}: not a regular file")
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size == 0:
            raise FormatError(f"{path}: the file is empty")
        return np.frombuffer(mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ), dtype=np.uint8)


def read_bounded(path: Path, limit: int) -> bytes:
    """A whole regular file of at most `limit` bytes.  Raises FormatError if it is another thing or longer."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode) or status.st_size > limit:
        raise FormatError(f"{path}: must be a regular file of at most {limit} bytes")
    with path.open("rb") as file:
        return file.read(limit)


def read_json(path: Path) -> dict[str, object]:
    """The JSON object in a file.  Raises FormatError as `parse_json`, OSError if it cannot be opened."""
    return parse_json(read_bounded(path, MAX_JSON_BYTES), str(path))


def parse_json(text: bytes, field: str) -> dict[str, object]:
    """The JSON object in `text`.

    Raises FormatError that names `field` if it is none, has a key twice in an object or is nested too deeply.
    """
    value = parse_json_value(text, field)
    if not isinstance(value, dict):
        raise FormatError(f"{field}: must be a JSON object, and is {type(value).__name__}")
    return value


def parse_json_value(text: bytes, field: str) -> object:
    """Any JSON value, with the limits of `parse_json`."""
    if text.count(b",") > MAX_JSON_COMMAS:
        raise FormatError(f"{field}: more than {MAX_JSON_COMMAS} entries")
    try:
        return json.loads(text, object_pairs_hook=_unique)
    except RecursionError:
        raise FormatError(f"{field}: JSON nested too deeply") from None
    except ValueError as error:
        raise FormatError(f"{field}: not valid JSON: {error}") from None


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Of two equal keys one would win silently, and another reader might take the other."""
    value: dict[str, object] = {}
    for key, element in pairs:
        if key in value:
            raise ValueError(f"the key {key[:80]!r} occurs twice")
        value[key] = element
    return value


class Fields:
    """Named values of a file, read with their kind and range; every error names the file and the field.

    A field that is absent or null takes the default; without a default that is an error.
    """

    def __init__(self, values: Mapping[str, object], where: str, prefix: str = "") -> None:
        self.values = values
        self.where = where
        self.prefix = prefix

    def get(self, name: str) -> object:
        return self.values.get(self.prefix + name)

    def fail(self, name: str, problem: str) -> FormatError:
        return FormatError(f"{self.where}: {self.prefix}{name}: {problem}")

    def missing(self, name: str) -> FormatError:
        return self.fail(name, "is missing, and the model cannot be described without it")

    def integer(self, name: str, default: int | None = None, *, least: int = 1, most: int = 1 << 27) -> int:
        value = self.get(name)
        if value is None:
            if default is None:
                raise self.missing(name)
            return default
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise self.fail(name, f"is {str(value)[:60]}; it must be a whole number from {least} to {most}")
        return value

    def number(self, name: str, default: float | None = None, *, positive: bool = True) -> float:
        value = self.get(name)
        if value is None:
            if default is None:
                raise self.missing(name)
            return default
        # Compared first: a whole number of JSON can be too large for a float.
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < 1e30:
            raise self.fail(name, f"is {str(value)[:60]}; it must be a finite number")
        if positive and not value > 0:
            raise self.fail(name, f"is {value}; it must be greater than 0")
        return float(value)

    def head_width(self, name: str, hidden: int, heads: int) -> int:
        """The width of an attention head, by default the hidden size shared out."""
        if heads > hidden:
            raise self.fail(name, f"{heads} attention heads share a hidden size of {hidden}")
        return self.integer(name, hidden // heads)

    def flag(self, name: str, default: bool) -> bool:
        value = self.get(name)
        if value is not None and not isinstance(value, bool):
            raise self.fail(name, f"is {str(value)[:60]}; it must be true or false")
        return default if value is None else value

    def text(self, name: str, default: str | None = None) -> str:
        value = self.get(name)
        if value is None and default is not None:
            return default
        if not isinstance(value, str):
            raise self.missing(name) if value is None else self.fail(name, "must be a string")
        return value

    def numbers(self, name: str, length: int) -> tuple[float, ...]:
        """A list of `length` finite positive numbers."""
        value = self.get(name)
        if isinstance(value, np.ndarray):
            value = value.tolist()
        if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != length:
            raise self.fail(name, f"must be a list of {length} numbers")
        listed = Fields({str(index): element for index, element in enumerate(value)}, f"{self.where}: {name}")
        return tuple(listed.number(str(index)) for index in range(length))

    def section(self, name: str) -> Fields | None:
        """An object inside this one, or None if it is absent or null."""
        value = self.get(name)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise self.fail(name, "must be an object")
        return Fields(value, f"{self.where}: {self.prefix}{name}")


def mapped_files(arrays: Iterable[object]) -> list[mmap.mmap]:
    """The files that arrays lie in; those in memory of their own have none."""
    files: dict[int, mmap.mmap] = {}
    for base in arrays:
        while isinstance(base, np.ndarray | memoryview):
            base = base.base if isinstance(base, np.ndarray) else base.obj
        if isinstance(base, mmap.mmap):
            files[id(base)] = base
    return list(files.values())


def forget_pages(files: Sequence[mmap.mmap]) -> None:
    """Give back the memory that reading mapped files took.

    What is read once more (the few embedding rows of a step) comes from the system's page cache again.
    """
    for file in files:
        if hasattr(mmap, "MADV_DONTNEED"):
            file.madvise(mmap.MADV_DONTNEED)
