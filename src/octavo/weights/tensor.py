"""Tensors as they lie in a model file: their number formats and the bytes, not yet numbers.

The type numbers, block sizes and names are those of ggml (ggml-common.h), which GGUF files carry; tensors
from safetensors use the three float types.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


class TensorType(enum.IntEnum):
    """A number format.  Elements of a row come in blocks of `block_elements` that take `block_bytes`."""

    F32 = 0
    F16 = 1
    Q4_0 = 2
    Q4_1 = 3
    Q5_0 = 6
    Q5_1 = 7
    Q8_0 = 8
    Q2_K = 10
    Q3_K = 11
    Q4_K = 12
    Q5_K = 13
    Q6_K = 14
    IQ4_NL = 20
    IQ4_XS = 23
    BF16 = 30
    TQ1_0 = 34
    TQ2_0 = 35
    MXFP4 = 39

    @property
    def block_elements(self) -> int:
        return _BLOCKS[self][0]

    @property
    def block_bytes(self) -> int:
        return _BLOCKS[self][1]

    @property
    def is_float(self) -> bool:
        """Whether every element is a plain float (F32, F16, BF16)."""
        return self.block_elements == 1


_BLOCKS: dict[TensorType, tuple[int, int]] = {
    TensorType.F32: (1, 4),
    TensorType.F16: (1, 2),
    TensorType.BF16: (1, 2),
    TensorType.Q4_0: (32, 18),
    TensorType.Q4_1: (32, 20),
    TensorType.Q5_0: (32, 22),
    TensorType.Q5_1: (32, 24),
    TensorType.Q8_0: (32, 34),
    TensorType.Q2_K: (256, 84),
    TensorType.Q3_K: (256, 110),
    TensorType.Q4_K: (256, 144),
    TensorType.Q5_K: (256, 176),
    TensorType.Q6_K: (256, 210),
    TensorType.IQ4_NL: (32, 18),
    TensorType.IQ4_XS: (256, 136),
    TensorType.MXFP4: (32, 17),
    TensorType.TQ1_0: (256, 54),
    TensorType.TQ2_0: (256, 66),
}

# Types that GGUF files have and octavo does not, so that an error can name them.
_UNSUPPORTED = {
    **{
        9: "Q8_1",
        15: "Q8_K",
        16: "IQ2_XXS",
        17: "IQ2_XS",
        18: "IQ3_XXS",
        19: "IQ1_S",
        21: "IQ3_S",
        22: "IQ2_S",
    },
    **{
        24: "I8",
        25: "I16",
        26: "I32",
        27: "I64",
        28: "F64",
        29: "IQ1_M",
        40: "NVFP4",
        41: "Q1_0",
        42: "Q2_0",
    },
}


def type_name(number: int) -> str:
    """The name of a ggml type number, also of those that octavo does not have."""
    return TensorType(number).name if number in _BLOCKS else _UNSUPPORTED.get(number, f"number {number}")


def supported_types() -> str:
    """The names of all supported types, for error messages."""
    return ", ".join(member.name for member in TensorType)


@dataclass(frozen=True, eq=False)
class Tensor:
    """A named tensor.

    shape: row-major, rows first: a weight is (outputs, inputs).
    data: uint8 [bytes], the blocks of row 0, then of row 1 and so on; a read-only view of the mapped file
        where the file has them in this order.
    """

    name: str
    type: TensorType
    shape: tuple[int, ...]
    data: NDArray[np.uint8]

    def numpy(self) -> NDArray[np.float32]:
        """The values as a new float32 array of `shape`."""
        from octavo.weights.dequantize import dequantize

        return dequantize(self.type, self.data).reshape(self.shape)
