"""Drafts on the native step: the rows of a draft, chain or tree, have the bits of single tokens, and so the
engine's tokens are those of plain decoding."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("torch")
pytest.importorskip("octavo.decoding.plan", reason="needs the compiled core")

from guessing import Oracle, speculation_of  # noqa: E402
from random_models import model, native_logits, random_ids  # noqa: E402

from octavo.decoding.engine import Engine  # noqa: E402
from octavo.decoding.sampling import SamplingOptions  # noqa: E402
from octavo.decoding.scheduler import Scheduler  # noqa: E402
from octavo.decoding.sequences import TokenSequence  # noqa: E402
from octavo.decoding.speculation.draft import ROOT, Draft  # noqa: E402
from octavo.weights.tensor import TensorType  # noqa: E402

MODELS = [
    ("llama", TensorType.Q4_1, "f16"),
    ("llama-gguf", TensorType.Q6_K, "int8"),
    ("gemma3", TensorType.Q8_0, "int8"),
    ("two-pass", TensorType.Q8_0, "f16"),
]


def sequence_in(scheduler: Scheduler, ids: NDArray[np.int32]) -> TokenSequence:
    sequence = TokenSequence(
        ids=np.concatenate([ids, np.zeros(80, np.int32)]),
        prompt_length=len(ids),
        options=SamplingOptions(temperature=0),
        seed=0,
        end_ids=(),
        submitted=0.0,
        length=len(ids),
    )
    scheduler.add(sequence)
    return sequence


def run(scheduler: Scheduler, runner: object, drafts: dict[int, Draft]) -> NDArray[np.uint32]:
    """One step, not committed: the logits' bits of its outputs."""
    step = scheduler.next_step(0.0, drafts)
    logits = np.empty((step.output_count, runner.vocabulary_size), np.float32)  # type: ignore[attr-defined]
    for source, target in step.copies:
        runner.copy_block(source, target)  # type: ignore[attr-defined]
    count = step.token_count
    runner.step(  # type: ignore[attr-defined]
        step.tokens[:count],
        step.positions[:count],
        step.rows[:count],
        scheduler.block_tables,
        step.outputs[: step.output_count],
        logits,
        None,
        np.array(step.shares, np.int32) if step.shares else None,
    )
    for participant, tokens in step.participants:
        participant.cached += tokens
    return logits.view(np.uint32)


@pytest.mark.parametrize("length", [5, 31, 32, 60, 270])
@pytest.mark.parametrize(("name", "type", "kv_type"), MODELS)
def test_rows_of_a_draft_have_the_bits_of_single_tokens(
    name: str, type: TensorType, kv_type: str, length: int
) -> None:
    runner = model(name, type).runner(threads=2, kv_type=kv_type)
    ids, generator = random_ids(length, 1), np.random.default_rng(length)
    for nodes in (1, 2, 3, 5, 8, 16, 40):
        draft = Draft()
        for node in range(nodes):
            # Chains of two tokens and more, behind any earlier node.
            parent = node - 1 if node % 3 else int(generator.integers(-1, node)) if node else ROOT
            if parent != node - 1 and len(draft.chains()) > 12:
                parent = node - 1
            draft.add(int(generator.integers(160)), parent, 1.0, ("test",))
        scheduler = Scheduler(runner, 2, 64)
        sequence = sequence_in(scheduler, ids)
        while sequence.length - sequence.cached > 1:  # leave one token for the draft's step
            sequence.length -= 1
            run(scheduler, runner, {})
            sequence.length += 1
        rows = run(scheduler, runner, {id(sequence): draft})
        assert len(rows) == 1 + nodes
        for node in (ROOT, *range(nodes)):
            text = np.concatenate([ids, np.array(draft.before(node), np.int32)])
            alone = native_logits(runner, text).view(np.uint32)
            np.testing.assert_array_equal(rows[1 + node], alone[-1])
            # `native_logits` has used the same pool: nothing may be read from it any more.
        runner = model(name, type).runner(threads=2, kv_type=kv_type)


@pytest.mark.parametrize(("name", "type", "kv_type"), MODELS)
def test_the_engine_writes_the_same_with_any_drafts(name: str, type: TensorType, kv_type: str) -> None:
    runner = model(name, type).runner(threads=2, kv_type=kv_type)
    prompts = [random_ids(length, length).tolist() for length in (3, 30, 64)]
    for options in (SamplingOptions(temperature=0), SamplingOptions(temperature=1, top_k=0, seed=3)):
        plain = Engine(runner)
        expected = [list(plain.submit(prompt, options, max_tokens=40)) for prompt in prompts]
        texts = {
            np.array(prompt, np.int32).tobytes(): answer
            for prompt, answer in zip(prompts, expected, strict=True)
        }
        oracle = Oracle(texts, 0.8, 160, trees=True)
        engine = Engine(runner, speculation=speculation_of(oracle))
        generations = [engine.submit(prompt, options, max_tokens=40) for prompt in prompts]
        assert [list(generation) for generation in generations] == expected
        assert sum(generation.timings.accepted for generation in generations) > 20
