"""Every dequantizer against the independent `gguf` package, bit for bit, and values worked by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from octavo.weights.dequantize import dequantize
from octavo.weights.tensor import Tensor, TensorType


@pytest.mark.parametrize("tensor_type", list(TensorType), ids=lambda member: member.name)
def test_random_bytes_agree_with_the_gguf_package(tensor_type: TensorType) -> None:
    gguf = pytest.importorskip("gguf", reason="the independent reader `gguf` is not installed")
    from gguf.quants import dequantize as reference

    rows, blocks = 7, 300  # more than one group of blocks
    generator = np.random.default_rng(tensor_type)
    data = generator.integers(0, 256, (rows, blocks * tensor_type.block_bytes), dtype=np.uint8)
    with np.errstate(all="ignore"):
        kind = gguf.GGMLQuantizationType(int(tensor_type))
        # The package views plain floats only through their own dtype.
        source: Any = data.view(np.float32) if tensor_type is TensorType.F32 else data
        source = data.view(np.float16) if tensor_type is TensorType.F16 else source
        expected = reference(source, kind)
    found = dequantize(tensor_type, data.reshape(-1)).reshape(rows, -1)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("tensor_type", list(TensorType), ids=lambda member: member.name)
def test_block_sizes_agree_with_the_gguf_package(tensor_type: TensorType) -> None:
    gguf = pytest.importorskip("gguf", reason="the independent reader `gguf` is not installed")
    sizes = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType(int(tensor_type))]
    assert (tensor_type.block_elements, tensor_type.block_bytes) == sizes


def half(value: float) -> bytes:
    return np.float16(value).tobytes()


def numbers(tensor_type: TensorType, block: bytes) -> list[float]:
    return [float(value) for value in dequantize(tensor_type, np.frombuffer(block, np.uint8))]


def test_q4_0_by_hand() -> None:
    values = numbers(TensorType.Q4_0, half(0.5) + bytes([0xF0] * 16))
    assert values == [-4.0] * 16 + [3.5] * 16


def test_q5_1_by_hand() -> None:
    fifth_bits = bytes([0, 0, 0xFF, 0xFF])  # of elements 16 to 31
    values = numbers(TensorType.Q5_1, half(2) + half(-1) + fifth_bits + bytes([0x21] * 16))
    assert values == [1.0] * 16 + [35.0] * 16


def test_q4_k_by_hand() -> None:
    # Scale 1 and minimum 3 in sub-block 0; scale 17 = 1 + (1 << 4) and minimum 2 in sub-block 4.
    packed = bytes([1 | 1 << 6, 0, 0, 0, 3, 0, 0, 0, 1 | 2 << 4, 0, 0, 0])
    values = numbers(TensorType.Q4_K, half(1) + half(0.5) + packed + bytes([0x05] * 128))
    assert values[:32] == [1 * 5 - 1.5] * 32
    assert values[32:128] == [0.0] * 96
    assert values[128:160] == [17 * 5 - 1.0] * 32
    assert values[160:] == [0.0] * 96


def test_mxfp4_by_hand() -> None:
    values = numbers(TensorType.MXFP4, bytes([128]) + bytes([0x97] * 16))
    assert values == [12.0] * 16 + [-1.0] * 16


def test_tq1_0_by_hand() -> None:
    digits = [2, 0, 1, 2, 1]
    value = int("".join(map(str, digits)), 3)
    code = -(-value * 256 // 243)
    values = numbers(TensorType.TQ1_0, bytes([code] * 48) + bytes(4) + half(1))
    expected = [float(digit - 1) for digit in digits]
    assert [values[32 * position] for position in range(5)] == expected
    assert [values[160 + 16 * position] for position in range(5)] == expected
    assert values[240:] == [-1.0] * 16


def test_tensor_has_its_shape() -> None:
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    tensor = Tensor("t", TensorType.F32, (2, 3), values.reshape(-1).view(np.uint8))
    np.testing.assert_array_equal(tensor.numpy(), values)
