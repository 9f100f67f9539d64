"""From logits to tokens: penalties, filters and a draw that depends on nothing else in the batch.

The order is llama.cpp's: logit bias, penalties, token mask, top_k, top_p, min_p, temperature, draw.  (Hugging
Face and OpenAI put temperature first: at the same numbers, theirs keep more tokens above temperature 1.)

The draw is the Gumbel-max trick (Gumbel 1954; Maddison et al. 2014): of the tokens that survive, the one with
the largest logit / temperature + noise, where the noise is a pure function of (seed, position, token id) by
the counter-based generator Philox4x32-10 (Salmon et al. 2011).  The same seed gives the same text whatever
else runs.

`sample` is native (native/ops/sampling.cpp); `sample_slow` is the same in numpy, and the tests hold them
equal. Both use the operations of IEEE arithmetic alone, so the tokens are the same on every machine.

R: rows of a batch, V: vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from octavo import _native
from octavo.errors import OctavoError

# One row's options, laid out as SamplingParameters in native/ops/sampling.h.
PARAMETERS = np.dtype(
    [
        ("temperature", np.float64),
        ("top_p", np.float64),
        ("min_p", np.float64),
        ("repetition_penalty", np.float64),
        ("presence_penalty", np.float64),
        ("frequency_penalty", np.float64),
        ("seed", np.uint64),
        ("top_k", np.int64),
    ]
)

_NOT_FINITE = -1
_NOTHING_ALLOWED = -2
_LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True, slots=True)
class SamplingOptions:
    """How the next token is chosen.  An impossible value is a ValueError that names the option.

    temperature: 0 always takes the largest logit (the lowest id among equals).  top_k: keep the k likeliest,
    0 is off.  top_p: keep the fewest likeliest tokens that have this much probability together, 1 is off.
    min_p: keep tokens at least this likely relative to the likeliest, 0 is off.
    repetition_penalty: logits of earlier tokens are divided by it where positive and multiplied where
    negative, 1 is off.  presence_penalty: subtracted from logits of earlier tokens.  frequency_penalty:
    subtracted once for each time.  Earlier tokens are the last `penalty_window` ones, prompt included; -1 is
    all of them. logit_bias: token id -> what is added to its logit; -inf forbids the token.
    seed: any integer, taken modulo 2^64; None draws one.
    """

    temperature: float = 0.8
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.05
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    penalty_window: int = 64
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    seed: int | None = None

    def __post_init__(self) -> None:
        def check(name: str, good: bool, rule: str) -> None:
            if not good:
                raise ValueError(f"{name}: {getattr(self, name)}, and it must be {rule}")

        check("temperature", 0 <= self.temperature < math.inf, "0 (always the likeliest token) or more")
        check("top_k", 0 <= self.top_k < 2**63, "0 (off) or more")
        check("top_p", 0 <= self.top_p <= 1, "from 0 to 1 (off)")
        check("min_p", 0 <= self.min_p <= 1, "from 0 (off) to 1")
        check("repetition_penalty", 0 < self.repetition_penalty < math.inf, "more than 0 (1 is off)")
        check("presence_penalty", math.isfinite(self.presence_penalty), "a finite number")
        check("frequency_penalty", math.isfinite(self.frequency_penalty), "a finite number")
        check("penalty_window", self.penalty_window >= -1, "a number of tokens, or -1 for all of them")
        for token, bias in self.logit_bias.items():
            if token < 0 or not bias < math.inf:
                raise ValueError(
                    f"logit_bias: {{{token}: {bias}}}; tokens are 0 or more, biases are numbers or -inf"
                )

    @property
    def has_penalties(self) -> bool:
        """Whether the draw looks at earlier tokens."""
        off = self.repetition_penalty == 1 and self.presence_penalty == 0 and self.frequency_penalty == 0
        return not off and self.penalty_window != 0

    def record(self, seed: int) -> tuple[float | int, ...]:
        """One entry of an array of PARAMETERS."""
        return (
            self.temperature,
            self.top_p,
            self.min_p,
            self.repetition_penalty,
            self.presence_penalty,
            self.frequency_penalty,
            seed % 2**64,
            self.top_k,
        )


class SamplingError(OctavoError, ArithmeticError):
    """Some rows of a batch have no token.

    tokens: int32 [R], what the other rows drew, and a negative number for these.
    """

    def __init__(self, tokens: NDArray[np.int32]) -> None:
        self.tokens = tokens
        row = int(np.flatnonzero(tokens < 0)[0])
        super().__init__(f"row {row}: {sampling_failure(int(tokens[row]))}")


def sampling_failure(code: int) -> str:
    """What a negative entry of `SamplingError.tokens` means, for people."""
    if code == _NOTHING_ALLOWED:
        return "the token mask and logit_bias forbid every token of the vocabulary; allow at least one"
    return (
        "the model's logits hold NaN or infinity: its weights are damaged or overflow; "
        "check the file (`octavo show`), or fetch the model again"
    )


@dataclass(slots=True)
class SamplingBatch:
    """What a draw needs besides the logits; every array is contiguous.

    parameters: PARAMETERS [R].  positions: int32 [R], place in its sequence of the token that is drawn.
    history: int32, the tokens that penalties count: row r has history_offsets[r] to history_offsets[r + 1],
    int64 [R + 1].  bias_tokens: int32, bias_values: float32, bias_offsets: likewise.
    mask: int32 [R, ceil(V / 32)], bit t % 32 of word t // 32 allows token t (XGrammar's layout); None allows
    all.
    """

    parameters: NDArray[np.void]
    positions: NDArray[np.int32]
    history: NDArray[np.int32]
    history_offsets: NDArray[np.int64]
    bias_tokens: NDArray[np.int32]
    bias_values: NDArray[np.float32]
    bias_offsets: NDArray[np.int64]
    mask: NDArray[np.int32] | None = None


def flatten(parts: Sequence[NDArray[np.int32]]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Arrays one after the other, and the offsets [len(parts) + 1] where each begins and ends."""
    offsets = np.zeros(len(parts) + 1, np.int64)
    np.cumsum([len(part) for part in parts], out=offsets[1:])
    if len(parts) == 1:
        return parts[0], offsets
    return np.concatenate(parts) if parts else np.zeros(0, np.int32), offsets


