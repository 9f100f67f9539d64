"""Whatever is guessed, the tokens are those of plain decoding: every sampler, any mix of sequences, small
caches, preemption, interrupts."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest
from guessing import Oracle, Texts, run, speculation_of
from history_runner import HistoryRunner

from octavo.decoding.engine import Engine
from octavo.decoding.generation import Generation
from octavo.decoding.sampling import SamplingOptions
from octavo.decoding.scheduler import Scheduler
from octavo.decoding.sequences import Drawing
from octavo.decoding.speculation.controller import Estimates
from octavo.decoding.speculation.draft import ROOT
from octavo.decoding.speculation.suffix import SuffixSource
from octavo.errors import OctavoError

SAMPLERS = {
    "greedy": SamplingOptions(temperature=0),
    "plain": SamplingOptions(temperature=1, top_k=0, top_p=1, min_p=0, seed=3),
    "filters": SamplingOptions(temperature=0.7, top_k=9, top_p=0.9, min_p=0.02, seed=4),
    "penalties": SamplingOptions(
        temperature=0.9, repetition_penalty=1.3, presence_penalty=0.4, frequency_penalty=0.2, seed=5
    ),
    "window": SamplingOptions(temperature=0, repetition_penalty=1.8, penalty_window=3),
    "bias": SamplingOptions(temperature=1, logit_bias={3: 2.0, 4: -float("inf")}, seed=6),
}


def submissions(seed: int, count: int = 8) -> list[Callable[[Engine], Generation]]:
    generator = random.Random(seed)
    made: list[Callable[[Engine], Generation]] = []
    for _ in range(count):
        prompt = [generator.randrange(32) for _ in range(generator.randrange(1, 14))]
        options = generator.choice(list(SAMPLERS.values()))
        most, ends = generator.randrange(1, 24), generator.choice([(), (5,), (5, 9)])
        made.append(
            lambda engine, p=prompt, o=options, m=most, e=ends: engine.submit(p, o, max_tokens=m, end_ids=e)  # type: ignore[misc]
        )
    return made


def answers(submit: list[Callable[[Engine], Generation]]) -> tuple[list[list[int]], Texts]:
    """What plain decoding gives, and what the oracle is told."""
    generations = [one(Engine(HistoryRunner(block_count=64))) for one in submit]
    texts = {}
    for generation in generations:
        list(generation)
        sequence = generation._sequence
        texts[sequence.ids[: sequence.prompt_length].tobytes()] = generation.tokens
    return [generation.tokens for generation in generations], texts


@pytest.mark.parametrize("trees", [False, True], ids=["chains", "trees"])
@pytest.mark.parametrize("acceptance", [0.0, 0.6, 0.9, 1.0])
@pytest.mark.parametrize("blocks", [9, 16, 64])
def test_the_same_tokens_with_any_draft(acceptance: float, blocks: int, trees: bool) -> None:
    for seed in range(6):
        submit = submissions(seed)
        expected, texts = answers(submit)
        runner = HistoryRunner(block_count=blocks, max_step_tokens=24)
        oracle = Oracle(texts, acceptance, 32, trees=trees)
        engine = Engine(runner, max_sequences=5, speculation=speculation_of(oracle))
        assert run(engine, submit) == expected
        with engine._lock:
            engine._scheduler._drop_finished()
        assert engine._scheduler.allocator.free_count == blocks
        if acceptance == 1.0 and blocks == 64 and not trees:
            assert runner.steps < 0.6 * sum(map(len, expected))


def test_the_blocks_of_the_wrong_branch_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The trunk's blocks stay, although a branch came true."""
    real, wrong = Scheduler._join, 0

    def join(self: Scheduler, drawing: Drawing) -> None:
        drawing.accepted = ROOT
        real(self, drawing)

    monkeypatch.setattr(Scheduler, "_join", join)
    for seed in range(6):
        submit = submissions(seed)
        expected, texts = answers(submit)
        oracle = Oracle(texts, 0.6, 32, trees=True)
        runner = HistoryRunner(block_count=64, max_step_tokens=24)
        try:
            wrong += run(Engine(runner, speculation=speculation_of(oracle)), submit) != expected
        except AssertionError:  # it looks where nobody wrote
            wrong += 1
    assert wrong > 0


def test_right_guesses_save_steps_and_are_counted() -> None:
    def submit(engine: Engine) -> Generation:
        return engine.submit([1, 2, 3], SAMPLERS["filters"], max_tokens=24)

    _, texts = answers([submit])
    runner = HistoryRunner(max_step_tokens=24)
    generation = submit(Engine(runner, speculation=speculation_of(Oracle(texts, 1.0, 32), draft_max=5)))
    list(generation)
    assert runner.steps == 2 + 3  # the prompt and its token, 23 tokens in steps of 6
    assert generation.timings.drafted == generation.timings.accepted == 19


def test_the_suffix_source_in_an_engine_changes_nothing() -> None:
    for seed in range(4):
        submit = submissions(seed)
        expected, _ = answers(submit)
        speculation = speculation_of(SuffixSource(Estimates(), least_chance=0.0))
        engine = Engine(HistoryRunner(block_count=64, max_step_tokens=24), speculation=speculation)
        assert run(engine, submit) == expected
        assert run(engine, submit) == expected  # and now they are earlier texts


@pytest.mark.parametrize("place", ["propose", "learn", "next_step", "commit", "_fitting", "_give"])
def test_an_interrupt_anywhere_loses_nothing(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    submit = submissions(3, count=4)
    expected, texts = answers(submit)
    speculation = speculation_of(Oracle(texts, 0.8, 32), SuffixSource(Estimates(), least_chance=0.0))
    engine = Engine(HistoryRunner(block_count=20, max_step_tokens=24), speculation=speculation)
    owner = speculation if place in ("propose", "learn") else engine._scheduler
    real, calls, chance = getattr(owner, place), [0], random.Random(1)

    def act(*arguments: object) -> object:
        result = real(*arguments)
        calls[0] += 1
        if chance.random() < 0.2:
            raise KeyboardInterrupt
        return result

    monkeypatch.setattr(owner, place, act)
    generations = [one(engine) for one in submit]
    for generation in generations:
        while generation.finish_reason is None:
            try:
                next(generation, None)
            except KeyboardInterrupt:
                continue
    assert [generation.tokens for generation in generations] == expected
    assert calls[0] >= 2
    with engine._lock:
        engine._scheduler._drop_finished()
    assert engine._scheduler.allocator.free_count == 20


def test_damaged_logits_after_a_draft_are_an_error_where_the_text_meets_them() -> None:
    def submit(engine: Engine) -> Generation:
        return engine.submit([1, 2, 3], SAMPLERS["greedy"], max_tokens=10)

    expected, texts = answers([submit])

    class Damaged(HistoryRunner):
        def history_logits(self, history: np.ndarray) -> np.ndarray:
            logits = super().history_logits(history)
            return logits * np.float32(np.nan) if len(history) >= 3 + 4 else logits

    generation = submit(
        Engine(Damaged(max_step_tokens=24), speculation=speculation_of(Oracle(texts, 1.0, 32)))
    )
    taken = []
    with pytest.raises(OctavoError, match="NaN"):
        for token in generation:
            taken.append(token)
    assert taken == expected[0][:4]
