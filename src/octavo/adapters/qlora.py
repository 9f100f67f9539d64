"""QLoRA: frozen weights stay in 4 bits and are unpacked where they are multiplied (Dettmers et al. 2023).

Every GGUF number format is a base as it is; float weights become NF4 (`adapters/nf4.py`) or blocks of GGUF
(`adapters/encoding.py`): Q8_0 is int8 with a scale for 32 weights.  One buffer in the
computing type takes the layer at hand, in the forward and again in the backward pass, so that no more than
one layer is ever unpacked.

Legend: N rows (tokens), I inputs, O outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from octavo import _native
from octavo.adapters.encoding import TYPES, encode
from octavo.adapters.frozen import PlainFrozen
from octavo.adapters.nf4 import BLOCK, NF4Weight, quantize_nf4, scale_levels
from octavo.layers.byte_product import kept_columns
from octavo.layers.native_product import Low, PackedWeight, backward_product, forward_product, suits_weight
from octavo.layers.native_training import openmp_team
from octavo.weights.tensor import TensorType

_CONVERTED = 1 << 20  # numbers that are in float32 on their way to another type


@dataclass(frozen=True, eq=False)
class Blocks:
    """A matrix as it lies in a file: rows of blocks of a number format, uint8 [rows, bytes]."""

    type: TensorType
    rows: int
    columns: int
    data: NDArray[np.uint8]

    def numpy(self) -> NDArray[np.float32]:
        """The values, float32 [rows, columns]."""
        out = np.empty((self.rows, self.columns), np.float32)
        _native.dequantize(int(self.type), self.columns, np.ascontiguousarray(self.data).reshape(-1), out)
        return out

    def tensor(self, dtype: torch.dtype) -> Tensor:
        """The values, rounded to a type, with no more than a few rows of them in float32 at a time."""
        out = torch.empty(self.rows, self.columns, dtype=dtype)
        step = max(1, _CONVERTED // self.columns)
        for begin in range(0, self.rows, step):
            rows = self.data[begin : begin + step]
            out[begin : begin + step] = torch.from_numpy(
                Blocks(self.type, len(rows), self.columns, rows).numpy()
            )
        return out


class Scratch:
    """Memory for one unpacked layer, shared by all layers of a model; it grows to the largest."""

    def __init__(self) -> None:
        self._memory = torch.empty(0, dtype=torch.bfloat16)

    def take(self, rows: int, columns: int, dtype: torch.dtype) -> Tensor:
        """[rows, columns] of undefined numbers, until the next call."""
        if self._memory.numel() < rows * columns or self._memory.dtype != dtype:
            self._memory = torch.empty(rows * columns, dtype=dtype)
        return self._memory[: rows * columns].view(rows, columns)


class PackedFrozen(PlainFrozen):
    """A frozen weight in its packed form; see frozen.FrozenWeight.

    NF4 is unpacked by the product itself where there is a kernel for that, other formats layer by layer.

    base_format: of float weights; "nf4", or a name of encoding.TYPES.
    in_bytes: the kernel may round both sides of a product to 8 bits.
    """

    def __init__(
        self,
        parts: Sequence[Blocks],
        dtype: torch.dtype,
        scratch: Scratch,
        base_format: str = "nf4",
        *,
        in_bytes: bool = False,
    ) -> None:
        self.dtype, self._scratch = dtype, scratch
        self.shape = (sum(part.rows for part in parts), parts[0].columns)
        self.parts: list[Blocks | NF4Weight] = [
            _packed(part, base_format) if part.type.is_float else _own(part) for part in parts
        ]
        self._in_product = _packed_weight(self.parts, self.shape, dtype)
        self.kept = kept_columns(self.shape) if in_bytes else None

    def forward(self, x: Tensor, low: Low | None = None) -> Tensor:
        weight = self._for_kernel()
        if weight is None:
            return super().forward(x, low)
        return forward_product(x, weight, low, kept=self.kept)

    def backward(self, gradient: Tensor, low: Low | None = None) -> Tensor:
        weight = self._for_kernel()
        if weight is None:
            return super().backward(gradient, low)
        return backward_product(gradient, weight, low, in_bytes=self.kept is not None)

    def _for_kernel(self) -> PackedWeight | Tensor | None:
        """What the product's own kernel reads; None where it is not for this weight."""
        if self._in_product is not None:
            return self._in_product
        return self.unpack() if suits_weight(self.shape, self.dtype) else None

    def _forward(self, x: Tensor) -> Tensor:
        return x @ self.unpack().T

    def _backward(self, gradient: Tensor) -> Tensor:
        return gradient @ self.unpack()

    def row_squares(self) -> Tensor:
        return torch.cat([_values(part).square().sum(1) for part in self.parts])

    def unpack(self) -> Tensor:
        """[O, I] in the computing type, until another layer is unpacked."""
        out = self._scratch.take(*self.shape, self.dtype)
        row = 0
        for part in self.parts:
            rows = part.rows if isinstance(part, Blocks) else part.shape[0]
            unpack_into(part, out[row : row + rows])
            row += rows
        return out


def unpack_into(part: Blocks | NF4Weight, out: Tensor) -> None:
    """The values of a packed matrix, rounded to the type of out [rows, columns]."""
    if out.dtype not in (torch.bfloat16, torch.float32) or out.numel() % BLOCK:
        out.copy_(_values(part))
        return
    single = out.dtype == torch.float32
    if isinstance(part, Blocks):
        shape = part.rows, part.columns
        _native.unpack_blocks(
            *openmp_team(), int(part.type), part.data.ctypes.data, *shape, out.data_ptr(), single
        )
    else:
        absmax = part.absmax()  # held while the kernel reads it
        count = out.numel() // BLOCK
        _native.unpack_nf4(
            *openmp_team(), part.codes.data_ptr(), absmax.data_ptr(), count, out.data_ptr(), single
        )


def _packed(part: Blocks, base_format: str) -> Blocks | NF4Weight:
    if base_format == "nf4":
        return quantize_nf4(torch.from_numpy(part.numpy()))
    tensor = encode("", part.numpy(), TYPES[base_format])
    return Blocks(tensor.type, part.rows, part.columns, tensor.data.reshape(part.rows, -1))


def _packed_weight(
    parts: Sequence[Blocks | NF4Weight], shape: tuple[int, int], dtype: torch.dtype
) -> PackedWeight | None:
    """For the product's own kernel; None if it does not take them."""
    packed = [part for part in parts if isinstance(part, NF4Weight)]
    if len(packed) < len(parts) or shape[1] % BLOCK or not suits_weight(shape, dtype):
        return None
    rows, fields, levels = 0, [], scale_levels()
    for part in packed:
        double = part.outer is not None
        scales, outer = part.scales.data_ptr(), 0 if part.outer is None else part.outer.data_ptr()
        addresses = (0, scales, levels.data_ptr(), outer) if double else (scales, 0, 0, 0)
        fields.append((part.codes.data_ptr(), *addresses, part.offset, rows, rows + part.shape[0]))
        rows += part.shape[0]
    tensors = [levels, *(each for part in packed for each in (part.codes, part.scales, part.outer))]
    return PackedWeight(shape, tuple(fields), tuple(each for each in tensors if each is not None))


def _own(part: Blocks) -> Blocks:
    """A contiguous copy in memory: pages of a mapped file come and go."""
    return Blocks(part.type, part.rows, part.columns, np.array(part.data))


def _values(part: Blocks | NF4Weight) -> Tensor:
    return torch.from_numpy(part.numpy()) if isinstance(part, Blocks) else part.values()
