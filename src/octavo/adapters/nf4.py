"""NF4: 4 bits a weight at the quantiles of a normal distribution, blocks of 64 scaled by their largest value.

Dettmers et al. 2023, section 3 (NF4, double quantization).  Codes, scales and layout are bitsandbytes' bit
for bit, so that its saved tensors are read here and ours there; the first of two codes is in a byte's high
half.
Double quantization: the scales, less their mean, as 8-bit codes in blocks of 256 of a code of their own
(Dettmers 2016, "8-bit approximations", the dynamic tree): 0.127 bits a weight instead of 0.5.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from octavo.errors import FormatError

BLOCK, SCALE_BLOCK = 64, 256
# Appendix E of the paper, in the float32 numbers that bitsandbytes writes into its files.
LEVELS = torch.tensor(
    [
        -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
        -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
        0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941,
        0.7229568362236023, 1.0,
    ]
)  # fmt: skip
_SMALLEST = 1e-38
_AT_A_TIME = 1 << 18  # numbers, a multiple of both blocks
# bitsandbytes looks codes of scales up in a table of 16 bits on processors.
_SCALE_GRID = 65535
_STATE = "quant_state.bitsandbytes__nf4"


@functools.cache
def scale_levels() -> Tensor:
    """The 256 levels of scales: a sign, a power of ten from 1e-6 to 1, and a fraction of the bits left."""
    levels = [0.0, 1.0]
    for exponent in range(7):
        edges = torch.linspace(0.1, 1, 2**exponent + 1)
        middles = 10.0 ** (exponent - 6) * ((edges[:-1] + edges[1:]) / 2)
        levels += [*middles.tolist(), *(-middles).tolist()]
    return torch.tensor(sorted(levels))


@dataclass(frozen=True, eq=False)
class NF4Weight:
    """codes: uint8 [ceil(n / 2)].  scales: float32 [blocks], or uint8 of double quantization.

    outer: the scales of those, float32 [ceil(blocks / 256)].  offset: their mean.
    """

    shape: tuple[int, ...]
    codes: Tensor
    scales: Tensor
    outer: Tensor | None = None
    offset: float = 0.0

    def absmax(self) -> Tensor:
        """The largest magnitude of each block, float32 [blocks]."""
        if self.outer is None:
            return self.scales
        values = scale_levels()[self.scales.long()]
        return values * self.outer.repeat_interleave(SCALE_BLOCK)[: len(values)] + self.offset

    def values(self) -> Tensor:
        """float32, of `shape`: the slow twin of the native kernel."""
        count = math.prod(self.shape)
        pairs = torch.stack((self.codes >> 4, self.codes & 15), dim=1).reshape(-1)[:count]
        return (LEVELS[pairs.long()] * self.absmax().repeat_interleave(BLOCK)[:count]).view(self.shape)

    @property
    def nbytes(self) -> int:
        outer = 0 if self.outer is None else self.outer.nbytes
        return self.codes.nbytes + self.scales.nbytes + outer


def quantize_nf4(weight: Tensor, *, double: bool = True) -> NF4Weight:
    """The nearest levels of a float tensor; double: quantize the scales too."""
    codes, absmax = _quantize(weight.float(), LEVELS, BLOCK)
    if len(codes) % 2:
        codes = torch.cat([codes, codes.new_tensor([_nearest(torch.zeros(1), LEVELS)[0]])])
    packed = (codes[::2] << 4) | codes[1::2]
    if not double:
        return NF4Weight(tuple(weight.shape), packed, absmax)
    offset = absmax.mean()
    scales, outer = _quantize(absmax - offset, scale_levels(), SCALE_BLOCK, grid=_SCALE_GRID)
    return NF4Weight(tuple(weight.shape), packed, scales, outer, float(offset))


def _quantize(values: Tensor, levels: Tensor, block: int, grid: int = 0) -> tuple[Tensor, Tensor]:
    """(codes uint8 [n], largest magnitudes [blocks]) of values divided by the largest of their block.

    grid: round to so many steps from -1 to 1 first.
    """
    if values.numel() > _AT_A_TIME:  # what lies between a number and its code is several times its size
        pieces = torch.split(values.reshape(-1), _AT_A_TIME)
        found = [_quantize(piece, levels, block, grid) for piece in pieces]
        return torch.cat([each for each, _ in found]), torch.cat([each for _, each in found])
    flat = values.reshape(-1)
    padded = torch.nn.functional.pad(flat, (0, -len(flat) % block)).view(-1, block)
    absmax = padded.abs().amax(dim=1)
    scaled = padded * (1.0 / absmax.clamp(min=_SMALLEST))[:, None]
    scaled = scaled.clamp(-1, 1).view(-1)[: len(flat)]
    if grid:
        scaled = ((scaled + 1.0) * 0.5 * grid + 0.5).floor() * 2.0 / grid - 1.0
    return _nearest(scaled, levels), absmax


def _nearest(values: Tensor, levels: Tensor) -> Tensor:
    return torch.bucketize(values, (levels[:-1] + levels[1:]) / 2, out_int32=True).to(torch.uint8)


def to_bitsandbytes(name: str, weight: NF4Weight, dtype: str = "bfloat16") -> dict[str, Tensor]:
    """The tensors that transformers' 4-bit checkpoints have for the parameter `name`."""
    state: dict[str, object] = {
        "quant_type": "nf4", "blocksize": BLOCK, "dtype": dtype, "shape": list(weight.shape)
    }  # fmt: skip
    tensors = {name: weight.codes[:, None], f"{name}.absmax": weight.scales, f"{name}.quant_map": LEVELS}
    if weight.outer is not None:
        state |= {"nested_blocksize": SCALE_BLOCK, "nested_dtype": "float32", "nested_offset": weight.offset}
        tensors |= {f"{name}.nested_absmax": weight.outer, f"{name}.nested_quant_map": scale_levels()}
    packed = np.frombuffer(json.dumps(state).encode(), np.uint8).copy()
    return {**tensors, f"{name}.{_STATE}": torch.from_numpy(packed)}


def from_bitsandbytes(name: str, tensors: Mapping[str, Tensor]) -> NF4Weight:
    """What bitsandbytes saved for the parameter `name`.  FormatError for other kinds of quantization."""
    try:
        state = json.loads(bytes(tensors[f"{name}.{_STATE}"].tolist()))
        shape = tuple(int(size) for size in state["shape"])
        kind = state["quant_type"], state["blocksize"], state.get("nested_blocksize", SCALE_BLOCK)
        codes, scales = tensors[name].reshape(-1), tensors[f"{name}.absmax"]
        outer = tensors.get(f"{name}.nested_absmax")
        offset = float(state.get("nested_offset", 0.0))
    except (KeyError, ValueError, TypeError) as error:
        raise FormatError(f"tensor {name}: not in bitsandbytes' NF4: {error}") from error
    if kind != ("nf4", BLOCK, SCALE_BLOCK):
        raise FormatError(f"tensor {name}: {kind}; octavo reads nf4 in blocks of {BLOCK} and {SCALE_BLOCK}")
    blocks = -(-math.prod(shape) // BLOCK)
    if len(codes) * 2 < math.prod(shape) or len(scales) != blocks or (
        outer is not None and len(outer) != -(-blocks // SCALE_BLOCK)
    ):  # fmt: skip
        raise FormatError(f"tensor {name}: {len(codes)} bytes and {len(scales)} scales do not fill {shape}")
    return NF4Weight(shape, codes, scales, outer, offset)
