"""Every rope scaling against transformers' own frequencies."""

from __future__ import annotations

import numpy as np
import pytest

from octavo.weights import rope_scaling

WIDTH, CONTEXT, ORIGINAL = 32, 4096, 512


def reference(theta: float, **parameters: object) -> tuple[np.ndarray, float]:
    """transformers' divisors and attention factor for a head of WIDTH."""
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    config = transformers.LlamaConfig(
        hidden_size=WIDTH * 2,
        num_attention_heads=2,
        max_position_embeddings=CONTEXT,
        rope_parameters={"rope_theta": theta, **parameters},
    )
    frequencies, factor = ROPE_INIT_FUNCTIONS[str(parameters["rope_type"])](config, None)
    plain = theta ** (-np.arange(0, WIDTH, 2) / WIDTH)
    return plain / frequencies.double().numpy(), factor


def test_linear() -> None:
    expected, _ = reference(10_000.0, rope_type="linear", factor=4.0)
    np.testing.assert_allclose(rope_scaling.linear_divisors(WIDTH, 4.0), expected, rtol=1e-5)


@pytest.mark.parametrize("theta", [10_000.0, 500_000.0])
def test_llama3(theta: float) -> None:
    expected, _ = reference(
        theta,
        rope_type="llama3",
        factor=8.0,
        low_freq_factor=1.0,
        high_freq_factor=4.0,
        original_max_position_embeddings=ORIGINAL,
    )
    found = rope_scaling.llama3_divisors(
        theta, WIDTH, factor=8.0, low=1.0, high=4.0, original_context=ORIGINAL
    )
    assert len({round(divisor, 3) for divisor in found}) > 2  # some lie between the two ends
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("truncate", [True, False])
@pytest.mark.parametrize("betas", [(32.0, 1.0), (8.0, 2.0)])
def test_yarn(truncate: bool, betas: tuple[float, float]) -> None:
    expected, factor = reference(
        10_000.0,
        rope_type="yarn",
        factor=4.0,
        original_max_position_embeddings=ORIGINAL,
        beta_fast=betas[0],
        beta_slow=betas[1],
        truncate=truncate,
    )
    found = rope_scaling.yarn_divisors(
        10_000.0,
        WIDTH,
        factor=4.0,
        original_context=ORIGINAL,
        beta_fast=betas[0],
        beta_slow=betas[1],
        truncate=truncate,
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert rope_scaling.yarn_attention_factor(4.0) == pytest.approx(factor)


def test_longrope_attention_factor() -> None:
    _, factor = reference(
        10_000.0,
        rope_type="longrope",
        factor=CONTEXT / ORIGINAL,
        original_max_position_embeddings=ORIGINAL,
        short_factor=[1.0] * (WIDTH // 2),
        long_factor=[2.0] * (WIDTH // 2),
    )
    assert rope_scaling.longrope_attention_factor(CONTEXT / ORIGINAL, ORIGINAL) == pytest.approx(factor)
    assert rope_scaling.longrope_attention_factor(1.0, ORIGINAL) == 1.0