def sampling_batch(
    options: Sequence[SamplingOptions], seeds: Sequence[int], positions: Sequence[int] | NDArray[np.int32]
) -> SamplingBatch:
    """A batch of these rows, without history or mask.  `seeds` stand for the options' own."""
    records = [option.record(seed) for option, seed in zip(options, seeds, strict=True)]
    tokens, offsets = flatten([np.array(list(option.logit_bias), np.int32) for option in options])
    values = [value for option in options for value in option.logit_bias.values()]
    return SamplingBatch(
        parameters=np.array(records, PARAMETERS),
        positions=np.asarray(positions, np.int32),
        history=np.zeros(0, np.int32),
        history_offsets=np.zeros(len(options) + 1, np.int64),
        bias_tokens=tokens,
        bias_values=np.array(values, np.float32),
        bias_offsets=offsets,
    )


def sample(logits: NDArray[np.float32], batch: SamplingBatch) -> NDArray[np.int32]:
    """One token for each row of logits float32 [R, V]: int32 [R].  The interpreter's lock is released.

    Raises SamplingError where a row holds NaN or infinity, or where nothing is allowed.
    """
    tokens = np.empty(len(logits), np.int32)
    if _native.sample(
        logits,
        batch.parameters.view(np.uint8).reshape(len(logits), -1),
        batch.positions,
        batch.history,
        batch.history_offsets,
        batch.bias_tokens,
        batch.bias_values,
        batch.bias_offsets,
        batch.mask,
        tokens,
    ):
        raise SamplingError(tokens)
    return tokens


