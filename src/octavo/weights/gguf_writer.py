"""Writing GGUF version 3: what `gguf.read_gguf` reads comes back equal."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from octavo.weights.gguf import ARRAY, BOOL, DEFAULT_ALIGNMENT, MAGIC, NUMBER_TYPES, STRING
from octavo.weights.tensor import Tensor

_KINDS = {dtype.str: kind for kind, dtype in NUMBER_TYPES.items()}


def write_gguf(
    path: Path, metadata: Mapping[str, object], tensors: Iterable[Tensor], *, version: int = 3
) -> None:
    """Write `path` whole or not at all.

    metadata: bool, str, int (u32 where it fits, else i32, u64, i64), float (f32), numpy scalars and
        one-dimensional arrays (their own type), sequences of str or bool.  `general.alignment` is honoured.
    tensors: rows first, as everywhere in octavo; written in this order.
    Raises TypeError that names the key for a value that GGUF cannot hold.
    """
    listed = list(tensors)
    alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
    if not isinstance(alignment, int):
        raise TypeError(f"general.alignment: {alignment!r} is no integer")
    header = bytearray(MAGIC + struct.pack("<IQQ", version, len(listed), len(metadata)))
    for key, value in metadata.items():
        header += _string(key) + _value(key, value)
    offset = 0
    for tensor in listed:
        shape = tensor.shape[::-1]  # GGUF writes the row length first
        header += _string(tensor.name) + struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
        header += struct.pack("<IQ", tensor.type, offset)
        offset += _aligned(len(tensor.data), alignment)
    header += bytes(_aligned(len(header), alignment) - len(header))

    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            file.write(header)
            for tensor in listed:
                _write_padded(file, tensor, alignment)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _write_padded(file: BinaryIO, tensor: Tensor, alignment: int) -> None:
    file.write(np.ascontiguousarray(tensor.data).data)
    file.write(bytes(_aligned(len(tensor.data), alignment) - len(tensor.data)))


def _aligned(size: int, alignment: int) -> int:
    return -(-size // alignment) * alignment


def _string(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def _value(key: str, value: object) -> bytes:
    """A value with its type in front."""
    if isinstance(value, str):
        return struct.pack("<I", STRING) + _string(value)
    if isinstance(value, (bool, np.bool_)):
        return struct.pack("<I?", BOOL, value)
    if isinstance(value, int):
        value = _integer(key, value)
    elif isinstance(value, float) and not isinstance(value, np.generic):
        value = np.float32(value)
    if isinstance(value, np.generic):
        return _number_type(key, value.dtype) + value.astype(value.dtype.newbyteorder("<")).tobytes()
    return struct.pack("<I", ARRAY) + _array(key, value)


def _array(key: str, value: object) -> bytes:
    """A sequence: element type, length, elements."""
    if isinstance(value, np.ndarray) and value.ndim == 1:
        elements = value.astype(value.dtype.newbyteorder("<"), copy=False)
        return _number_type(key, value.dtype) + struct.pack("<Q", len(value)) + elements.tobytes()
    if isinstance(value, Sequence):
        if all(isinstance(element, str) for element in value):
            return struct.pack("<IQ", STRING, len(value)) + b"".join(map(_string, value))
        if all(isinstance(element, bool) for element in value):
            return struct.pack("<IQ", BOOL, len(value)) + bytes(value)
    raise TypeError(
        f"{key}: GGUF cannot hold {type(value).__name__}; numbers go into a one-dimensional numpy array"
    )


def _integer(key: str, value: int) -> np.generic:
    for kind in (np.uint32, np.int32, np.uint64, np.int64):
        if np.iinfo(kind).min <= value <= np.iinfo(kind).max:
            return kind(value)
    raise TypeError(f"{key}: {value} does not fit into 64 bits")


def _number_type(key: str, dtype: np.dtype[np.generic]) -> bytes:
    kind = _KINDS.get(dtype.newbyteorder("<").str)
    if kind is None:
        raise TypeError(f"{key}: GGUF cannot hold numbers of the type {dtype}")
    return struct.pack("<I", kind)
