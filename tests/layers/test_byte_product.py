"""Products in bytes, against their slow twin and against the exact product."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from octavo.adapters.nf4 import quantize_nf4  # noqa: E402
from octavo.adapters.qlora import _packed_weight  # noqa: E402
from octavo.layers.byte_product import (  # noqa: E402
    available,
    kept_columns,
    plain_byte_product,
    rounded,
)
from octavo.layers.native_product import backward_product, forward_product  # noqa: E402

pytestmark = pytest.mark.skipif(not available(), reason="this processor's kernels multiply no bytes")


def bfloat(*shape: int) -> torch.Tensor:
    return torch.randn(*shape).bfloat16()


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    """Sums in float32, rounded once."""
    torch.testing.assert_close(found.float(), expected, rtol=2**-8, atol=2e-4 * float(expected.abs().max()))


# Rows in whole tiles and not, sums in one stretch and several, columns of whole panels and of parts.
SHAPES = [(1, 64, 64), (7, 64, 128), (64, 192, 64), (300, 576, 192), (130, 1664, 64), (41, 128, 1600)]


@pytest.mark.parametrize("rank", [0, 16, 48])
@pytest.mark.parametrize("kept", [0, 2, 32])
@pytest.mark.parametrize(("rows", "inputs", "outputs"), SHAPES)
def test_both_directions_equal_the_slow_twin(
    rows: int, inputs: int, outputs: int, kept: int, rank: int
) -> None:
    torch.manual_seed(0)
    weight, x, gradient = bfloat(outputs, inputs), bfloat(rows, inputs), bfloat(rows, outputs)
    x[:, 3] *= 40  # a column that is kept
    left, up, down = bfloat(rows, rank), bfloat(outputs, rank), bfloat(rank, inputs)
    forward = forward_product(x, weight, (left, up) if rank else None, kept=kept)
    close(forward, plain_byte_product(x, weight, kept) + left.float() @ up.float().T)
    backward = backward_product(gradient, weight, (left, down) if rank else None, in_bytes=True)
    close(backward, plain_byte_product(gradient, weight.T.contiguous()) + left.float() @ down.float())


@pytest.mark.parametrize("double", [True, False])
@pytest.mark.parametrize("sizes", [(128,), (64, 32, 96)])
def test_nf4_has_the_same_bits(sizes: tuple[int, ...], double: bool) -> None:
    torch.manual_seed(1)
    parts = [quantize_nf4(torch.randn(size, 832), double=double) for size in sizes]
    plain = torch.cat([part.values().bfloat16() for part in parts])
    packed = _packed_weight(parts, (sum(sizes), 832), torch.bfloat16)
    assert packed is not None
    x, gradient = bfloat(70, 832), bfloat(70, sum(sizes))
    assert torch.equal(forward_product(x, packed, kept=46), forward_product(x, plain, kept=46))
    found = backward_product(gradient, packed, in_bytes=True)
    assert torch.equal(found, backward_product(gradient, plain, in_bytes=True))


def test_strides_and_threads_change_no_bit() -> None:
    torch.manual_seed(2)
    weight, x = bfloat(192, 960), bfloat(200, 1920)
    expected = forward_product(x[:, 960:].contiguous(), weight, kept=26)
    threads = torch.get_num_threads()
    try:
        for count in (threads, 1, 3):
            torch.set_num_threads(count)
            assert torch.equal(forward_product(x[:, 960:], weight, kept=26), expected)
    finally:
        torch.set_num_threads(threads)


def test_columns_that_are_kept_make_up_for_outliers() -> None:
    """A few columns are large for all rows."""
    torch.manual_seed(3)
    weight, x = bfloat(256, 576), bfloat(64, 576)
    x[:, torch.randperm(576)[:16]] *= 20
    exact = x.float() @ weight.float().T

    def error(kept: int) -> float:
        return float((forward_product(x, weight, kept=kept).float() - exact).norm() / exact.norm())

    assert error(kept_columns((256, 576)) or 0) < 0.004 < 0.012 < error(0)


def test_the_rounding_of_a_group() -> None:
    values = torch.zeros(1, 128)
    values[0, :3] = torch.tensor([2.0, -1.0, 0.3])
    found = rounded(values)
    assert float(found[0, 0]) == 2.0 and not found[0, 64:].any()
    assert abs(float(found[0, 2]) - 0.3) <= 1 / 127


def test_what_is_no_number_stays_none() -> None:
    weight, x = bfloat(64, 128), bfloat(9, 128)
    x[4, 70], x[6, 3] = float("nan"), float("inf")
    for product in (forward_product(x, weight, kept=4), forward_product(x, weight, kept=0)):
        assert (~product.isfinite()).any(1).nonzero().flatten().tolist() == [4, 6]


def test_what_does_not_fit_is_refused() -> None:
    weight = bfloat(64, 512)
    for kept in (3, 258, -2):
        with pytest.raises(ValueError, match=f"{kept} of 512 columns cannot be kept"):
            forward_product(bfloat(4, 512), weight, kept=kept)
    with pytest.raises(ValueError, match="0 of 96 columns"):
        forward_product(bfloat(4, 96), bfloat(64, 96), kept=0)


def test_which_weights_suit() -> None:
    assert kept_columns((128, 96)) is None and kept_columns((96, 128)) is None
    assert (
        kept_columns((64, 576)) == 16 and kept_columns((128, 64)) == 2 and kept_columns((64, 1 << 20)) == 256
    )
