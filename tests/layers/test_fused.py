"""The fast paths of training against their slow twins, forward and backward."""

from __future__ import annotations

from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")

from octavo.layers import fused  # noqa: E402
from octavo.layers.attention import attention_mask, naive_attention  # noqa: E402
from octavo.layers.normalization import LayerNorm, RMSNorm  # noqa: E402
from octavo.layers.rope import rope_angles, rotate  # noqa: E402
from octavo.model_config import ModelConfig, RopeConfig  # noqa: E402
from octavo.models.gpt import GPT  # noqa: E402

CONFIG = ModelConfig(
    architecture="qwen3", vocabulary_size=20, context_length=64, hidden_size=32, layers=2, heads=4,
    key_value_heads=2, head_width=8, feed_forward_size=48, attention_scale=8**-0.5, query_key_norm=True,
    rope=RopeConfig(100.0, 8),
)  # fmt: skip
GPT_2 = replace(
    CONFIG, architecture="gpt2", key_value_heads=4, norm="layer", gated=False, activation="gelu",
    rope=None, learned_positions=64, query_key_norm=False,
)  # fmt: skip


def gradients(function, *inputs):
    """The value of a function and the gradients of its inputs for one random cotangent."""
    leaves = [value.detach().clone().requires_grad_() for value in inputs]
    output = function(*leaves)
    torch.manual_seed(1)
    output.backward(torch.randn_like(output))
    return [output.detach(), *(leaf.grad for leaf in leaves)]


def assert_same(first, second, tolerance=1e-5):
    for one, other in zip(first, second, strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("tokens", [5, 128, 300])
def test_attention_equals_the_naive_one(tokens: int, packed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 2, 3, tokens, 8)
    documents = torch.arange(tokens).expand(2, -1) // 3 if packed else None
    positions = torch.arange(tokens)
    mask = attention_mask(positions, positions, causal=True)
    if documents is not None:
        mask = mask & (documents[:, None, :, None] == documents[:, None, None, :])
    slow = gradients(lambda q, k, v: naive_attention(q, k, v, mask, scale=1.0), query, key, value)
    assert_same(
        slow, gradients(lambda q, k, v: fused.causal_attention(q, k, v, documents), query, key, value)
    )
    monkeypatch.setattr(fused, "LONGEST_BLOCKED", 1)
    assert_same(
        slow, gradients(lambda q, k, v: fused.causal_attention(q, k, v, documents), query, key, value)
    )


@pytest.mark.parametrize("norm", [RMSNorm(32, 1e-5), RMSNorm(32, 1e-5, 1.0), LayerNorm(32, 1e-5)])
def test_norms_equal_the_plain_ones(norm) -> None:
    torch.manual_seed(0)
    with torch.no_grad():
        norm.weight.add_(torch.randn(32))
    x = torch.randn(3, 5, 32) + 0.5
    parameters = list(norm.parameters())

    def both(function):
        found = gradients(function, x)
        return [*found, *torch.autograd.grad(function(x).square().sum(), parameters)]

    assert_same(both(norm), both(lambda x: fused.fused_norm(norm, x)), 1e-4)


@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize("normed", [False, True])
def test_norm_and_rotate_equals_the_two(normed: bool, batched: bool) -> None:
    torch.manual_seed(0)
    x, norm = torch.randn(2, 5, 3, 8), RMSNorm(8, 1e-5)
    with torch.no_grad():
        norm.weight.add_(torch.randn(8))
    positions = torch.randint(50, (2, 5)) if batched else torch.arange(5)
    cosine, sine = rope_angles(RopeConfig(100.0, 8), positions)

    def slow(x):
        heads = x.transpose(1, 2)
        return 0.3 * rotate(norm(heads) if normed else heads, cosine, sine, "half")

    def fast(x):
        return fused.norm_and_rotate(x, norm if normed else None, cosine, sine, 0.3)

    assert_same(gradients(slow, x), gradients(fast, x))
    if normed:
        weights = [torch.autograd.grad(one(x).pow(3).sum(), norm.weight)[0] for one in (slow, fast)]
        torch.testing.assert_close(weights[0], weights[1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("config", [CONFIG, GPT_2], ids=lambda config: config.architecture)
@pytest.mark.parametrize("packed", [False, True])
def test_the_fast_model_equals_the_slow_one(config: ModelConfig, packed: bool) -> None:
    torch.manual_seed(0)
    slow, fast = GPT(config), GPT(config, fast=True)
    fast.load_state_dict(slow.state_dict())
    tokens = torch.randint(20, (2, 12))
    extra = {}
    if packed:
        documents = torch.tensor([[0] * 5 + [1] * 7, [0] * 9 + [1, 1, 2]])
        positions = torch.tensor([[*range(5), *range(7)], [*range(9), 0, 1, 0]])
        extra = {"positions": positions, "documents": documents}
    outputs = [model(tokens, **extra) for model in (slow, fast)]
    torch.testing.assert_close(outputs[0], outputs[1], rtol=1e-4, atol=1e-5)
    for output in outputs:
        output.square().sum().backward()
    for (name, one), other in zip(slow.named_parameters(), fast.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-3, atol=1e-4, msg=name)


@pytest.mark.parametrize("fast", [False, True])
def test_packed_documents_equal_each_alone(fast: bool) -> None:
    torch.manual_seed(0)
    model = GPT(CONFIG, fast=fast)
    tokens = torch.randint(20, (1, 12))
    documents = torch.tensor([[0] * 5 + [1] * 7])
    positions = torch.tensor([[*range(5), *range(7)]])
    packed = model(tokens, positions, documents)
    torch.testing.assert_close(packed[:, :5], model(tokens[:, :5]), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(packed[:, 5:], model(tokens[:, 5:]), rtol=1e-4, atol=1e-5)
