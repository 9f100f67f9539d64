"""Our own reader of GGUF files (versions 2 and 3, little-endian), memory-mapped and bounded.

A file is a header, key-value metadata, tensor descriptions and aligned tensor data (ggml's docs/gguf.md).
Nothing in it is trusted: every count and length is compared with the bytes that are left before anything is
made from it, sizes are Python integers that cannot wrap, and the first inconsistency is an error that names
its field.  Strings of arrays are decoded when they are asked for, numeric arrays and tensors are views.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from octavo.errors import FormatError, UnsupportedError
from octavo.text.string_table import StringTable
from octavo.weights.tensor import Tensor, TensorType, supported_types, type_name
from octavo.weights.untrusted import map_file

MAGIC = b"GGUF"
VERSIONS = (2, 3)
DEFAULT_ALIGNMENT = 32

# Limits, each far above any model's need, that keep a hostile file from costing seconds or gigabytes.
MAX_ALIGNMENT = 1 << 20
MAX_ENTRIES = 1 << 16  # metadata entries, and tensors
MAX_NAME_BYTES = 1 << 16
MAX_STRING_BYTES = 1 << 26  # a value; chat templates are the longest real ones
MAX_ARRAY_STRINGS = 1 << 22  # of all string arrays together; Gemma's tokens and merges are 0.8 million
MAX_DIMENSIONS = 4

# Value types of the metadata.
BOOL, STRING, ARRAY = 7, 8, 9
NUMBER_TYPES: dict[int, np.dtype[np.generic]] = {
    0: np.dtype("<u1"),
    1: np.dtype("<i1"),
    2: np.dtype("<u2"),
    3: np.dtype("<i2"),
    4: np.dtype("<u4"),
    5: np.dtype("<i4"),
    6: np.dtype("<f4"),
    10: np.dtype("<u8"),
    11: np.dtype("<i8"),
    12: np.dtype("<f8"),
}

_read_u64 = struct.Struct("<Q").unpack_from
_read_u32 = struct.Struct("<I").unpack_from


@dataclass(frozen=True)
class GgufFile:
    """A GGUF file that was read: metadata values by key and tensors by name, both in file order.

    metadata: int, float, bool, str, numpy array (numbers), list of bool, or StringTable.
    """

    path: Path
    version: int
    metadata: Mapping[str, object]
    tensors: Mapping[str, Tensor]


def read_gguf(path: Path) -> GgufFile:
    """Map a GGUF file and read everything but the tensor data.

    Raises FormatError that names the field for a file that is damaged or hostile, UnsupportedError for a
    version, byte order or tensor type that octavo does not have, OSError if the file cannot be opened.
    """
    return _Reader(path, map_file(path)).read()


class _Reader:
    """A position in the mapped bytes.  Every read is checked against the bytes that are left."""

    def __init__(self, path: Path, mapped: NDArray[np.uint8]) -> None:
        self.path = path
        self.mapped = mapped
        self.bytes = mapped.data
        self.size = len(mapped)
        self.position = 0
        self.array_strings = 0

    def fail(self, field: str, problem: str) -> NoReturn:
        raise FormatError(f"{self.path}: {field}: {problem}")

    def take(self, count: int, field: str) -> int:
        """Step over `count` bytes; where they start."""
        start = self.position
        if count > self.size - start:
            self.fail(
                field, f"needs {count} bytes, and the file has {self.size - start} left at byte {start}"
            )
        self.position = start + count
        return start

    def u32(self, field: str) -> int:
        return int(_read_u32(self.bytes, self.take(4, field))[0])

    def u64(self, field: str) -> int:
        return int(_read_u64(self.bytes, self.take(8, field))[0])

    def string(self, field: str, limit: int) -> str:
        length = self.u64(f"{field} length")
        if length > limit:
            self.fail(field, f"is {length} bytes long, more than the {limit} allowed")
        start = self.take(length, field)
        raw = bytes(self.bytes[start : start + length])
        try:
            return raw.decode()
        except UnicodeDecodeError:
            self.fail(field, f"is not UTF-8: {raw[:40]!r}")

    def count(self, field: str, smallest_entry: int) -> int:
        """A number of entries, which must fit into what is left of the file."""
        count = self.u64(field)
        left = self.size - self.position
        if count > MAX_ENTRIES or count * smallest_entry > left:
            self.fail(field, f"{count} entries; {left} bytes are left, and at most {MAX_ENTRIES} are allowed")
        return count

    # The file, top to bottom.

    def read(self) -> GgufFile:
        version = self.header()
        tensor_count = self.count("tensor count", 8 + 1 + 4 + 8 + 4 + 8)
        metadata = self.metadata(self.count("metadata count", 8 + 1 + 4 + 1))
        if metadata.get("split.count", 1) != 1:
            raise UnsupportedError(
                f"{self.path}: split.count: this is one part of a model in {metadata['split.count']} files, "
                "which octavo does not read; merge them (llama-gguf-split --merge) or take a single file"
            )
        alignment = self.alignment(metadata)
        descriptions = [self.tensor_description(index) for index in range(tensor_count)]
        return GgufFile(self.path, version, metadata, self.tensors(descriptions, alignment))

    def header(self) -> int:
        start = self.take(4, "magic")
        magic = bytes(self.bytes[start : start + 4])
        if magic != MAGIC:
            self.fail("magic", f"is {magic!r} and not {MAGIC!r}: this is no GGUF file")
        version = self.u32("version")
        if version not in VERSIONS:
            swapped = int.from_bytes(version.to_bytes(4, "little"), "big")
            what = "big-endian GGUF" if swapped in VERSIONS else f"GGUF version {version}"
            raise UnsupportedError(f"{self.path}: {what}; supported: little-endian versions 2 and 3")
        return version

    def metadata(self, count: int) -> dict[str, object]:
        metadata: dict[str, object] = {}
        for index in range(count):
            key = self.string(f"metadata key {index}", MAX_NAME_BYTES)
            if not key or key in metadata:
                self.fail(f"metadata key {index}", f"{key!r} occurs twice" if key else "is empty")
            metadata[key] = self.value(key, self.u32(f"{key} type"))
        return metadata

    def value(self, key: str, kind: int) -> object:
        if kind == STRING:
            return self.string(key, MAX_STRING_BYTES)
        if kind == BOOL:
            return self.boolean(key)
        if kind == ARRAY:
            return self.array(key)
        if kind not in NUMBER_TYPES:
            self.fail(f"{key} type", f"{kind} is no value type")
        dtype = NUMBER_TYPES[kind]
        return np.frombuffer(self.bytes, dtype, 1, self.take(dtype.itemsize, key))[0].item()

    def boolean(self, field: str) -> bool:
        value = self.bytes[self.take(1, field)]
        if value > 1:
            self.fail(field, f"is {value}, and a truth value is 0 or 1")
        return value == 1

    def array(self, key: str) -> object:
        kind = self.u32(f"{key} element type")
        length = self.u64(f"{key} array length")
        if kind == STRING:
            return self.string_array(key, length)
        if kind == ARRAY:
            self.fail(f"{key} element type", "arrays of arrays are not allowed")
        if kind != BOOL and kind not in NUMBER_TYPES:
            self.fail(f"{key} element type", f"{kind} is no value type")
        dtype = NUMBER_TYPES.get(kind, np.dtype("<u1"))
        start = self.take(length * dtype.itemsize, key)
        if not length:
            return [] if kind == BOOL else np.empty(0, dtype)
        values = np.frombuffer(self.bytes, dtype, length, start)
        if kind != BOOL:
            return values
        if length > MAX_ARRAY_STRINGS or int(values.max()) > 1:
            self.fail(key, "has a truth value that is neither 0 nor 1, or too many of them")
        return [bool(value) for value in values]

    def string_array(self, key: str, length: int) -> StringTable:
        self.array_strings += length
        left = self.size - self.position
        if self.array_strings > MAX_ARRAY_STRINGS or length * 8 > left:
            self.fail(f"{key} array length", f"{length} strings; {left} bytes are left")
        strings = StringTable(key)
        try:
            taken = strings.read(self.mapped[self.position :], length)
        except ValueError as error:
            self.fail(key, f"is too long: {error}")
        if len(strings) < length:
            self.fail(f"{key}[{len(strings)}]", "a string reaches beyond the end of the file")
        self.take(taken, key)
        return strings

    def alignment(self, metadata: Mapping[str, object]) -> int:
        alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
        valid = isinstance(alignment, int) and 1 <= alignment <= MAX_ALIGNMENT and alignment.bit_count() == 1
        if not valid or isinstance(alignment, bool):
            self.fail(
                "general.alignment", f"is {alignment!r}; it must be a power of two up to {MAX_ALIGNMENT}"
            )
        assert isinstance(alignment, int)
        return alignment

    def tensor_description(self, index: int) -> tuple[str, TensorType, tuple[int, ...], int]:
        """Name, type, shape (rows first) and offset in the data of one tensor."""
        name = self.string(f"tensor {index} name", MAX_NAME_BYTES)
        if not name:
            self.fail(f"tensor {index} name", "is empty")
        dimensions = self.u32(f"{name} dimension count")
        if not 1 <= dimensions <= MAX_DIMENSIONS:
            self.fail(f"{name} dimension count", f"is {dimensions}; 1 to {MAX_DIMENSIONS} are allowed")
        # GGUF writes the row length first.
        shape = tuple(self.u64(f"{name} dimension {axis}") for axis in range(dimensions))[::-1]
        number = self.u32(f"{name} type")
        if number not in TensorType.__members__.values():
            raise UnsupportedError(
                f"{self.path}: tensor {name} has the type {type_name(number)}; supported: {supported_types()}"
            )
        return name, TensorType(number), shape, self.u64(f"{name} offset")

    def tensors(
        self, descriptions: list[tuple[str, TensorType, tuple[int, ...], int]], alignment: int
    ) -> dict[str, Tensor]:
        data_start = -(-self.position // alignment) * alignment
        tensors: dict[str, Tensor] = {}
        extents = []
        for name, kind, shape, offset in descriptions:
            if name in tensors:
                self.fail(f"tensor {name}", "occurs twice")
            if min(shape) < 1:
                self.fail(f"{name} dimensions", f"{shape} has one that is 0")
            if shape[-1] % kind.block_elements:
                self.fail(
                    f"{name} dimension 0",
                    f"a row of {shape[-1]} is no multiple of {kind.block_elements}, the block of {kind.name}",
                )
            if offset % alignment:
                self.fail(f"{name} offset", f"{offset} is no multiple of the alignment, {alignment}")
            byte_count = math.prod(shape) // kind.block_elements * kind.block_bytes
            start = data_start + offset
            if start + byte_count > self.size:
                self.fail(
                    f"{name} offset",
                    f"its {byte_count} bytes from byte {start} end beyond the file's {self.size}; "
                    "the file may be truncated",
                )
            extents.append((start, start + byte_count, name))
            tensors[name] = Tensor(name, kind, shape, self.mapped[start : start + byte_count])
        extents.sort()
        for (_, end, name), (start, _, following) in zip(extents, extents[1:], strict=False):
            if start < end:
                self.fail(f"{following} offset", f"overlaps tensor {name}")
        return tensors
