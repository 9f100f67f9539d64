"""The native step against its slow twin, models/gpt.py and models/bert.py.

The models are tiny and random: every architecture in float and in one quantized format, and every format in
one architecture.  How near must they be?  The native step rounds on purpose in two places: the cache (to
float16 or int8) and the inputs of quantized matmuls (to int8).  `Model.rounded` is the reference with these
roundings and nothing else changed, so it says how large an error may be:

- Float weights: the native step equals the rounded reference to FLOAT_SHARE of the logits' deviation.  What
  is left is the order of sums, and the rare key that it moves to the next float16.  The float16 cache itself
  costs up to 1e-3, so even a mistake of that size shows.
- Quantized weights: rounding costs 0.5 to 2 % of the logits' deviation, by format and model.  Where the order
  of sums moves an input over the edge of a step, the two differ by a whole step from there on, and so in
  later layers; they cannot agree tightly.  But the native error must be as large as the rounded reference's
  own (ERROR_RATIO; measured 0.98 to 1.01), and much of it the same error (SAME_RATIO: the difference of the
  two over the size of one; measured 0.3 to 0.8, and 1.4 would be two errors that know nothing of each other).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("torch")
pytest.importorskip("octavo.decoding.plan", reason="needs the compiled core")

from random_models import CONTEXT, DECODERS, Model, model, native_logits, random_ids  # noqa: E402

from octavo import _native  # noqa: E402
from octavo.evaluation.agreement import Agreement  # noqa: E402
from octavo.weights.checkpoint import open_checkpoint  # noqa: E402
from octavo.weights.tensor import TensorType  # noqa: E402

FLOATS = (TensorType.F32, TensorType.F16, TensorType.BF16)
FLOAT_SHARE = 2e-4
BFLOAT_SHARE = 2e-2  # weights and what they multiply have 8 bits, each off by up to 2^-9
ERROR_RATIO = 1.1
SAME_RATIO = 1.0
TIPPED_RATIO = 0.2


def relative_error(found: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    """Root mean square of the error over the deviation of what is expected."""
    return float(np.sqrt(np.mean(np.square(found - expected))) / expected.std())


def mean_entropy(logits: NDArray[np.float32]) -> float:
    """In nats, over the rows."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True), dtype=np.float64)
    shares = powers / powers.sum(axis=1, keepdims=True)
    return float(-(shares * np.log(shares)).sum(axis=1).mean())


def assert_agrees(
    tiny: Model, runner: Any, ids: NDArray[np.int32], type: TensorType, kv_type: str = "f16"
) -> None:
    found, exact = native_logits(runner, ids), tiny.expected(ids)
    # A model that is sure of every token, or that only repeats its input, would hide mistakes.
    assert mean_entropy(exact) > 1.0
    assert (exact.argmax(axis=1) == ids).mean() < 0.9
    rounded = tiny.rounded(ids, int8_inputs=type not in FLOATS, kv_type=kv_type)
    if type in FLOATS and kv_type == "f16":
        assert relative_error(found, rounded) < FLOAT_SHARE
        return
    allowed = relative_error(rounded, exact)
    if type in FLOATS:
        # Queries and weights of 15 bits tip a key to its next int8 now and then; all else is the same.
        assert relative_error(found, exact) < ERROR_RATIO * allowed
        assert relative_error(found, rounded) < TIPPED_RATIO * allowed
        return
    assert relative_error(found, exact) < ERROR_RATIO * allowed
    assert relative_error(found, rounded) < SAME_RATIO * allowed
    agreement, limit = Agreement(), Agreement()
    agreement.update(exact, found)
    limit.update(exact, rounded)
    assert agreement.mean_kl < ERROR_RATIO**2 * limit.mean_kl  # KL grows as the square of the error


@pytest.mark.parametrize("type", [TensorType.F32, TensorType.Q4_K], ids=lambda type: type.name)
@pytest.mark.parametrize("name", DECODERS)
def test_every_architecture(name: str, type: TensorType) -> None:
    tiny = model(name, type)
    assert_agrees(tiny, tiny.runner(), random_ids(200), type)


@pytest.mark.parametrize("type", list(TensorType), ids=lambda type: type.name)
def test_every_weight_type(type: TensorType) -> None:
    tiny = model("llama", type)
    assert_agrees(tiny, tiny.runner(), random_ids(200), type)


@pytest.mark.parametrize("isa", _native.available_isas())
@pytest.mark.parametrize("type", list(TensorType), ids=lambda type: type.name)
def test_every_instruction_set_agrees_with_scalar(isa: str, type: TensorType) -> None:
    """To rounding: another order of sums, and now and then an input that rounds to the next int8."""
    ids = random_ids(40)
    tiny = model("llama", type)
    found = native_logits(tiny.runner(isa=isa), ids)
    assert relative_error(found, native_logits(tiny.runner(isa="scalar"), ids)) < 2e-3


