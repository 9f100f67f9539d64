"""Perplexity on models whose probabilities are known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from octavo.evaluation.perplexity import perplexity, token_losses


class Bigram:
    """Logits that depend on the current token alone; keeps the windows that it was asked about."""

    def __init__(self, vocabulary_size: int = 50) -> None:
        self.table = np.random.default_rng(5).normal(size=(vocabulary_size,) * 2).astype(np.float32)
        self.windows: list[list[int]] = []

    def __call__(self, ids: np.ndarray) -> np.ndarray:
        self.windows.append(ids.tolist())
        return self.table[ids]

    def loss(self, token: int, following: int) -> float:
        row = self.table[token].astype(np.float64)
        return float(np.log(np.exp(row).sum()) - row[following])


IDS = np.random.default_rng(1).integers(0, 50, size=100).tolist()


def test_a_uniform_model_is_as_perplexed_as_its_vocabulary() -> None:
    result = perplexity(lambda ids: np.zeros((len(ids), 50), np.float32), IDS, context=32)
    assert result.perplexity == pytest.approx(50)
    assert result.nats_per_token == pytest.approx(math.log(50))


def test_ours_counts_all_but_the_first_token_of_each_window() -> None:
    model = Bigram()
    result = perplexity(model, IDS, context=32)
    counted = [at for at in range(100) if at % 32]
    expected = np.mean([model.loss(IDS[at - 1], IDS[at]) for at in counted])
    assert model.windows == [IDS[0:32], IDS[32:64], IDS[64:96], IDS[96:]]
    assert result.tokens == len(counted) == 96
    assert result.nats_per_token == pytest.approx(expected)
    assert result.perplexity == pytest.approx(math.exp(expected))


def test_the_other_convention_counts_second_halves_of_full_windows() -> None:
    model = Bigram()
    result = perplexity(model, IDS, context=32, scored_from=17)
    counted = [at for at in range(96) if at % 32 >= 17]
    assert result.tokens == len(counted) == 45
    assert result.nats_per_token == pytest.approx(
        np.mean([model.loss(IDS[at - 1], IDS[at]) for at in counted])
    )


def test_the_beginning_token_stands_first_in_every_window() -> None:
    model, ids = Bigram(), IDS[:64]
    result = perplexity(model, ids, context=32, beginning_token=7)
    assert model.windows == [[7, *ids[1:32]], [7, *ids[33:64]]]
    assert result.tokens == 62
    assert ids == IDS[:64]  # the caller's list is left alone


def test_a_last_window_of_one_token_counts_nothing() -> None:
    assert perplexity(Bigram(), IDS[:33], context=32).tokens == 31


@pytest.mark.parametrize(("count", "options"), [(0, {}), (1, {}), (20, {"scored_from": 17})])
def test_a_text_too_short_is_an_error(count: int, options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=f"a text of {count} tokens has none to count"):
        perplexity(Bigram(), IDS[:count], context=32, **options)


@pytest.mark.parametrize(("context", "scored_from"), [(1, 1), (32, 32), (32, 0)])
def test_impossible_windows_are_an_error(context: int, scored_from: int) -> None:
    with pytest.raises(ValueError, match="leave no token to count"):
        perplexity(Bigram(), IDS, context=context, scored_from=scored_from)


def test_huge_logits_do_not_overflow() -> None:
    logits = np.array([[1e4, 0.0], [-1e4, -1e4]], np.float32)
    np.testing.assert_allclose(token_losses(logits, np.array([0, 1], np.int32)), [0.0, math.log(2)])
