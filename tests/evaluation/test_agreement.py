"""KL divergence and top-1 agreement against their definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest

from octavo.evaluation import agreement as module
from octavo.evaluation.agreement import Agreement, agreement, divergences

RANDOM = np.random.default_rng(3)
REFERENCE = RANDOM.normal(scale=3, size=(40, 200)).astype(np.float32)
OTHER = REFERENCE + RANDOM.normal(scale=0.5, size=(40, 200)).astype(np.float32)


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits.astype(np.float64))
    return powers / powers.sum(axis=1, keepdims=True)


def test_divergence_equals_its_definition() -> None:
    p, q = softmax(REFERENCE), softmax(OTHER)
    np.testing.assert_allclose(divergences(REFERENCE, OTHER), (p * np.log(p / q)).sum(axis=1), rtol=1e-9)


def test_a_shift_of_a_whole_row_changes_nothing() -> None:
    shifts = RANDOM.integers(-500, 500, size=(40, 1)).astype(np.float32)
    assert divergences(REFERENCE, REFERENCE).max() == 0.0
    assert divergences(REFERENCE, REFERENCE + shifts).max() < 1e-7
    np.testing.assert_allclose(
        divergences(REFERENCE, OTHER + shifts), divergences(REFERENCE, OTHER), atol=1e-4
    )


def test_impossible_tokens() -> None:
    half = np.array([[0.0, 0.0, -np.inf]], np.float32)
    third = np.zeros((1, 3), np.float32)
    assert divergences(half, half)[0] == 0.0
    assert divergences(half, third)[0] == pytest.approx(math.log(1.5))
    assert divergences(third, half)[0] == math.inf


def test_chunks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Agreement()
    whole.update(REFERENCE, OTHER)
    cuts = [slice(0, 1), slice(1, 17), slice(17, 40)]
    monkeypatch.setattr(module, "_SCRATCH_ELEMENTS", 600)  # 3 rows at a time
    chunked = agreement((REFERENCE[cut] for cut in cuts), (OTHER[cut] for cut in cuts))
    assert chunked.positions == whole.positions == 40
    assert chunked.mean_kl == pytest.approx(whole.mean_kl, rel=1e-12)
    assert chunked.max_kl == max(whole.divergences)
    assert chunked.top1 == whole.top1


def test_top1_is_the_share_of_equal_first_choices() -> None:
    seen = Agreement()
    seen.update(np.eye(4, dtype=np.float32), np.eye(4, dtype=np.float32)[[0, 1, 2, 0]])
    assert seen.top1 == 0.75


def test_unlike_streams_are_an_error() -> None:
    with pytest.raises(ValueError, match=r"\(40, 200\) and \(40, 199\)"):
        Agreement().update(REFERENCE, OTHER[:, :199])
    with pytest.raises(ValueError):
        agreement([REFERENCE], [])
    assert math.isnan(Agreement().mean_kl)
