"""NF4 beside bitsandbytes: the same codes, scales and files, bit for bit."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from octavo.adapters.encoding import TYPES
from octavo.adapters.nf4 import from_bitsandbytes, quantize_nf4, scale_levels, to_bitsandbytes
from octavo.adapters.qlora import Blocks, PackedFrozen, Scratch, unpack_into
from octavo.weights.tensor import TensorType


@pytest.fixture(scope="module")
def theirs() -> Any:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("bitsandbytes").functional


def weight(*shape: int) -> torch.Tensor:
    values = torch.randn(*shape, generator=torch.Generator().manual_seed(2)) * 0.05
    values.view(-1)[:64] = 0  # a block of nothing
    return values


@pytest.mark.parametrize("shape", [(96, 64), (33, 130), (256, 576)])
@pytest.mark.parametrize("double", [False, True])
def test_codes_and_scales_equal(theirs: Any, shape: tuple[int, ...], double: bool) -> None:
    values = weight(*shape)
    codes, state = theirs.quantize_4bit(values, blocksize=64, quant_type="nf4", compress_statistics=double)
    found = quantize_nf4(values, double=double)
    assert torch.equal(found.codes, codes.reshape(-1))
    assert torch.equal(found.scales, state.absmax)
    if double:
        assert torch.equal(scale_levels(), state.state2.code)
        assert torch.equal(found.outer, state.state2.absmax)
        assert found.offset == float(state.offset)
    dense = theirs.dequantize_4bit(codes, state)
    assert torch.equal(found.values(), dense)
    blocks = -(-math.prod(shape) // 64)
    assert found.nbytes == len(codes) + (blocks + 4 * -(-blocks // 256) if double else 4 * blocks)


@pytest.mark.parametrize("double", [False, True])
def test_saved_tensors_load_both_ways(theirs: Any, double: bool) -> None:
    values = weight(64, 128)
    codes, state = theirs.quantize_4bit(values, blocksize=64, quant_type="nf4", compress_statistics=double)
    saved = {"w": codes} | {f"w.{key}": value for key, value in state.as_dict(packed=True).items()}
    read = from_bitsandbytes("w", saved)
    assert torch.equal(read.values(), theirs.dequantize_4bit(codes, state))
    written = to_bitsandbytes("w", quantize_nf4(values, double=double), "float32")
    assert written.keys() == saved.keys()
    parts = {key.removeprefix("w."): value for key, value in written.items() if key != "w"}
    again = theirs.QuantState.from_dict(parts, device=torch.device("cpu"))
    assert torch.equal(theirs.dequantize_4bit(written["w"], again), read.values())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_the_kernel_equals_its_slow_twin(dtype: torch.dtype) -> None:
    packed = quantize_nf4(weight(48, 192))
    out = torch.empty(48, 192, dtype=dtype)
    unpack_into(packed, out)
    assert torch.equal(out, packed.values().to(dtype))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize(
    "kind", [TensorType.Q4_0, TensorType.Q4_1, TensorType.Q8_0, TensorType.Q4_K, TensorType.Q6_K]
)
def test_blocks_of_files_are_unpacked_to_their_rounded_values(kind: TensorType, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(4)
    rows, columns = 20, 256
    size = columns // kind.block_elements * kind.block_bytes
    data = torch.randint(0, 60, (rows, size), dtype=torch.uint8, generator=generator).numpy()
    frozen = PackedFrozen([Blocks(kind, rows, columns, data)], dtype, Scratch())
    exact = torch.from_numpy(Blocks(kind, rows, columns, data).numpy()).to(dtype)
    assert torch.equal(frozen.unpack(), exact)
    x = torch.randn(7, columns, generator=generator).to(dtype)
    assert torch.equal(frozen.forward(x), x @ exact.T)


@pytest.mark.parametrize("kind", ["q8_0", "q4_0", "q4_1"])
def test_float_bases_may_be_kept_in_other_formats(kind: str) -> None:
    values = weight(24, 96)
    frozen = PackedFrozen(
        [Blocks(TensorType.F32, 24, 96, values.numpy().view("uint8"))], torch.bfloat16, Scratch(), kind
    )
    (part,) = frozen.parts
    assert isinstance(part, Blocks) and part.type == TYPES[kind]
    bits = {"q8_0": 8.5, "q4_0": 4.5, "q4_1": 5.0}[kind]
    assert part.data.nbytes == values.numel() * bits / 8
    error = (frozen.unpack().float() - values).norm() / values.norm()
    assert error < (0.01 if kind == "q8_0" else 0.12)
    x = torch.randn(5, 96).bfloat16()
    assert torch.equal(frozen.forward(x), x @ torch.from_numpy(part.numpy()).bfloat16().T)
