"""A draft head on the native step: its slow twins, the states that it is given, and the same text with it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

torch = pytest.importorskip("torch")
pytest.importorskip("octavo.decoding.plan", reason="needs the compiled core")

from guessing import Oracle, speculation_of  # noqa: E402
from random_models import VOCABULARY, model, random_ids  # noqa: E402

from octavo import _native  # noqa: E402
from octavo.adapters.draft_head import DraftHead, DraftHeadConfig  # noqa: E402
from octavo.decoding.engine import Engine  # noqa: E402
from octavo.decoding.sampling import SamplingOptions  # noqa: E402
from octavo.decoding.sequences import Drawing  # noqa: E402
from octavo.decoding.speculation.controller import Estimates  # noqa: E402
from octavo.decoding.speculation.draft_head import HeadRunner, HeadSource, step_slow  # noqa: E402
from octavo.training.draft_head import DraftNetwork  # noqa: E402
from octavo.weights.tensor import TensorType  # noqa: E402

MODEL = model("llama", TensorType.Q4_1)
EMBEDDING = MODEL.tensors["token_embd.weight"]


def random_head() -> DraftHead:
    hidden = MODEL.config.hidden_size
    config = DraftHeadConfig("a model", "f", hidden, VOCABULARY, 96, 64, 4)
    random = np.random.default_rng(3)
    weights = {
        name: (random.standard_normal(shape) / (shape[-1] ** 0.5 if len(shape) > 1 else 4)).astype(np.float32)
        for name, shape in config.shapes().items()
    }
    for name in weights:
        if weights[name].ndim == 1:
            weights[name] += 1
    return DraftHead(config, weights, np.sort(random.choice(VOCABULARY, 64, replace=False)).astype(np.int32))


HEAD = random_head()


@pytest.mark.parametrize("isa", _native.available_isas())
@pytest.mark.parametrize(("number_format", "error"), [("f32", 2e-5), ("q8_0", 0.06)])
@pytest.mark.parametrize("rows", [1, 3, 9])
def test_the_native_head_equals_its_slow_twin(isa: str, number_format: str, error: float, rows: int) -> None:
    runner = HeadRunner(HEAD, EMBEDDING, 1, number_format=number_format, isa=isa)
    random = np.random.default_rng(rows)
    tokens = random.integers(0, VOCABULARY, rows, np.int32)
    states = random.standard_normal((rows, HEAD.config.hidden_size)).astype(np.float32)
    logits, after = runner.step(tokens, states)
    expected = step_slow(HEAD.weights, EMBEDDING.numpy()[tokens], states)
    for found, wanted in zip((logits, after), expected, strict=True):
        assert np.abs(found - wanted).max() < error * np.abs(wanted).max()
    for row in range(rows):  # alone, it has the same bits
        alone = runner.step(tokens[row : row + 1], states[row : row + 1])
        np.testing.assert_array_equal(alone[0][0], logits[row])


def test_the_network_that_is_trained_equals_the_slow_twin() -> None:
    network = DraftNetwork(HEAD.config)
    network.load_state_dict(
        {name: torch.from_numpy(value) for name, value in HEAD.weights.items() if name != "state_scale"}
    )
    random = np.random.default_rng(1)
    embedded, states = random.standard_normal((2, 5, HEAD.config.hidden_size)).astype(np.float32)
    with torch.no_grad():
        found = network(torch.from_numpy(embedded), torch.from_numpy(states))
    for one, other in zip(found, step_slow(HEAD.weights, embedded, states), strict=True):
        np.testing.assert_allclose(one.numpy(), other, rtol=1e-3, atol=1e-4)


def test_a_state_is_the_one_at_the_last_accepted_token() -> None:
    runner = MODEL.runner(threads=1)
    prompts = [random_ids(length, length).tolist() for length in (3, 40)]
    plain = Engine(runner)
    answers = [list(plain.submit(each, SamplingOptions(temperature=0), max_tokens=30)) for each in prompts]
    texts = {np.array(p, np.int32).tobytes(): a for p, a in zip(prompts, answers, strict=True)}
    engine = Engine(runner, speculation=speculation_of(Oracle(texts, 0.7, 160, trees=True)))
    source = HeadSource(HeadRunner(HEAD, EMBEDDING, 1), Estimates(), VOCABULARY)
    seen: list[tuple[NDArray[np.int32], NDArray[np.float32]]] = []

    def read(
        drawings: Sequence[Drawing], tokens: Sequence[Sequence[int]], states: NDArray[np.float32]
    ) -> None:
        source.observe(drawings, tokens, states)
        for drawing in drawings:
            text = [*drawing.sequence.ids[: drawing.sequence.length], *drawing.draft.before(drawing.accepted)]
            count, state = source._states[id(drawing.sequence)]
            assert count == len(text)
            seen.append((np.array(text, np.int32), state))

    engine.add_state_reader(read)
    found = [engine.submit(each, SamplingOptions(temperature=0), max_tokens=30) for each in prompts]
    assert [list(each) for each in found] == answers
    assert sum(each.timings.accepted for each in found) > 10
    for text, state in seen[::3]:
        expected = np.empty((1, MODEL.config.hidden_size), np.float32)
        every = np.arange(len(text), dtype=np.int32)
        table = np.arange(4, dtype=np.int32)[None]
        runner.hidden(text, every, np.zeros_like(text), table, every[-1:], expected)
        np.testing.assert_array_equal(state, expected[0] * HEAD.weights["state_scale"])


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_the_text_is_the_same_with_a_head(temperature: float) -> None:
    runner = MODEL.runner(threads=1)
    options = SamplingOptions(temperature=temperature, top_k=0, repetition_penalty=1.2, seed=4)
    prompts = [random_ids(length, length).tolist() for length in (3, 30, 64)]
    plain = Engine(runner)
    expected = [list(plain.submit(prompt, options, max_tokens=40)) for prompt in prompts]
    speculation = speculation_of()
    speculation.model = HeadSource(HeadRunner(HEAD, EMBEDDING, 1), speculation.estimates, VOCABULARY)
    engine = Engine(runner, speculation=speculation)
    found = [engine.submit(prompt, options, max_tokens=40) for prompt in prompts]
    assert [list(generation) for generation in found] == expected
    timings = found[0].timings
    assert timings.drafted > 20 and len(timings.accepted_by_depth) >= 1
    assert all(0 <= share <= 1 for share in timings.accepted_by_depth)


@pytest.mark.parametrize("rule", ["token", "block"])
def test_rejection_rules_take_a_head_too(rule: str) -> None:
    speculation = speculation_of()
    speculation.rule = rule  # type: ignore[assignment]
    runner = HeadRunner(HEAD, EMBEDDING, 1)
    speculation.model = HeadSource(runner, speculation.estimates, VOCABULARY, own_noise=True)
    engine = Engine(MODEL.runner(threads=1), speculation=speculation)
    generation = engine.submit([1, 2, 3], SamplingOptions(temperature=1, seed=1), max_tokens=30)
    assert len(list(generation)) == 30 and generation.timings.drafted > 20
