"""The sampler: the native one against its slow twin, and both against what the words mean."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("octavo._native", reason="the native core is not built: make")

from octavo import _native  # noqa: E402
from octavo.decoding.sampling import (  # noqa: E402
    SamplingBatch,
    SamplingError,
    SamplingOptions,
    flatten,
    gumbel_slow,
    philox,
    sample,
    sample_slow,
    sampling_batch,
    top_logprobs,
)

UNFILTERED: dict[str, Any] = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}


def batch_of(*options: SamplingOptions, position: int = 0) -> SamplingBatch:
    return sampling_batch(options, [option.seed or 0 for option in options], [position] * len(options))


def draw(logits: Any, position: int = 0, **options: Any) -> int:
    row = np.asarray([logits], np.float32)
    batch = batch_of(SamplingOptions(**options), position=position)
    token = int(sample(row, batch)[0])
    assert token == sample_slow(row, batch)[0]
    return token


def random_options(random: np.random.Generator, vocabulary: int) -> SamplingOptions:
    biased = random.integers(0, vocabulary, random.choice([0, 0, 3]))
    return SamplingOptions(
        temperature=float(random.choice([0, 0.1, 0.8, 1, 2, 1e-300])),
        top_k=int(random.choice([0, 1, 5, 40, 300])),
        top_p=float(random.choice([1, 0.95, 0.5, 0.999, 0])),
        min_p=float(random.choice([0, 0.05, 1e-6, 1])),
        repetition_penalty=float(random.choice([1, 1.1, 0.5])),
        presence_penalty=float(random.choice([0, 1.5])),
        frequency_penalty=float(random.choice([0, -0.5])),
        logit_bias={int(token): float(random.choice([-math.inf, 5, -100])) for token in biased},
    )


def random_batch(random: np.random.Generator, rows: int, vocabulary: int) -> SamplingBatch:
    seeds = [int(seed) for seed in random.integers(0, 2**63, rows)]
    options = [random_options(random, vocabulary) for _ in range(rows)]
    batch = sampling_batch(options, seeds, random.integers(0, 1 << 20, rows))
    if random.random() < 0.5:
        lengths = random.integers(0, 20, rows)
        parts = [random.integers(0, vocabulary, length).astype(np.int32) for length in lengths]
        batch.history, batch.history_offsets = flatten(parts)
    if random.random() < 0.3:
        batch.mask = random.integers(-(2**31), 2**31, (rows, -(-vocabulary // 32))).astype(np.int32)
    return batch


def drawn(sampler: Any, logits: NDArray[np.float32], batch: SamplingBatch) -> list[int]:
    try:
        tokens: NDArray[np.int32] = sampler(logits, batch)
    except SamplingError as error:
        tokens = error.tokens
    return tokens.tolist()


@pytest.mark.parametrize("seed", range(8))
def test_native_equals_its_slow_twin(seed: int) -> None:
    random = np.random.default_rng(seed)
    for _ in range(300):
        rows, vocabulary = int(random.integers(1, 4)), int(random.integers(1, 700))
        logits = (random.normal(size=(rows, vocabulary)) * random.choice([0.01, 1, 3, 10])).astype(np.float32)
        if random.random() < 0.3:
            logits = np.round(logits)  # many ties, and minus zeros
        batch = random_batch(random, rows, vocabulary)
        assert drawn(sample, logits, batch) == drawn(sample_slow, logits, batch), batch


@pytest.mark.parametrize("scale", [0.001, 2.5, 1e30])
@pytest.mark.parametrize(
    "filters", [{}, {"top_k": 5000}, {"top_p": 0.9}, {"min_p": 0.01}, {"temperature": 0.3}]
)
def test_native_equals_its_slow_twin_at_a_large_vocabulary(scale: float, filters: dict[str, Any]) -> None:
    logits = (np.random.default_rng(1).gumbel(size=(1, 50_021)) * scale).astype(np.float32)
    for position in range(3):
        batch = batch_of(SamplingOptions(**(UNFILTERED | filters), seed=9), position=position)
        assert sample(logits, batch) == sample_slow(logits, batch)


def test_philox_gives_the_published_numbers() -> None:
    """Known answers of the authors' own implementation (Random123, kat_vectors)."""
    words = [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344]
    for counter, seed, expected in (
        ([0] * 4, 0, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        ([2**32 - 1] * 4, 2**64 - 1, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
        (words, 0x299F31D0A4093822, [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1]),
    ):
        assert [int(word) for word in philox(*counter, seed=seed)] == expected


def test_noise_is_gumbel_and_a_function_of_seed_position_and_token() -> None:
    tokens = np.arange(200_000, dtype=np.int32)
    noise = np.empty(len(tokens))
    _native.gumbel(2**64 - 3, 12345, tokens, noise)
    assert np.array_equal(noise, gumbel_slow(2**64 - 3, 12345, tokens))
    assert noise.mean() == pytest.approx(np.euler_gamma, abs=0.01)
    assert noise.std() == pytest.approx(math.pi / math.sqrt(6), abs=0.01)
    for seed, position in ((2**64 - 4, 12345), (2**64 - 3, 12346)):
        other = gumbel_slow(seed, position, tokens)
        assert abs(np.corrcoef(noise, other)[0, 1]) < 0.01


@pytest.mark.parametrize("options", [{}, {"temperature": 0.5}, {"top_k": 5}, {"top_p": 0.8}, {"min_p": 0.2}])
def test_frequencies_are_the_probabilities(options: dict[str, float]) -> None:
    """Chi-square against the filtered softmax, computed here in the plain way."""
    logits = np.array([1.5, 0.3, -0.2, 2.0, 0.9, -1.0, 1.1, -3.0])
    settings = UNFILTERED | options
    order = np.argsort(-logits)
    probabilities = np.exp(logits[order]) / np.exp(logits).sum()
    keep = np.ones(8, bool)
    keep &= np.arange(8) < (settings["top_k"] or 8)
    keep &= np.cumsum(probabilities) - probabilities < settings["top_p"]
    keep &= probabilities >= settings["min_p"] * probabilities[0]
    law = np.where(keep, np.exp(logits[order] / settings["temperature"]), 0)
    law /= law.sum()
    draws = 40_000
    option = SamplingOptions(**settings)
    batch = sampling_batch([option] * draws, [7] * draws, np.arange(draws))
    tokens = sample(np.tile(logits.astype(np.float32), (draws, 1)), batch)
    counts = np.bincount(tokens, minlength=8)[order]
    assert counts[~keep].sum() == 0
    expected = law[keep] * draws
    # 7 degrees of freedom at most: 30 is beyond the 99.99th percentile.
    assert ((counts[keep] - expected) ** 2 / expected).sum() < 30


def test_a_row_does_not_depend_on_its_batch() -> None:
    random = np.random.default_rng(3)
    logits = random.normal(size=(9, 500)).astype(np.float32)
    options = [SamplingOptions(temperature=1.3, top_k=row * 10) for row in range(9)]
    together = sample(logits, sampling_batch(options, range(9), range(100, 109)))
    for row in range(9):
        alone = sample(logits[row : row + 1], sampling_batch([options[row]], [row], [100 + row]))
        assert alone[0] == together[row]


def test_two_distributions_that_share_noise_mostly_agree() -> None:
    """Daliri et al. 2025: the coupling agrees at least (1 - TV) / (1 + TV) of the time."""
    first, second = np.array([1.0, 0.5, 0.0, -0.5]), np.array([0.8, 0.6, 0.1, -0.3])
    law, other = np.exp(first) / np.exp(first).sum(), np.exp(second) / np.exp(second).sum()
    distance = np.abs(law - other).sum() / 2
    options = [SamplingOptions(**UNFILTERED)] * 20_000
    batch = sampling_batch(options, [1] * 20_000, range(20_000))
    tokens = [sample(np.tile(row.astype(np.float32), (20_000, 1)), batch) for row in (first, second)]
    assert np.mean(tokens[0] == tokens[1]) > (1 - distance) / (1 + distance) - 0.01


def test_greedy_takes_the_lowest_id_among_equals() -> None:
    assert draw([0.0, 3.0, -1.0, 3.0], temperature=0) == 1
    assert draw([-0.0, 0.0], temperature=0) == 0
    assert draw([-5.0] * 200, temperature=0) == 0
    assert (
        draw(
            [0.0, 3.0, 2.99],
            temperature=1e-300,
            **{k: v for k, v in UNFILTERED.items() if k != "temperature"},
        )
        == 1
    )


def test_top_k_takes_the_lowest_ids_among_equals() -> None:
    assert {
        draw([1.0] * 300, position, temperature=1, top_k=3, top_p=1, min_p=0) for position in range(60)
    } == {0, 1, 2}


def test_penalties_mean_what_llama_cpp_means() -> None:
    logits = np.array([[2.0, -2.0, 1.9, 0.0]], np.float32)

    def greedy(history: list[int], **options: Any) -> int:
        batch = batch_of(SamplingOptions(temperature=0, **options))
        batch.history, batch.history_offsets = flatten([np.array(history, np.int32)])
        assert sample(logits, batch) == sample_slow(logits, batch)
        return int(sample(logits, batch)[0])

    assert greedy([0], repetition_penalty=1.1) == 2  # 2 / 1.1 < 1.9
    assert greedy([0], repetition_penalty=1.05) == 0  # 2 / 1.05 > 1.9
    assert greedy([0, 0, 2], repetition_penalty=1.01) == 0  # not once for each time
    assert greedy([0], presence_penalty=0.2) == 2
    assert greedy([0], frequency_penalty=0.06) == 0
    assert greedy([0, 0], frequency_penalty=0.06) == 2
    assert greedy([1], frequency_penalty=-5.0) == 1
    logits = np.array([[-1.0, -1.5]], np.float32)
    assert greedy([0], repetition_penalty=2.0) == 1  # a negative logit is multiplied


def test_biases_are_added_and_forbid() -> None:
    assert draw([1.0, 2.0, 3.0], temperature=0, logit_bias={0: 2.5}) == 0
    assert draw([1.0, 2.0, 3.0], temperature=0, logit_bias={2: -math.inf}) == 1
    assert draw([1.0, 2.0, 3.0], temperature=0, logit_bias={2: -math.inf, 1: 3e38, 0: -3e38}) == 1


def test_a_mask_leaves_only_what_it_allows() -> None:
    logits = np.random.default_rng(0).normal(size=(1, 100)).astype(np.float32)
    batch = batch_of(SamplingOptions(temperature=2.0))
    mask = np.zeros((1, 4), np.uint32)
    mask[0, 1] = 1 << 5
    mask[0, 3] = 1 << 3 | 1 << 31  # 127 is beyond the vocabulary: never drawn
    batch.mask = mask.view(np.int32)
    seen = set()
    for position in range(50):
        batch.positions[0] = position
        seen.add(int(sample(logits, batch)[0]))
    assert seen <= {37, 99} and seen
    batch.mask = np.zeros((1, 4), np.int32)
    with pytest.raises(SamplingError, match="forbid every token"):
        sample(logits, batch)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", [0, 63, 64, 99])
def test_logits_that_are_no_numbers_are_an_error(bad: float, place: int) -> None:
    logits = np.zeros((3, 100), np.float32)
    logits[1, place] = bad
    batch = batch_of(*[SamplingOptions()] * 3)
    for sampler in (sample, sample_slow):
        with pytest.raises(SamplingError, match="row 1.*NaN") as caught:
            sampler(logits, batch)
        assert caught.value.tokens[0] >= 0 and caught.value.tokens[1] < 0 and caught.value.tokens[2] >= 0
    with pytest.raises(SamplingError, match="row 1"):
        top_logprobs(logits, np.zeros(3, np.int32), 1)


def test_top_logprobs_are_those_of_the_softmax() -> None:
    logits = (np.random.default_rng(5).normal(size=(4, 1000)) * 3).astype(np.float32)
    logits[0, 10:20] = logits[0].max() + 1  # ties
    chosen = np.array([0, 1, 2, 999], np.int32)
    values, tokens, top = top_logprobs(logits, chosen, 12)
    wide = logits.astype(np.float64)
    law = wide - np.log(np.exp(wide).sum(axis=1, keepdims=True))
    assert values == pytest.approx(law[np.arange(4), chosen], abs=2e-5)
    assert np.array_equal(tokens, np.argsort(-wide, axis=1, kind="stable")[:, :12])
    assert top == pytest.approx(np.take_along_axis(law, tokens, axis=1), abs=2e-5)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", -1.0),
        ("temperature", math.nan),
        ("top_k", -1),
        ("top_p", 1.5),
        ("min_p", -0.1),
        ("repetition_penalty", 0.0),
        ("presence_penalty", math.inf),
        ("frequency_penalty", math.nan),
        ("penalty_window", -2),
        ("logit_bias", {3: math.nan}),
        ("logit_bias", {-3: 1.0}),
    ],
)
def test_impossible_options_are_refused(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=name):
        SamplingOptions(**{name: value})


def test_arrays_that_do_not_fit_are_refused() -> None:
    logits = np.zeros((2, 10), np.float32)
    for name, value in (
        ("positions", np.zeros(3, np.int32)),
        ("history", np.array([10], np.int32)),
        ("history_offsets", np.array([0, 2, 1], np.int64)),
        ("bias_offsets", np.array([0, 0, 5], np.int64)),
        ("mask", np.zeros((2, 2), np.int32)),
    ):
        batch = batch_of(SamplingOptions(), SamplingOptions())
        setattr(batch, name, value)
        with pytest.raises(ValueError):
            sample(logits, batch)
    batch = batch_of(SamplingOptions(logit_bias={10: 1.0}), SamplingOptions())
    with pytest.raises(ValueError, match="bias_tokens"):
        sample(logits, batch)
