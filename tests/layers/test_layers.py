"""The layers against their formulas, written out a second way."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from octavo.errors import UnsupportedError  # noqa: E402
from octavo.layers.activations import ACTIVATIONS  # noqa: E402
from octavo.layers.attention import Attention, attention_mask, naive_attention  # noqa: E402
from octavo.layers.mlp import FeedForward  # noqa: E402
from octavo.layers.normalization import LayerNorm, RMSNorm  # noqa: E402
from octavo.layers.rope import rope_angles, rotate  # noqa: E402
from octavo.model_config import ModelConfig, RopeConfig  # noqa: E402

CONFIG = ModelConfig(
    architecture="llama", vocabulary_size=10, context_length=32, hidden_size=24, layers=1, heads=4,
    key_value_heads=2, head_width=6, feed_forward_size=40, attention_scale=6**-0.5,
)  # fmt: skip


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_rms_norm_has_unit_mean_square_times_weight() -> None:
    norm = RMSNorm(64, epsilon=1e-6)
    x = 5 * random(3, 64) + 2
    assert torch.allclose(norm(x).square().mean(dim=-1), torch.ones(3), atol=1e-4)
    assert torch.allclose(norm(x) * x.square().mean(dim=-1, keepdim=True).sqrt(), x, atol=1e-4)


def test_rms_norm_with_offset_starts_as_the_same_norm_and_adds_it_to_the_weight() -> None:
    plain, offset = RMSNorm(8, 1e-6), RMSNorm(8, 1e-6, offset=1.0)
    x = random(2, 8)
    assert torch.equal(offset.weight, torch.zeros(8))
    assert torch.allclose(plain(x), offset(x))
    with torch.no_grad():
        offset.weight += 0.5
    assert torch.allclose(1.5 * plain(x), offset(x))


def test_norm_epsilon_keeps_zeros_finite() -> None:
    zeros = torch.zeros(1, 8)
    assert torch.equal(RMSNorm(8, 1e-6)(zeros), zeros)
    assert torch.equal(LayerNorm(8, 1e-6)(zeros), zeros)


def test_layer_norm_equals_torch() -> None:
    norm, x = LayerNorm(16, 1e-5), random(4, 16)
    with torch.no_grad():
        norm.weight.copy_(random(16, seed=1))
        norm.bias.copy_(random(16, seed=2))
    expected = torch.nn.functional.layer_norm(x, (16,), norm.weight, norm.bias, 1e-5)
    assert torch.allclose(norm(x), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("silu", torch.nn.functional.silu),
        ("gelu", torch.nn.functional.gelu),
        ("gelu_tanh", lambda x: torch.nn.functional.gelu(x, approximate="tanh")),
    ],
)
def test_activations_equal_torch(name: str, expected: object) -> None:
    x = torch.linspace(-8, 8, 101)
    assert torch.allclose(ACTIVATIONS[name](x), expected(x), atol=1e-6)  # type: ignore[operator]


def test_gated_feed_forward_multiplies_and_plain_does_not() -> None:
    gated, x = FeedForward(CONFIG), random(1, 2, 24)
    assert gated.gate is not None
    expected = gated.down(torch.nn.functional.silu(gated.gate(x)) * gated.up(x))
    assert torch.allclose(gated(x), expected, atol=1e-6)
    plain = FeedForward(replace(CONFIG, gated=False, activation="gelu"), bias=True)
    assert plain.gate is None
    assert torch.allclose(plain(x), plain.down(torch.nn.functional.gelu(plain.up(x))), atol=1e-6)


@pytest.mark.parametrize("style", ["half", "interleaved"])
def test_rope_is_a_rotation_of_complex_numbers(style: str) -> None:
    config = RopeConfig(theta=100.0, width=8, divisors=(1.0, 2.0, 4.0, 8.0), attention_factor=1.25)
    x = random(1, 1, 5, 8).numpy()
    cosine, sine = rope_angles(config, torch.tensor([0, 1, 7, 30, 1000]))
    turned = rotate(torch.from_numpy(x), cosine, sine, style).numpy()
    halves = style == "half"
    pairs = x[..., :4] + 1j * x[..., 4:] if halves else x[..., 0::2] + 1j * x[..., 1::2]
    found = turned[..., :4] + 1j * turned[..., 4:] if halves else turned[..., 0::2] + 1j * turned[..., 1::2]
    frequencies = 100.0 ** (-np.arange(4) / 4) / np.array([1, 2, 4, 8])
    expected = 1.25 * pairs * np.exp(1j * np.array([0, 1, 7, 30, 1000])[:, None] * frequencies)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_rope_scores_depend_on_distance_alone_and_pass_the_rest_through() -> None:
    config = RopeConfig(theta=10000.0, width=4)
    query, key = random(1, 1, 1, 6), random(1, 1, 1, 6, seed=1)

    def score(query_position: int, key_position: int) -> float:
        turned = [
            rotate(x, *rope_angles(config, torch.tensor([position])), "half")
            for x, position in ((query, query_position), (key, key_position))
        ]
        assert torch.equal(turned[0][..., 4:], query[..., 4:])
        return float((turned[0] * turned[1]).sum())

    assert score(9, 4) == pytest.approx(score(105, 100), abs=1e-5)
    assert score(9, 4) != pytest.approx(score(10, 4), abs=1e-3)


def test_rope_with_a_wrong_number_of_divisors_says_so() -> None:
    with pytest.raises(UnsupportedError, match="3 divisors for 4 pairs"):
        rope_angles(RopeConfig(100.0, 8, divisors=(1.0, 2.0, 3.0)), torch.arange(2))


def test_attention_mask_of_causal_windows() -> None:
    positions = torch.arange(5)
    causal = attention_mask(positions, positions, causal=True)
    assert causal.tolist() == [[key <= query for key in range(5)] for query in range(5)]
    window = attention_mask(positions, positions, causal=True, window=2)
    assert window.tolist() == [[query - 1 <= key <= query for key in range(5)] for query in range(5)]
    both = attention_mask(positions, positions, causal=False, window=2)
    assert both.tolist() == [[abs(query - key) <= 1 for key in range(5)] for query in range(5)]


def test_naive_attention_equals_torch_with_grouped_queries() -> None:
    query, key, value = random(2, 6, 7, 8), random(2, 3, 7, 8, seed=1), random(2, 3, 7, 8, seed=2)
    positions = torch.arange(7)
    mask = attention_mask(positions, positions, causal=True)
    expected = torch.nn.functional.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, scale=0.7, enable_gqa=True
    )
    assert torch.allclose(naive_attention(query, key, value, mask, scale=0.7), expected, atol=1e-5)


def test_softcap_bounds_scores() -> None:
    query = torch.tensor([[[[100.0]]]])
    key, value = torch.tensor([[[[1.0], [-1.0]]]]), torch.tensor([[[[1.0], [0.0]]]])
    mixed = naive_attention(query, key, value, torch.ones(1, 2, dtype=torch.bool), scale=1.0, softcap=0.5)
    assert float(mixed) == pytest.approx(1 / (1 + math.exp(-1.0)))  # scores are capped to +0.5 and -0.5


def test_attention_ignores_padding() -> None:
    attention = Attention(replace(CONFIG, causal=False), 0)
    x = random(1, 6, 24)
    present = torch.tensor([[True] * 4 + [False] * 2])
    padded = attention(x, torch.arange(6), present)[:, :4]
    assert torch.allclose(padded, attention(x[:, :4], torch.arange(4)), atol=1e-6)
