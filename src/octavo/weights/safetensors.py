"""Our own reader of safetensors files, single and sharded, memory-mapped and bounded.

A file is the length of the header (u64, little-endian), the header (JSON: name -> dtype, shape, begin and end
of the bytes) and the bytes.  The rules are those of the safetensors project's format description: the header
takes at most 100 MB, `end - begin` is what dtype and shape need, and the tensors tile the rest of the file
without holes or overlaps.  Nothing is ever unpickled.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from octavo.errors import FormatError, UnsupportedError
from octavo.weights.tensor import Tensor, TensorType
from octavo.weights.untrusted import map_file, parse_json, read_json

MAX_HEADER_BYTES = 100_000_000
MAX_SHARDS = 1024
MAX_DIMENSIONS = 8
INDEX_NAME = "model.safetensors.index.json"
SINGLE_NAME = "model.safetensors"

_TYPES = {"F32": TensorType.F32, "F16": TensorType.F16, "BF16": TensorType.BF16}
# Bits of an element, for the sizes of tensors that octavo steps over.
_BITS = {
    **{"F64": 64, "I64": 64, "U64": 64, "C64": 64, "F32": 32, "I32": 32, "U32": 32, "F16": 16, "BF16": 16},
    **{"I16": 16, "U16": 16, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8},
    **{"I8": 8, "U8": 8, "BOOL": 8, "F6_E2M3": 6, "F6_E3M2": 6, "F4": 4},
}


@dataclass(frozen=True, eq=False)
class SafetensorsEntry:
    """One tensor of a safetensors file: where it is, its dtype as the file names it, its shape and bytes."""

    path: Path
    name: str
    dtype: str
    shape: tuple[int, ...]
    data: NDArray[np.uint8]

    def tensor(self, name: str) -> Tensor:
        """The tensor under another name.  Raises UnsupportedError for a dtype that octavo does not run."""
        if self.dtype not in _TYPES:
            raise UnsupportedError(
                f"{self.path}: tensor {self.name} has the type {self.dtype}; supported: {', '.join(_TYPES)}"
            )
        return Tensor(name, _TYPES[self.dtype], self.shape, self.data)


def read_safetensors(path: Path) -> dict[str, SafetensorsEntry]:
    """Map one file and check its header.

    Raises FormatError that names the field for a damaged or hostile file, OSError if it cannot be opened.
    """
    mapped = map_file(path)
    if len(mapped) < 8:
        raise FormatError(f"{path}: header length: the file has only {len(mapped)} bytes")
    header_bytes = int(mapped[:8].view(np.dtype("<u8"))[0])
    if header_bytes > min(MAX_HEADER_BYTES, len(mapped) - 8):
        raise FormatError(
            f"{path}: header length: {header_bytes} bytes; the file has {len(mapped)}, "
            f"and at most {MAX_HEADER_BYTES} are allowed"
        )
    header = parse_json(bytes(mapped[8 : 8 + header_bytes]), f"{path}: header")
    header.pop("__metadata__", None)
    return _entries(path, header, mapped[8 + header_bytes :])


def read_sharded(folder: Path) -> dict[str, SafetensorsEntry]:
    """All tensors of a model folder: of model.safetensors, or of the files that its index names.

    Raises FileNotFoundError if the folder has neither, FormatError as `read_safetensors`.
    """
    index_path = folder / INDEX_NAME
    if not index_path.exists():
        return read_safetensors(folder / SINGLE_NAME)
    weight_map = read_json(index_path).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(file, str) for file in weight_map.values()):
        raise FormatError(f"{index_path}: weight_map: must name a file for each tensor")
    files = sorted(set(weight_map.values()))
    if len(files) > MAX_SHARDS:
        raise FormatError(
            f"{index_path}: weight_map: names {len(files)} files; at most {MAX_SHARDS} are allowed"
        )
    entries: dict[str, SafetensorsEntry] = {}
    for file in files:
        if Path(file).name != file or "\\" in file or "\0" in file or not file.endswith(".safetensors"):
            raise FormatError(f"{index_path}: weight_map: {file!r} is no safetensors file of this folder")
        if not (folder / file).exists():
            raise FormatError(
                f"{index_path}: weight_map: {file} is not in the folder; is the download complete?"
            )
        shard = read_safetensors(folder / file)
        twice = entries.keys() & shard.keys()
        if twice:
            raise FormatError(f"{folder / file}: tensor {min(twice)} is in another file too")
        entries.update(shard)
    missing = [
        name for name, file in weight_map.items() if name not in entries or entries[name].path.name != file
    ]
    if missing:
        raise FormatError(f"{index_path}: weight_map: {missing[0]} is not in {weight_map[missing[0]]}")
    return entries


def _entries(
    path: Path, header: Mapping[str, object], data: NDArray[np.uint8]
) -> dict[str, SafetensorsEntry]:
    entries: dict[str, SafetensorsEntry] = {}
    extents = []
    for name, description in header.items():
        dtype, shape, begin, end = _description(path, name, description)
        bits = math.prod(shape) * _BITS[dtype]
        if (end - begin) * 8 != bits:
            _fail(path, name, "data_offsets", f"{end - begin} bytes; {dtype} {list(shape)} takes {bits} bits")
        if end > len(data):
            _fail(
                path, name, "data_offsets", f"{end}; the file has {len(data)} bytes of data. Is it truncated?"
            )
        extents.append((begin, end, name))
        entries[name] = SafetensorsEntry(path, name, dtype, shape, data[begin:end])
    extents.sort()
    reached = 0
    for begin, end, name in extents:
        if begin != reached:
            _fail(
                path, name, "data_offsets", f"begins at {begin}, and the tensor before it ends at {reached}"
            )
        reached = end
    if reached != len(data):
        raise FormatError(f"{path}: {len(data) - reached} bytes after the last tensor belong to none")
    return entries


def _description(path: Path, name: str, description: object) -> tuple[str, tuple[int, ...], int, int]:
    """dtype, shape, begin and end of one header entry, each checked for its kind and range."""
    if not isinstance(description, dict):
        raise FormatError(f"{path}: tensor {name!r}: its description is no object")
    dtype = description.get("dtype")
    if not isinstance(dtype, str):
        _fail(path, name, "dtype", f"is {dtype!r} and not a name")
    if dtype not in _BITS:
        raise UnsupportedError(
            f"{path}: tensor {name} has the type {dtype!r}; supported: {', '.join(_TYPES)}"
        )
    shape = _sizes(path, name, "shape", description.get("shape"))
    if len(shape) > MAX_DIMENSIONS:
        _fail(path, name, "shape", f"has {len(shape)} dimensions; at most {MAX_DIMENSIONS} are allowed")
    offsets = _sizes(path, name, "data_offsets", description.get("data_offsets"))
    if len(offsets) != 2 or offsets[0] > offsets[1]:
        _fail(path, name, "data_offsets", f"{list(offsets)[:4]} is no pair of a begin and an end")
    return dtype, shape, offsets[0], offsets[1]


def _sizes(path: Path, name: str, field: str, value: object) -> tuple[int, ...]:
    # A JSON true is an int to isinstance, and no size.
    if not isinstance(value, list) or not all(type(size) is int and 0 <= size < 1 << 63 for size in value):
        _fail(path, name, field, "must be a list of whole numbers from 0 up to 2^63")
    return tuple(value)


def _fail(path: Path, name: str, field: str, problem: str) -> NoReturn:
    raise FormatError(f"{path}: tensor {name}: {field}: {problem}")
