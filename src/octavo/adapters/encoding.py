"""Float matrices into the number formats that octavo writes, as llama.cpp's quantize_row_*_ref rounds them.

Legend: a block is 32 neighbours of a row; d its scale and m its minimum, each in half precision.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from octavo.errors import UnsupportedError
from octavo.weights.tensor import Tensor, TensorType

Floats = NDArray[np.float32]
TYPES = {
    "f32": TensorType.F32,
    "bf16": TensorType.BF16,
    "q8_0": TensorType.Q8_0,
    "q4_1": TensorType.Q4_1,
    "q4_0": TensorType.Q4_0,
}
_BLOCK = 32


def encode(name: str, values: Floats, kind: TensorType) -> Tensor:
    """A tensor in a number format; vectors, and rows that its blocks do not fill, stay in float32."""
    if values.ndim < 2 or values.shape[-1] % kind.block_elements:
        kind = TensorType.F32
    if kind not in _ENCODERS:
        raise UnsupportedError(f"{kind.name}: octavo writes {', '.join(TYPES)}")
    data = _ENCODERS[kind](np.ascontiguousarray(values, np.float32))
    return Tensor(name, kind, values.shape, data.reshape(-1))


def _f32(values: Floats) -> NDArray[np.uint8]:
    return values.view(np.uint8)


def _bf16(values: Floats) -> NDArray[np.uint8]:
    """Rounded to the nearest, ties to even; NaN stays NaN."""
    bits = values.view(np.uint32)
    rounded = ((bits + (0x7FFF + ((bits >> 16) & 1))) >> 16).astype(np.uint16)
    kept = (bits >> 16).astype(np.uint16) | np.uint16(0x40)
    return np.where(np.isnan(values), kept, rounded).view(np.uint8)


def _q8_0(values: Floats) -> NDArray[np.uint8]:
    """d = the largest magnitude by 127, and 32 codes of 8 bits."""
    blocks = values.reshape(-1, _BLOCK)
    scales = np.abs(blocks).max(axis=1, keepdims=True) / np.float32(127)
    codes = _round_half_away(blocks * _inverse(scales)).astype(np.int8)
    return np.concatenate([scales.astype("<f2").view(np.uint8), codes.view(np.uint8)], axis=1)


def _q4_0(values: Floats) -> NDArray[np.uint8]:
    """d = the number of the largest magnitude by -8: it gets the code 0, which is -8 times d."""
    blocks = values.reshape(-1, _BLOCK)
    places = np.abs(blocks).argmax(axis=1, keepdims=True)
    scales = np.take_along_axis(blocks, places, axis=1) / np.float32(-8)
    codes = np.trunc(blocks * _inverse(scales) + np.float32(8.5)).clip(0, 15).astype(np.uint8)
    return np.concatenate([scales.astype("<f2").view(np.uint8), _nibbles(codes)], axis=1)


def _q4_1(values: Floats) -> NDArray[np.uint8]:
    """m the smallest number, d a fifteenth of the range."""
    blocks = values.reshape(-1, _BLOCK)
    least = blocks.min(axis=1, keepdims=True)
    scales = (blocks.max(axis=1, keepdims=True) - least) / np.float32(15)
    codes = np.trunc((blocks - least) * _inverse(scales) + np.float32(0.5)).clip(0, 15).astype(np.uint8)
    head = np.concatenate([scales.astype("<f2"), least.astype("<f2")], axis=1)
    return np.concatenate([head.view(np.uint8), _nibbles(codes)], axis=1)


def _nibbles(codes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Byte j has code j in its low and code j + 16 in its high half."""
    packed: NDArray[np.uint8] = codes[:, :16] | (codes[:, 16:] << np.uint8(4))
    return packed


def _inverse(scales: Floats) -> Floats:
    """1 / d, and 0 for blocks of nothing."""
    return np.divide(np.float32(1), scales, out=np.zeros_like(scales), where=scales != 0)


def _round_half_away(values: Floats) -> Floats:
    """As C's roundf: halves go away from zero."""
    rounded: Floats = np.trunc(values + np.copysign(np.float32(0.5), values))
    return rounded


_ENCODERS = {
    TensorType.F32: _f32,
    TensorType.BF16: _bf16,
    TensorType.Q8_0: _q8_0,
    TensorType.Q4_0: _q4_0,
    TensorType.Q4_1: _q4_1,
}