def distribution(logits: NDArray[np.float32], batch: SamplingBatch) -> NDArray[np.float64]:
    """The law, float64 [R, V], that `sample` draws each row of logits from; zeros where no token is left."""
    probabilities = np.empty(logits.shape, np.float64)
    _native.distribution(
        logits,
        batch.parameters.view(np.uint8).reshape(len(logits), -1),
        batch.positions,
        batch.history,
        batch.history_offsets,
        batch.bias_tokens,
        batch.bias_values,
        batch.bias_offsets,
        batch.mask,
        probabilities,
    )
    return probabilities


def top_logprobs(
    logits: NDArray[np.float32], chosen: NDArray[np.int32], count: int
) -> tuple[NDArray[np.float32], NDArray[np.int32], NDArray[np.float32]]:
    """Natural log-probabilities under the model's own distribution, before biases, filters and temperature.

    Returns those of `chosen` float32 [R], and of the `count` likeliest tokens: ids int32 [R, count] and
    values float32 [R, count], falling.  Raises SamplingError where a row holds NaN or infinity.
    """
    rows = len(logits)
    values, tokens = np.empty((rows, count), np.float32), np.empty((rows, count), np.int32)
    chosen_values = np.empty(rows, np.float32)
    if not _native.top_logprobs(logits, chosen, chosen_values, tokens, values):
        raise SamplingError(np.where(np.isfinite(logits).all(axis=1), 0, _NOT_FINITE).astype(np.int32))
    return chosen_values, tokens, values


# The slow twin


def sample_slow(logits: NDArray[np.float32], batch: SamplingBatch) -> NDArray[np.int32]:
    """What `sample` gives, in numpy: each row sorted, cut and drawn in full."""
    tokens = np.array([_sample_row(row, batch, index) for index, row in enumerate(logits)], np.int32)
    if (tokens < 0).any():
        raise SamplingError(tokens)
    return tokens


def _sample_row(raw: NDArray[np.float32], batch: SamplingBatch, row: int) -> int:
    if not np.isfinite(raw).all():
        return _NOT_FINITE
    logits = _adjust(raw, batch, row)
    allowed = np.flatnonzero(logits > -np.inf)
    if len(allowed) == 0:
        return _NOTHING_ALLOWED
    order = allowed[np.argsort(-logits[allowed], kind="stable")]
    options = batch.parameters[row]
    if options["temperature"] == 0:
        return int(order[0])
    ranked = logits[order]
    if options["top_k"] > 0:
        ranked = ranked[: options["top_k"]]
    below = ranked - ranked[0]
    if options["top_p"] < 1:
        weights = _weights(below)
        before = np.cumsum(weights) - weights
        below = below[(before < options["top_p"] * weights.sum()) | (np.arange(len(below)) == 0)]
    exact = ranked[: len(below)].astype(np.float64) - np.float64(ranked[0])
    if options["min_p"] > 0:
        exact = exact[exact >= _logarithm(np.array([options["min_p"]]))[0]]
    survivors = order[: len(exact)]
    # -inf where a tiny temperature overflows: such a token is never drawn.
    with np.errstate(over="ignore"):
        scores = exact / options["temperature"] + gumbel_slow(
            int(options["seed"]), int(batch.positions[row]), survivors
        )
    return int(survivors[scores == scores.max()].min())


def _adjust(raw: NDArray[np.float32], batch: SamplingBatch, row: int) -> NDArray[np.float32]:
    """Logits with biases, penalties and mask; -inf for what is forbidden."""
    logits = raw.copy()
    for index in range(batch.bias_offsets[row], batch.bias_offsets[row + 1]):
        token, bias = batch.bias_tokens[index], batch.bias_values[index]
        if bias == -np.inf or logits[token] == -np.inf:
            logits[token] = -np.inf
        else:
            logits[token] = _finite(float(logits[token]) + float(bias))
    options = batch.parameters[row]
    history = batch.history[batch.history_offsets[row] : batch.history_offsets[row + 1]]
    for token, count in zip(*np.unique(history, return_counts=True), strict=True):
        value, repetition = float(logits[token]), float(options["repetition_penalty"])
        value = value / repetition if value > 0 else value * repetition
        value -= int(count) * float(options["frequency_penalty"]) + float(options["presence_penalty"])
        if logits[token] > -np.inf:
            logits[token] = _finite(value)
    if batch.mask is not None:
        allowed = np.unpackbits(batch.mask[row].view(np.uint8), bitorder="little")[: len(logits)]
        logits[allowed == 0] = -np.inf
    return logits


