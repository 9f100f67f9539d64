"""The engine on a runner that notices every wrong block, position and commit."""

from __future__ import annotations

import random
import threading

import numpy as np
import pytest
from history_runner import HistoryRunner

from octavo.decoding.engine import Engine
from octavo.decoding.generation import Generation
from octavo.decoding.sampling import SamplingOptions
from octavo.errors import OctavoError, OutOfMemoryError

GREEDY = SamplingOptions(temperature=0.0)


def drawn(seed: int) -> SamplingOptions:
    return SamplingOptions(temperature=1.0, top_k=0, top_p=1.0, min_p=0.0, seed=seed)


def alone(prompt: list[int], options: SamplingOptions, max_tokens: int) -> list[int]:
    """What the sequence generates when it has a large engine for itself."""
    return list(Engine(HistoryRunner(block_count=64)).submit(prompt, options, max_tokens=max_tokens))


def free_blocks(engine: Engine) -> int:
    with engine.borrow(0):
        return engine._scheduler.allocator.free_count


def test_greedy_tokens_follow_the_whole_history() -> None:
    runner = HistoryRunner()
    history = [1, 2, 3]
    for token in Engine(runner).submit(history[:], GREEDY, max_tokens=9):
        assert token == int(runner.history_logits(np.array(history, np.int64)).argmax())
        history.append(token)
    assert len(history) == 12


def test_a_prompt_longer_than_a_step_runs_in_chunks() -> None:
    prompt = [n % 32 for n in range(30)]
    engine = Engine(HistoryRunner(max_step_tokens=8))
    generation = engine.submit(prompt, GREEDY, max_tokens=5)
    assert list(generation) == alone(prompt, GREEDY, 5)
    assert generation.finish_reason == "length"
    assert generation.timings.prompt_tokens == 30
    assert generation.timings.completion_tokens == 5


def test_an_end_token_is_the_last() -> None:
    expected = alone([5], drawn(3), 20)
    end = expected[4]
    generation = Engine(HistoryRunner()).submit([5], drawn(3), max_tokens=20, end_ids=[end])
    assert list(generation) == expected[: expected.index(end) + 1]
    assert generation.finish_reason == "stop"


@pytest.mark.parametrize("seed", range(12))
def test_joins_leaves_and_preemptions_change_no_token(seed: int) -> None:
    chance = random.Random(seed)
    runner = HistoryRunner(block_count=chance.randint(12, 24), max_step_tokens=chance.randint(3, 9))
    engine = Engine(runner, max_sequences=chance.randint(2, 6))
    live: list[tuple[Generation, list[int]]] = []
    for _ in range(60):
        if chance.random() < 0.3:
            prompt = [chance.randrange(32) for _ in range(chance.randint(1, 20))]
            options, count = drawn(chance.randrange(1000)), chance.randint(1, 20)
            live.append((engine.submit(prompt, options, max_tokens=count), alone(prompt, options, count)))
        if live:
            index = chance.randrange(len(live))
            generation, expected = live[index]
            if chance.random() < 0.05:
                ended = generation.finish_reason
                generation.cancel()
                assert generation.finish_reason == (ended or "cancelled")
            token = next(generation, None)
            if token is None:
                assert generation.finish_reason in ("length", "cancelled")
                live.pop(index)
            assert generation.tokens == expected[: len(generation.tokens)]
    for generation, expected in live:
        list(generation)
        assert generation.finish_reason == "cancelled" or generation.tokens == expected
    assert runner.largest_company > 1
    assert free_blocks(engine) == runner.block_count


def test_a_forgotten_generation_gives_its_blocks_back() -> None:
    engine = Engine(HistoryRunner())
    next(engine.submit([1, 2, 3, 4, 5], GREEDY, max_tokens=10))
    assert free_blocks(engine) == 16


def test_eight_threads_at_once() -> None:
    engine = Engine(HistoryRunner(block_count=40, max_step_tokens=16), max_sequences=5)
    results: dict[int, list[int]] = {}

    def work(number: int) -> None:
        results[number] = list(engine.submit([number], drawn(number), max_tokens=15))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert results == {number: alone([number], drawn(number), 15) for number in range(8)}
    assert free_blocks(engine) == 40


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_step_loses_nothing(error: type[BaseException]) -> None:
    runner = HistoryRunner()
    engine = Engine(runner)
    generations = [engine.submit([number, 7], drawn(number), max_tokens=8) for number in (1, 2)]
    next(generations[0])

    def fail() -> None:
        runner.before_step = lambda: None
        runner.stored[:] = 31  # a step that was cut short may have written anything
        raise error

    runner.before_step = fail
    with pytest.raises(error):
        list(generations[0])
    for number, generation in zip((1, 2), generations, strict=True):
        list(generation)
        assert generation.tokens == alone([number, 7], drawn(number), 8)
    assert free_blocks(engine) == 16


def test_what_can_never_fit_is_refused_with_both_numbers() -> None:
    engine = Engine(HistoryRunner(block_count=2))
    with pytest.raises(ValueError, match="9 tokens, and 8 fit"):
        engine.submit([1] * 9, GREEDY, max_tokens=1)
    with pytest.raises(ValueError, match="32 is not in the vocabulary"):
        engine.submit([32], GREEDY, max_tokens=1)
    with pytest.raises(ValueError, match="max_tokens"):
        engine.submit([1], GREEDY, max_tokens=0)
    with pytest.raises(OutOfMemoryError, match="12 tokens"), engine.borrow(3):
        pass


def test_a_full_cache_ends_a_generation() -> None:
    generation = Engine(HistoryRunner(block_count=2)).submit([1] * 6, GREEDY, max_tokens=50)
    assert len(list(generation)) == 3  # the last token needs no place: nobody looks at it
    assert generation.finish_reason == "length"


def test_a_closed_engine_says_so() -> None:
    engine = Engine(HistoryRunner())
    generation = engine.submit([1], GREEDY, max_tokens=5)
    engine.close()
    engine.close()
    assert list(generation) == []
    with pytest.raises(OctavoError, match="closed"):
        engine.submit([1], GREEDY, max_tokens=5)


def test_scoring_equals_the_runner_and_lets_generations_go_on() -> None:
    runner = HistoryRunner(block_count=8)
    engine = Engine(runner)
    generation = engine.submit([3, 4], drawn(1), max_tokens=12)
    next(generation)
    text = [n % 32 for n in range(29)]
    scores = engine.score(text)
    for end in (1, 8, 9, 29):
        np.testing.assert_array_equal(scores[end - 1], runner.history_logits(np.array(text[:end], np.int64)))
    list(generation)
    assert generation.tokens == alone([3, 4], drawn(1), 12)


def test_borrowed_inside_a_borrow_is_an_error_not_a_deadlock() -> None:
    engine = Engine(HistoryRunner())
    generation = engine.submit([1], GREEDY, max_tokens=2)
    with engine.borrow(1), pytest.raises(RuntimeError, match="own borrow"):
        next(generation)
    assert len(list(generation)) == 2
