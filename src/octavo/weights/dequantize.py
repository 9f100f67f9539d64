"""From blocks of bytes to float32, one short function for each GGUF number format.

These are the slow twins of the native kernels: vectorized over blocks, in float32, in ggml's order of
operations, so that the values are bit for bit those of the reference dequantizers (ggml-quants.c).

Every function takes B blocks as uint8 [B, block_bytes] and returns float32 [B, block_elements].
Fields are little-endian; f16 is IEEE half.  Where a byte holds two 4-bit codes, byte j of a block of 32 has
element j in its low and element j + 16 in its high half.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from octavo.weights.tensor import TensorType

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]

# Blocks are worked on in groups of about this many elements: temporaries stay in the cache, and memory small.
_GROUP_ELEMENTS = 1 << 18

# The 16 levels of IQ4_NL and IQ4_XS (ggml's kvalues_iq4nl).
IQ4_LEVELS = np.array(
    [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], dtype=np.float32
)
# The 16 values of E2M1, doubled to be integers (OCP Microscaling Formats 1.0, section 5.3.3).
E2M1_DOUBLED = np.array([0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12], dtype=np.float32)


def dequantize(tensor_type: TensorType, data: Bytes) -> Floats:
    """All blocks of `data` (uint8 [bytes], whole blocks of `tensor_type`) as float32 [elements]."""
    blocks = data.reshape(-1, tensor_type.block_bytes)
    convert = _CONVERTERS[tensor_type]
    values = np.empty((len(blocks), tensor_type.block_elements), dtype=np.float32)
    group = max(1, _GROUP_ELEMENTS // tensor_type.block_elements)
    # A hostile scale (infinity times zero) gives a NaN here, not a warning: the values are the file's own.
    with np.errstate(all="ignore"):
        for first in range(0, len(blocks), group):
            values[first : first + group] = convert(blocks[first : first + group])
    return values.reshape(-1)


def _half(field: Bytes) -> Floats:
    """f16 fields, uint8 [B, 2n], as float32 [B, n]."""
    return np.ascontiguousarray(field).view(np.dtype("<f2")).astype(np.float32)


def _nibbles(codes: Bytes) -> Bytes:
    """4-bit codes, uint8 [..., n]: the low halves, then the high halves [..., 2n]."""
    return np.concatenate([codes & 15, codes >> 4], axis=-1)


def _bits(field: Bytes) -> Bytes:
    """Bit fields, uint8 [B, n], as 0 or 1, lowest bit of the first byte first [B, 8n]."""
    return np.unpackbits(field, axis=-1, bitorder="little")


def _shifted(codes: Bytes, shifts: tuple[int, ...], mask: int) -> Bytes:
    """`codes`, uint8 [..., n], at each shift in turn, masked: [..., len(shifts), n]."""
    return (codes[..., None, :] >> np.array(shifts, dtype=np.uint8)[:, None]) & np.uint8(mask)


def _affine(scale: Floats, minimum: Floats, codes: Bytes) -> Floats:
    """scale q - minimum for S sub-blocks of n: [B, S], [B, S] and [B, S, n] -> [B, S n]."""
    values: Floats = scale[:, :, None] * codes.astype(np.float32) - minimum[:, :, None]
    return values.reshape(len(values), -1)


def _f32(blocks: Bytes) -> Floats:
    """4 bytes an element."""
    return np.ascontiguousarray(blocks).view(np.dtype("<f4")).astype(np.float32, copy=False)


def _f16(blocks: Bytes) -> Floats:
    """2 bytes an element."""
    return _half(blocks)


def _bf16(blocks: Bytes) -> Floats:
    """2 bytes an element: the upper half of a float32."""
    upper = np.ascontiguousarray(blocks).view(np.dtype("<u2")).astype(np.uint32)
    return (upper << 16).view(np.float32)


def _q4_0(blocks: Bytes) -> Floats:
    """f16 d; 16 bytes of codes.  d (q - 8)."""
    return _half(blocks[:, :2]) * (_nibbles(blocks[:, 2:]).astype(np.float32) - 8)


def _q4_1(blocks: Bytes) -> Floats:
    """f16 d; f16 m; 16 bytes of codes.  d q + m."""
    return _half(blocks[:, :2]) * _nibbles(blocks[:, 4:]) + _half(blocks[:, 2:4])


def _q5_0(blocks: Bytes) -> Floats:
    """f16 d; 32 fifth bits; 16 bytes of low bits.  d (q - 16)."""
    codes = _nibbles(blocks[:, 6:]) | _bits(blocks[:, 2:6]) << 4
    return _half(blocks[:, :2]) * (codes.astype(np.float32) - 16)


def _q5_1(blocks: Bytes) -> Floats:
    """f16 d; f16 m; 32 fifth bits; 16 bytes of low bits.  d q + m."""
    codes = _nibbles(blocks[:, 8:]) | _bits(blocks[:, 4:8]) << 4
    return _half(blocks[:, :2]) * codes + _half(blocks[:, 2:4])


def _q8_0(blocks: Bytes) -> Floats:
    """f16 d; 32 int8 codes.  d q."""
    codes = blocks[:, 2:].view(np.int8).astype(np.float32)
    return _half(blocks[:, :2]) * codes


def _q2_k(blocks: Bytes) -> Floats:
    """16 bytes of scales (low half) and minima (high half) of 16 sub-blocks of 16; 64 bytes of 2-bit codes;
    f16 d; f16 dmin.  d s q - dmin m.  Each 32 bytes of codes hold 128 elements, 32 at each shift."""
    scales, codes = blocks[:, :16], blocks[:, 16:80].reshape(-1, 2, 32)
    scale = _half(blocks[:, 80:82]) * (scales & 15)
    minimum = _half(blocks[:, 82:84]) * (scales >> 4)
    return _affine(scale, minimum, _shifted(codes, (0, 2, 4, 6), 3).reshape(-1, 16, 16))


def _q3_k(blocks: Bytes) -> Floats:
    """32 bytes of high bits (bit r: the 32 elements of run r); 64 bytes of 2-bit codes as in Q2_K; 12 bytes
    of 6-bit scales of 16 sub-blocks of 16; f16 d.  d (s - 32) (q - 4), q with its high bit.
    Scales: low 4 bits from the halves of bytes 0 to 7, high 2 bits from bytes 8-11 at shifts 0, 2, 4, 6."""
    packed = blocks[:, 96:108]
    high_scale = _shifted(packed[:, 8:], (0, 2, 4, 6), 3).reshape(-1, 16)
    scales = (_nibbles(packed[:, :8]) | high_scale << 4).astype(np.float32) - 32
    low = _shifted(blocks[:, 32:96].reshape(-1, 2, 32), (0, 2, 4, 6), 3).reshape(-1, 16, 16)
    high = _shifted(blocks[:, :32], (0, 1, 2, 3, 4, 5, 6, 7), 1).reshape(-1, 16, 16)
    scale = _half(blocks[:, 108:]) * scales
    return (scale[:, :, None] * ((low | high << 2).astype(np.float32) - 4)).reshape(-1, 256)


def _scales_and_minima(packed: Bytes) -> tuple[Bytes, Bytes]:
    """The 8 scales and 8 minima of 6 bits in the 12 bytes of Q4_K and Q5_K: uint8 [B, 12] -> two [B, 8].

    Bytes 0-3 and 4-7 hold scales and minima 0 to 3; bytes 8-11 the low halves of 4 to 7, whose upper two bits
    are the upper two bits of bytes 0-7."""
    first, second, mixed = packed[:, 0:4], packed[:, 4:8], packed[:, 8:12]
    scales = np.concatenate([first & 63, (mixed & 15) | (first >> 6) << 4], axis=-1)
    minima = np.concatenate([second & 63, (mixed >> 4) | (second >> 6) << 4], axis=-1)
    return scales, minima


def _affine_32(blocks: Bytes, quants: Bytes) -> Floats:
    """d s q - dmin m for 8 sub-blocks of 32, with the 16 header bytes that Q4_K and Q5_K share."""
    scales, minima = _scales_and_minima(blocks[:, 4:16])
    scale = _half(blocks[:, :2]) * scales
    minimum = _half(blocks[:, 2:4]) * minima
    return _affine(scale, minimum, quants)


def _q4_k(blocks: Bytes) -> Floats:
    """f16 d; f16 dmin; 12 bytes of scales and minima; 128 bytes of codes: each 32 bytes hold sub-block 2i in
    their low and 2i + 1 in their high halves."""
    return _affine_32(blocks, _shifted(blocks[:, 16:].reshape(-1, 4, 32), (0, 4), 15).reshape(-1, 8, 32))


def _q5_k(blocks: Bytes) -> Floats:
    """As Q4_K, with 32 bytes of fifth bits (bit i: sub-block i) before the codes."""
    low = _shifted(blocks[:, 48:].reshape(-1, 4, 32), (0, 4), 15).reshape(-1, 8, 32)
    high = _shifted(blocks[:, 16:48], (0, 1, 2, 3, 4, 5, 6, 7), 1) << np.uint8(4)
    return _affine_32(blocks, low | high)


def _q6_k(blocks: Bytes) -> Floats:
    """128 bytes of low 4 bits; 64 bytes of high 2 bits; 16 int8 scales of 16 sub-blocks of 16; f16 d.
    d s (q - 32).  Each 64 + 32 bytes hold 128 elements in runs of 32."""
    low = _shifted(blocks[:, :128].reshape(-1, 2, 64), (0, 4), 15).reshape(-1, 16, 16)
    high = _shifted(blocks[:, 128:192].reshape(-1, 2, 32), (0, 2, 4, 6), 3).reshape(-1, 16, 16)
    scale = _half(blocks[:, 208:]) * blocks[:, 192:208].view(np.int8)
    return (scale[:, :, None] * ((low | high << 4).astype(np.float32) - 32)).reshape(-1, 256)


def _iq4_nl(blocks: Bytes) -> Floats:
    """f16 d; 16 bytes of codes.  d level[q]."""
    return _half(blocks[:, :2]) * IQ4_LEVELS[_nibbles(blocks[:, 2:])]


def _iq4_xs(blocks: Bytes) -> Floats:
    """f16 d; u16 of high 2 bits and 4 bytes of low 4 bits of 8 scales; 128 bytes of codes, 16 a sub-block
    of 32.  d (s - 32) level[q]."""
    high_pairs = np.ascontiguousarray(blocks[:, 2:4]).view(np.dtype("<u2"))
    high = (high_pairs >> np.arange(0, 16, 2, dtype=np.uint16)).astype(np.uint8) & 3
    low = np.stack([blocks[:, 4:8] & 15, blocks[:, 4:8] >> 4], axis=-1).reshape(-1, 8)
    scale = _half(blocks[:, :2]) * ((low | high << 4).astype(np.float32) - 32)
    levels: Floats = IQ4_LEVELS[_nibbles(blocks[:, 8:].reshape(-1, 8, 16))]
    values: Floats = scale[:, :, None] * levels
    return values.reshape(-1, 256)


def _mxfp4(blocks: Bytes) -> Floats:
    """u8 exponent e (E8M0); 16 bytes of E2M1 codes.  2^(e - 127) E2M1[q]."""
    exponent = blocks[:, :1].astype(np.int32) - 128  # one less: the table is doubled
    values: Floats = np.ldexp(E2M1_DOUBLED[_nibbles(blocks[:, 1:])], exponent)
    return values


def _tq1_0(blocks: Bytes) -> Floats:
    """48 bytes of 5 base-3 digits; 4 bytes of 4; f16 d.  d (t - 1).
    A byte is ceil(256 v / 243): digit n is the integer part of 3 (b 3^n mod 256) / 256.  Digit n of all bytes
    of a group comes before digit n + 1: groups of 32, 16 and 4 bytes."""
    digits = []
    for group, count in ((blocks[:, :32], 5), (blocks[:, 32:48], 5), (blocks[:, 48:52], 4)):
        powers = np.array([1, 3, 9, 27, 81][:count], dtype=np.uint8)
        fraction = group[:, None, :] * powers[:, None]  # uint8: modulo 256
        digits.append((fraction.astype(np.uint16) * 3 >> 8).reshape(len(blocks), -1))
    return _half(blocks[:, 52:]) * (np.concatenate(digits, axis=-1).astype(np.float32) - 1)


def _tq2_0(blocks: Bytes) -> Floats:
    """64 bytes of 2-bit codes, arranged as in Q2_K; f16 d.  d (q - 1)."""
    codes = _shifted(blocks[:, :64].reshape(-1, 2, 32), (0, 2, 4, 6), 3).reshape(-1, 256)
    return _half(blocks[:, 64:]) * (codes.astype(np.float32) - 1)


_CONVERTERS: dict[TensorType, Callable[[Bytes], Floats]] = {
    TensorType.F32: _f32,
    TensorType.F16: _f16,
    TensorType.BF16: _bf16,
    TensorType.Q4_0: _q4_0,
    TensorType.Q4_1: _q4_1,
    TensorType.Q5_0: _q5_0,
    TensorType.Q5_1: _q5_1,
    TensorType.Q8_0: _q8_0,
    TensorType.Q2_K: _q2_k,
    TensorType.Q3_K: _q3_k,
    TensorType.Q4_K: _q4_k,
    TensorType.Q5_K: _q5_k,
    TensorType.Q6_K: _q6_k,
    TensorType.IQ4_NL: _iq4_nl,
    TensorType.IQ4_XS: _iq4_xs,
    TensorType.MXFP4: _mxfp4,
    TensorType.TQ1_0: _tq1_0,
    TensorType.TQ2_0: _tq2_0,
}
