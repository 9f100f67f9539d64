"""bfloat16 linear layers against their slow twin, and what they give to whom."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from octavo.layers.bfloat16 import (  # noqa: E402
    Bfloat16Linear,
    Bfloat16Weight,
    bfloat16_linear,
    float32_linear,
)


def both(x, weights, biases):
    """(output, gradients of x, weights and biases) of the fast and of the slow path."""
    found = []
    for function in (bfloat16_linear, float32_linear):
        leaves = [each.detach().clone().requires_grad_() for each in (x, *weights, *biases)]
        parts = leaves[1 : 1 + len(weights)]
        output = function(leaves[0], Bfloat16Weight(parts), leaves[1 + len(weights) :])
        torch.manual_seed(3)
        output.backward(torch.randn_like(output))
        found.append([output, *(leaf.grad for leaf in leaves)])
    return zip(*found, strict=True)


@pytest.mark.parametrize("biases", [False, True])
@pytest.mark.parametrize("outputs", [(48,), (32, 16, 16)])
@pytest.mark.parametrize("rows", [(1,), (3, 7), (64,)])
def test_equal_to_the_slow_twin(rows: tuple[int, ...], outputs: tuple[int, ...], biases: bool) -> None:
    torch.manual_seed(0)
    x = torch.randn(*rows, 40).bfloat16()
    weights = [torch.randn(count, 40) for count in outputs]
    extra = [torch.randn(count) for count in outputs] if biases else []
    for fast, slow in both(x, weights, extra):
        assert fast.dtype == slow.dtype
        # bfloat16 keeps 8 bits; sums of some tens of products lose little more.
        torch.testing.assert_close(fast.float(), slow.float(), rtol=2e-2, atol=4e-2)


def test_a_frozen_weight_gets_no_gradient_and_keeps_no_rows() -> None:
    weight, x = torch.randn(24, 16), torch.randn(5, 16).bfloat16().requires_grad_()
    output = bfloat16_linear(x, Bfloat16Weight([weight.bfloat16()]))
    assert output.grad_fn.saved_tensors == (None,)
    output.sum().backward()
    assert weight.grad is None
    torch.testing.assert_close(
        x.grad.float(), weight.bfloat16().float().sum(0).expand(5, -1), rtol=2e-2, atol=2e-2
    )


def test_the_layer_follows_its_parameters_after_refresh() -> None:
    first, second = torch.nn.Linear(16, 8), torch.nn.Linear(16, 4)
    layer, x = Bfloat16Linear(first, second), torch.ones(2, 16).bfloat16()
    with torch.no_grad():
        first.weight.fill_(1.0)
        first.bias.zero_()
    layer.refresh()
    assert layer(x)[:, :8].tolist() == [[16.0] * 8] * 2
    assert list(layer.parameters()) == []
    assert layer.weight.dtype == torch.bfloat16 and layer.weight.shape == (12, 16)


def test_a_bias_for_some_is_refused() -> None:
    with pytest.raises(ValueError, match="bias"):
        Bfloat16Linear(torch.nn.Linear(4, 4), torch.nn.Linear(4, 4, bias=False))