@pytest.mark.parametrize("name", ["llama", "gemma3", "gemma2", "gpt2"])
def test_int8_cache(name: str) -> None:
    tiny = model(name, TensorType.F32)
    assert_agrees(tiny, tiny.runner(kv_type="int8"), random_ids(200), TensorType.F32, "int8")


def test_biases_on_every_linear_layer() -> None:
    ids = random_ids(50)
    tiny = model("llama", TensorType.F16, biases=True)
    assert_agrees(tiny, tiny.runner(), ids, TensorType.F16)
    assert relative_error(model("llama", TensorType.F16).expected(ids), tiny.expected(ids)) > 0.1


@pytest.mark.parametrize("name", ["llama", "gemma3", "gpt2"])
def test_long_sequences(name: str) -> None:
    tiny = model(name, TensorType.F16)
    assert_agrees(tiny, tiny.runner(threads=2), random_ids(CONTEXT), TensorType.F16)


@pytest.mark.parametrize("isa", _native.available_isas())
@pytest.mark.parametrize("type", [TensorType.F32, TensorType.Q8_0], ids=lambda type: type.name)
def test_hidden_states_of_an_encoder(type: TensorType, isa: str) -> None:
    """Three texts of several lengths in one step; floats are rounded to bfloat16 where that is faster."""
    tiny = model("bert", type)
    lengths = (100, 1, 33)
    texts = [random_ids(length, seed) for seed, length in enumerate(lengths)]
    tokens = np.concatenate(texts)
    positions = np.concatenate([np.arange(length, dtype=np.int32) for length in lengths])
    rows = np.repeat(np.arange(3, dtype=np.int32), lengths)
    tables = np.arange(12, dtype=np.int32).reshape(3, 4)
    hidden = np.full((len(tokens), 256), np.nan, np.float32)
    tiny.runner(isa=isa).hidden(
        tokens, positions, rows, tables, np.arange(len(tokens), dtype=np.int32), hidden
    )
    for row, text in enumerate(texts):
        rounded = tiny.rounded(text, int8_inputs=type not in FLOATS)
        allowed = relative_error(rounded, tiny.expected(text))
        floats = BFLOAT_SHARE if isa in ("amx", "avx512-bf16") else FLOAT_SHARE
        limit = floats if type in FLOATS else SAME_RATIO * allowed
        assert relative_error(hidden[rows == row], rounded) < limit


REAL_MODELS = ("SmolLM2-135M-Instruct.Q4_1", "gemma3-270m.Q4_K_M", "Qwen2.5-Coder-0.5B-Instruct.Q4_K_M")


@pytest.mark.real
@pytest.mark.parametrize("stem", REAL_MODELS)
def test_real_models_agree_with_the_float_reference(stem: str) -> None:
    """A first look; benchmarks/agreement.py measures 2,000 positions and sets llama.cpp beside."""
    folder = Path(os.environ.get("OCTAVO_TEST_MODELS", "~/.cache/octavo-models")).expanduser()
    shared = Path(os.environ.get("OCTAVO_SHARED", Path(__file__).resolve().parents[2].parent / "shared"))
    path, text = folder / f"{stem}.gguf", shared / "data/text/wikitext2-valid.txt"
    for needed, variable in ((path, "OCTAVO_TEST_MODELS"), (text, "OCTAVO_SHARED")):
        if not needed.exists():
            pytest.skip(f"{needed} is not there: {variable} names the folder")
    checkpoint = open_checkpoint(path)
    ids = checkpoint.tokenizer().encode(text.read_text(encoding="utf-8")[:2000], add_special=True)[:256]
    real = Model(checkpoint.config, checkpoint.tensors)
    agreement = Agreement()
    tokens = np.array(ids, np.int32)
    agreement.update(real.expected(tokens), native_logits(real.runner(threads=2), tokens))
    assert agreement.positions == 256
    assert agreement.mean_kl < 1e-3
    assert agreement.top1 > 0.97


def test_a_head_in_two_passes_is_exact_wherever_a_token_is_likely() -> None:
    """Panels of 16 tokens that reach the margin have the bits of the whole head; the others are near."""
    tiny, ids = model("two-pass", TensorType.Q8_0), random_ids(64)
    exact = native_logits(tiny.runner(logit_margin=float("inf")), ids)
    np.testing.assert_array_equal(native_logits(tiny.runner(logit_margin=1e30), ids), exact)
    margin = 2.0
    found = native_logits(tiny.runner(logit_margin=margin), ids)
    panels = exact.reshape(len(ids), -1, 16).max(axis=-1)
    error = np.abs(found - exact).max()
    assert 0 < error < 0.5 * exact.std()
    reached = panels > exact.max(axis=1, keepdims=True) - margin + 2 * error
    likely = np.repeat(reached, 16, axis=1)
    assert 0.01 < likely.mean() < 0.5
    np.testing.assert_array_equal(found[likely], exact[likely])
    np.testing.assert_array_equal(found.argmax(axis=1), exact.argmax(axis=1))