def _finite(value: float) -> np.float32:
    return np.float32(min(max(value, -_LARGEST), _LARGEST))


def _weights(below: NDArray[np.float32]) -> NDArray[np.float64]:
    """e^x for logits below the maximum, in multiples of 2^-33, so that sums are exact in any order."""
    one = np.float32
    x = np.maximum(below, one(-40))
    n = (x * one(1.44269504) + one(12582912)) - one(12582912)
    r = (x - n * one(0.693359375)) - n * one(-2.12194440e-4)
    p = np.full_like(x, one(1) / one(720))
    for coefficient in (one(1) / one(120), one(1) / one(24), one(1) / one(6), one(0.5), one(1), one(1)):
        p = p * r + coefficient
    return np.asarray((np.ldexp(p, n.astype(np.int32)).astype(np.float64) + 786432.0) - 786432.0)


def _twice_atanh(s: NDArray[np.float64]) -> NDArray[np.float64]:
    square = s * s
    total = np.full_like(s, 1.0 / 23.0)
    for odd in range(21, 0, -2):
        total = total * square + 1.0 / odd
    return 2.0 * s * total


def _logarithm(x: NDArray[np.float64]) -> NDArray[np.float64]:
    mantissa, exponent = np.frexp(x)
    small = mantissa < 0.70710678118654752
    mantissa, exponent = np.where(small, mantissa * 2.0, mantissa), exponent - small
    series = _twice_atanh((mantissa - 1.0) / (mantissa + 1.0))
    result = exponent * 6.93147180369123816490e-01 + (series + exponent * 1.90821492927058770002e-10)
    return np.asarray(result, np.float64)


def gumbel_slow(seed: int, position: int, tokens: NDArray[np.integer]) -> NDArray[np.float64]:
    """Noise float64 of each token: -log(-log(1 - w)), w uniform in (0, 1) by (seed, position, token id)."""
    counter = np.asarray(tokens).astype(np.uint64) >> np.uint64(2)
    lanes = np.asarray(tokens) & 3
    high, low = (np.choose(lanes, philox(counter, position % 2**32, part, 0, seed=seed)) for part in (0, 1))
    bits = (high << np.uint64(32)) | low
    w = ((bits >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
    waiting = np.where(w < 0.25, _twice_atanh(np.minimum(w, 0.25) / (2.0 - w)), -_logarithm(1.0 - w))
    return -_logarithm(waiting)


def philox(*counter: NDArray[np.uint64] | int, seed: int) -> list[NDArray[np.uint64]]:
    """Philox4x32-10 of four words of counters: four arrays of 32 random bits in uint64."""
    a, b, c, d = np.broadcast_arrays(*(np.asarray(word, np.uint64) for word in counter))
    word, half = np.uint64(0xFFFFFFFF), np.uint64(32)
    keys = [np.uint64(seed & 0xFFFFFFFF), np.uint64(seed >> 32)]
    for _ in range(10):
        first, second = a * np.uint64(0xD2511F53), c * np.uint64(0xCD9E8D57)
        a, b, c, d = (
            (second >> half) ^ b ^ keys[0],
            second & word,
            (first >> half) ^ d ^ keys[1],
            first & word,
        )
        keys = [
            (key + np.uint64(step)) & word for key, step in zip(keys, (0x9E3779B9, 0xBB67AE85), strict=True)
        ]
    return [a, b, c, d]
