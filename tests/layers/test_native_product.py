"""The product with weights that are stored once, against PyTorch's in float32 on the same numbers."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from octavo.adapters.nf4 import quantize_nf4  # noqa: E402
from octavo.adapters.qlora import PackedFrozen, Scratch, _packed_weight  # noqa: E402
from octavo.layers import native_product, native_training  # noqa: E402

pytestmark = pytest.mark.skipif(
    not native_training.available(), reason="this processor has no bfloat16 products"
)


def bfloat(*shape: int) -> torch.Tensor:
    return torch.randn(*shape).bfloat16()


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    """Sums in float32, rounded once: as near as bfloat16 can be."""
    assert found.dtype == torch.bfloat16 and found.shape == expected.shape
    torch.testing.assert_close(found.float(), expected, rtol=2**-8, atol=2e-4 * float(expected.abs().max()))


# Rows in whole tiles and not, sums in one pass and several, columns of whole panels and of parts.
SHAPES = [(1, 16, 16), (7, 48, 80), (64, 192, 96), (300, 576, 224), (130, 1536, 48), (513, 800, 208)]


@pytest.mark.parametrize("rank", [0, 16, 48])
@pytest.mark.parametrize(("rows", "inputs", "outputs"), SHAPES)
def test_both_directions(rows: int, inputs: int, outputs: int, rank: int) -> None:
    torch.manual_seed(0)
    weight = bfloat(outputs, inputs)
    left, up, down = bfloat(rows, rank), bfloat(outputs, rank), bfloat(rank, inputs)
    x, gradient = bfloat(rows, inputs), bfloat(rows, outputs)
    forward = native_product.forward_product(x, weight, (left, up) if rank else None)
    close(forward, x.float() @ weight.float().T + left.float() @ up.float().T)
    backward = native_product.backward_product(gradient, weight, (left, down) if rank else None)
    close(backward, gradient.float() @ weight.float() + left.float() @ down.float())


@pytest.mark.parametrize("double", [True, False])
@pytest.mark.parametrize("sizes", [(96,), (48, 16, 32)])
def test_nf4_is_unpacked_to_the_same_bits(sizes: tuple[int, ...], double: bool) -> None:
    torch.manual_seed(1)
    parts = [quantize_nf4(torch.randn(size, 832), double=double) for size in sizes]
    plain = torch.cat([part.values().bfloat16() for part in parts])
    shape = (sum(sizes), 832)
    packed = _packed_weight(parts, shape, torch.bfloat16)
    assert packed is not None
    x, gradient = bfloat(70, shape[1]), bfloat(70, shape[0])
    assert torch.equal(native_product.forward_product(x, packed), native_product.forward_product(x, plain))
    assert torch.equal(
        native_product.backward_product(gradient, packed), native_product.backward_product(gradient, plain)
    )


def test_strides_and_threads_change_no_bit() -> None:
    torch.manual_seed(2)
    weight, x = bfloat(224, 960), bfloat(200, 1920)
    expected = native_product.forward_product(x[:, 960:].contiguous(), weight)
    assert torch.equal(native_product.forward_product(x[:, 960:], weight), expected)
    wide = torch.cat([weight, weight], dim=1)
    assert torch.equal(native_product.forward_product(x[:, 960:], wide[:, 960:]), expected)
    threads = torch.get_num_threads()
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            assert torch.equal(native_product.forward_product(x[:, 960:], weight), expected)
    finally:
        torch.set_num_threads(threads)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        native_product.forward_product(bfloat(4, 32), bfloat(16, 48))
    with pytest.raises(ValueError, match="do not fit"):
        native_product.forward_product(torch.randn(4, 48), bfloat(16, 48))
    assert not native_product.suits_weight((100, 96))
    assert not native_product.suits_weight((96, 96), torch.float32)


def test_pairs_are_joined_in_blocks() -> None:
    torch.manual_seed(3)
    first, second = (torch.randn(4, 96), torch.randn(32, 4)), (torch.randn(8, 96), torch.randn(48, 8))
    down, up = torch.full((16, 96), 7.0).bfloat16(), torch.full((80, 16), 7.0).bfloat16()
    native_product.join_pairs([(*first, 0, 2.0), (*second, 32, 0.5)], down, up)
    rows = torch.zeros(16, 96)
    rows[:4], rows[4:12] = 2 * first[0], 0.5 * second[0]
    blocks = torch.zeros(80, 16)
    blocks[:32, :4], blocks[32:, 4:12] = first[1], second[1]
    assert torch.equal(down, rows.bfloat16()) and torch.equal(up, blocks.bfloat16())


def test_other_formats_than_nf4_are_unpacked_before() -> None:
    from octavo.adapters.qlora import Blocks
    from octavo.weights.tensor import TensorType

    torch.manual_seed(4)
    values = torch.randn(96, 128)
    parts = [Blocks(TensorType.F32, 96, 128, values.numpy().view("uint8").reshape(96, -1))]
    frozen = PackedFrozen(parts, torch.bfloat16, Scratch(), "q8_0")
    x, gradient = bfloat(33, 128), bfloat(33, 96)
    weight = frozen.parts[0].tensor(torch.bfloat16).float()
    close(frozen.forward(x), x.float() @ weight.T)
    close(frozen.backward(gradient), gradient.float() @ weight)


@pytest.mark.parametrize(("rows", "inputs", "outputs"), SHAPES)
def test_a_bias_is_what_sums_begin_with(rows: int, inputs: int, outputs: int) -> None:
    torch.manual_seed(2)
    x, weight, bias = bfloat(rows, inputs), bfloat(outputs, inputs), torch.randn(outputs)
    close(native_product.forward_product(x, weight, bias=bias), x.float() @ weight.float().T + bias)
