"""The gradient of every layer against finite differences in float64."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from octavo.data.packing import IGNORED  # noqa: E402
from octavo.layers import fused  # noqa: E402
from octavo.layers.activations import FORMULAS, PReLU, swiglu  # noqa: E402
from octavo.layers.attention import Attention, attention_mask, naive_attention  # noqa: E402
from octavo.layers.dropout import alpha_dropout, dropout  # noqa: E402
from octavo.layers.mlp import FeedForward  # noqa: E402
from octavo.layers.normalization import BatchNorm, LayerNorm, RMSNorm  # noqa: E402
from octavo.layers.rope import rotate  # noqa: E402
from octavo.model_config import ModelConfig, RopeConfig  # noqa: E402
from octavo.models.gpt import GPT  # noqa: E402
from octavo.training.losses import linear_cross_entropy  # noqa: E402

CONFIG = ModelConfig(
    architecture="llama", vocabulary_size=10, context_length=32, hidden_size=6, layers=1, heads=2,
    key_value_heads=1, head_width=4, feed_forward_size=5, attention_scale=0.5,
)  # fmt: skip


def random(*shape: int, seed: int = 0) -> Any:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return x.requires_grad_()


def check(function: Callable[..., Any], *inputs: Any, fast: bool = False) -> None:
    """fast: one random direction of the inputs instead of each number alone."""
    assert torch.autograd.gradcheck(function, inputs, atol=1e-7, rtol=1e-5, fast_mode=fast)


def check_module(module: Any, *inputs: Any, fast: bool = False) -> None:
    """The gradients in the inputs and in every parameter."""
    torch.manual_seed(0)
    module = module.double()
    names = [name for name, _ in module.named_parameters()]
    values = tuple(torch.randn_like(each).requires_grad_() for each in module.parameters())

    def call(*arguments: Any) -> Any:
        chosen = dict(zip(names, arguments[len(inputs) :], strict=True))
        return torch.func.functional_call(module, chosen, arguments[: len(inputs)])

    check(call, *inputs, *values, fast=fast)


@pytest.mark.parametrize("name", FORMULAS)
def test_activations(name: str) -> None:
    check(FORMULAS[name], random(11))


def test_parametric_and_gated_activations() -> None:
    check_module(PReLU(3), random(5, 3))
    check(swiglu, random(7), random(7, seed=1))


@pytest.mark.parametrize(
    "norm",
    [
        RMSNorm(5, 1e-5),
        RMSNorm(5, 1e-5, offset=1.0),
        LayerNorm(5, 1e-5),
        LayerNorm(5, 1e-5, fused=False),
        BatchNorm(5),
    ],
    ids=["rms", "rms-offset", "layer", "layer-formula", "batch"],
)
def test_norms(norm: Any) -> None:
    check_module(norm, random(4, 5))


def test_batch_norm_in_evaluation() -> None:
    check_module(BatchNorm(5).eval(), random(4, 5))


@pytest.mark.parametrize("function", [dropout, alpha_dropout])
def test_dropout(function: Any) -> None:
    check(lambda x: function(x, 0.4, torch.Generator().manual_seed(3)), random(4, 5))


@pytest.mark.parametrize("softcap", [0.0, 2.0])
def test_naive_attention(softcap: float) -> None:
    positions = torch.arange(4)
    mask = attention_mask(positions, positions, causal=True, window=3)
    inputs = random(1, 4, 4, 3), random(1, 2, 4, 3, seed=1), random(1, 2, 4, 3, seed=2)
    check(lambda *each: naive_attention(*each, mask, scale=0.7, softcap=softcap), *inputs)


def test_rotation() -> None:
    angles = torch.rand(3, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for style in ("half", "interleaved"):
        check(lambda x, style=style: rotate(x, angles.cos(), angles.sin(), style), random(1, 2, 3, 5))


class WithPositions(torch.nn.Module):  # type: ignore[misc]
    def __init__(self, attention: Any) -> None:
        super().__init__()
        self.attention = attention

    def forward(self, x: Any) -> Any:
        return self.attention(x, torch.arange(x.shape[1]))


def test_attention_layer() -> None:
    config = replace(CONFIG, query_key_norm=True)
    check_module(WithPositions(Attention(config, 0, input_bias=True, output_bias=True)), random(2, 3, 6))


@pytest.mark.parametrize("gated", [True, False])
def test_feed_forward(gated: bool) -> None:
    check_module(FeedForward(replace(CONFIG, gated=gated), bias=True), random(2, 3, 6))


@pytest.mark.parametrize("packed", [False, True])
def test_attention_in_blocks(packed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "QUERY_BLOCK", 2)
    documents = torch.tensor([[0, 0, 1, 1, 1]]) if packed else None
    inputs = random(1, 2, 5, 3), random(1, 2, 5, 3, seed=1), random(1, 2, 5, 3, seed=2)
    check(lambda *each: fused.causal_attention(*each, documents), *inputs, fast=True)


@pytest.mark.parametrize("norm", [RMSNorm(4, 1e-5), RMSNorm(4, 1e-5, offset=1.0), LayerNorm(4, 1e-5)])
def test_norms_in_few_passes(norm: Any) -> None:
    class Fused(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.norm = norm

        def forward(self, x: Any) -> Any:
            return fused.fused_norm(self.norm, x)

    check_module(Fused(), random(3, 4))


def test_norm_and_rotation_in_few_passes() -> None:
    angles = torch.rand(3, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    norm = RMSNorm(4, 1e-5).double()
    check(lambda x: fused.norm_and_rotate(x, norm, angles.cos(), angles.sin(), 0.5), random(2, 3, 2, 4))


def test_the_loss_in_chunks() -> None:
    targets = torch.tensor([1, 3, IGNORED, 0])
    check(
        lambda hidden, weight: linear_cross_entropy(hidden, weight, targets, 0.3),
        random(4, 3), random(5, 3, seed=1),
    )  # fmt: skip


@pytest.mark.parametrize("fast", [False, True])
def test_a_whole_decoder(fast: bool) -> None:
    """From the loss to every parameter: embeddings, shared keys, norms of heads, gates, residuals."""

    class Loss(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            rope = RopeConfig(10.0, 4)
            self.model = GPT(replace(CONFIG, architecture="qwen3", query_key_norm=True, rope=rope), fast=fast)

        def forward(self) -> Any:
            tokens = torch.tensor([[1, 7, 3, 0, 2]])
            documents = torch.tensor([[0, 0, 0, 1, 1]])
            logits = self.model(tokens, torch.tensor([[0, 1, 2, 0, 1]]), documents)
            return torch.nn.functional.cross_entropy(logits[0], torch.tensor([7, 3, 0, 2, 5]))

    check_module(Loss(), fast=True)
