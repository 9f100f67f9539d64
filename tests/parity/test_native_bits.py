"""The native step gives the same bits of logits however its work is cut: batch, chunks, threads, blocks."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

pytest.importorskip("torch")
pytest.importorskip("octavo.decoding.plan", reason="needs the compiled core")

from random_models import Sequences, model, native_logits, random_ids  # noqa: E402

from octavo import _native  # noqa: E402
from octavo.decoding.plan import LOGIT_MARGIN  # noqa: E402
from octavo.weights.tensor import TensorType  # noqa: E402

BIT_EXACT = [
    ("llama", TensorType.Q4_1, "f16"),
    ("llama-gguf", TensorType.Q6_K, "int8"),
    ("mistral", TensorType.IQ4_NL, "f16"),
    ("qwen2", TensorType.Q5_0, "f16"),
    ("gemma2", TensorType.Q4_K, "int8"),
    ("gemma3", TensorType.Q8_0, "f16"),
    ("gpt2", TensorType.F32, "f16"),
    ("phi3", TensorType.BF16, "f16"),
    ("two-pass", TensorType.Q8_0, "f16"),
]
LENGTHS = (1, 2, 31, 32, 33, 64, 100, 150, 257, 300, 520, 640)


@functools.cache
def shared_runner(name: str, type: TensorType, kv_type: str, threads: int, isa: str) -> Any:
    margin = 1.0 if name == "two-pass" else LOGIT_MARGIN  # so narrow that most panels stay coarse
    return model(name, type).runner(threads=threads, kv_type=kv_type, isa=isa, logit_margin=margin)


@functools.cache
def bits_alone(
    name: str, type: TensorType, kv_type: str, isa: str, length: int, seed: int
) -> NDArray[np.uint32]:
    """The logits' bits of a sequence that runs alone, one thread, in the largest chunks."""
    runner = shared_runner(name, type, kv_type, 1, isa)
    logits = native_logits(runner, random_ids(length, seed))
    assert np.isfinite(logits).all()
    return logits.view(np.uint32)


def run_in_random_cuts(sequences: Sequences, draw: Any) -> None:
    """Steps of random sequences with random counts of tokens each: single tokens, drafts and chunks mixed."""
    while True:
        left = [len(ids) - done for ids, done in zip(sequences.ids, sequences.done, strict=True)]
        if not any(left):
            return
        room = sequences.runner.max_step_tokens
        counts = []
        for remaining in left:
            wanted = draw(st.sampled_from((0, 1, 2, 5, 16, 37, 128, 256)))
            counts.append(min(wanted, remaining, room))
            room -= counts[-1]
        if not any(counts):  # a draw of nothing ends the drawing: the rest in one way
            sequences.finish(draw(st.integers(60, 256)))
            return
        sequences.step(counts)


@pytest.mark.parametrize("isa", _native.available_isas())
@pytest.mark.parametrize(("name", "type", "kv_type"), BIT_EXACT)
def test_bits_do_not_depend_on_batch_chunks_threads_or_blocks(
    name: str, type: TensorType, kv_type: str, isa: str
) -> None:
    @settings(max_examples=12, deadline=None, derandomize=True)
    @given(st.data())
    def cut(data: st.DataObject) -> None:
        # The scalar twin is slow: shorter sequences for it.
        lengths = LENGTHS[:8] if isa == "scalar" else LENGTHS
        chosen = data.draw(
            st.lists(st.sampled_from(lengths), min_size=1, max_size=3 if isa == "scalar" else 8)
        )
        runner = shared_runner(name, type, kv_type, data.draw(st.sampled_from((1, 2))), isa)
        ids = [random_ids(length, seed) for seed, length in enumerate(chosen)]
        sequences = Sequences(runner, ids, seed=data.draw(st.integers(0, 99)))
        run_in_random_cuts(sequences, data.draw)
        for seed, (length, logits) in enumerate(zip(chosen, sequences.logits, strict=True)):
            alone = bits_alone(name, type, kv_type, isa, length, seed)
            assert np.array_equal(logits.view(np.uint32), alone), (lengths, seed)

    cut()


def test_logits_where_asked_are_those_of_all() -> None:
    """Only the wanted rows are computed, in the order asked."""
    runner = shared_runner("llama", TensorType.Q4_1, "f16", 2, _native.available_isas()[0])
    ids = random_ids(50)
    everything = native_logits(runner, ids)
    outputs = np.array([49, 3, 17], np.int32)
    logits = np.empty((3, runner.vocabulary_size), np.float32)
    tables = np.array([[4, 2]], np.int32)
    runner.step(ids, np.arange(50, dtype=np.int32), np.zeros(50, np.int32), tables, outputs, logits)
    assert np.array_equal(logits, everything[outputs])


def test_a_shared_prefix_gives_the_same_bits() -> None:
    """Two sequences may name the same block for the same first tokens: the cached prefix of a prompt."""
    runner = shared_runner("gemma3", TensorType.Q8_0, "f16", 2, _native.available_isas()[0])
    first, second = random_ids(70), np.concatenate([random_ids(64), random_ids(30, seed=5)])
    expected = native_logits(runner, second)[64:]
    tables = np.array([[7, 3, 9], [7, 3, 1]], np.int32)
    last = np.array([69], np.int32)
    unused = np.empty((1, runner.vocabulary_size), np.float32)
    runner.step(first, np.arange(70, dtype=np.int32), np.zeros(70, np.int32), tables, last, unused)
    logits = np.empty((30, runner.vocabulary_size), np.float32)
    positions = np.arange(64, 94, dtype=np.int32)
    everything = np.arange(30, dtype=np.int32)
    runner.step(second[64:], positions, np.ones(30, np.int32), tables, everything, logits)
    assert np.array_equal(logits, expected)


def test_a_step_may_want_no_logits() -> None:
    """A chunk of a long prompt is run for its keys and values alone."""
    runner = shared_runner("llama", TensorType.Q4_1, "f16", 2, _native.available_isas()[0])
    ids = random_ids(50)
    expected = native_logits(runner, ids)[49:]
    positions, rows = np.arange(50, dtype=np.int32), np.zeros(50, np.int32)
    tables = np.array([[5, 6]], np.int32)
    nothing = np.empty((0, runner.vocabulary_size), np.float32)
    runner.step(ids[:49], positions[:49], rows[:49], tables, np.empty(0, np.int32), nothing)
    logits = np.empty((1, runner.vocabulary_size), np.float32)
    runner.step(ids[49:], positions[49:], rows[49:], tables, np.zeros(1, np.int32), logits)
    assert np.array_equal(logits, expected)
