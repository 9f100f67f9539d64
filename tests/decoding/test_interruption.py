"""Ctrl-C, cancellation and loans at every moment: no token is lost, nothing is stuck, nobody starves."""

from __future__ import annotations

import random
import signal
import threading
from typing import Any

import pytest
from history_runner import HistoryRunner

from octavo.decoding.engine import Engine
from octavo.decoding.sampling import SamplingOptions
from octavo.decoding.sequences import TokenSequence
from octavo.errors import CancelledError

OPTIONS = SamplingOptions(seed=3)


def alone(token: int, max_tokens: int) -> list[int]:
    """What a prompt of nine such tokens gives in an engine of its own."""
    engine = Engine(HistoryRunner(block_count=64))
    return list(engine.submit([token] * 9, OPTIONS, max_tokens=max_tokens))


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no interval timer")
def test_interrupts_at_any_moment_lose_no_token() -> None:
    engine = Engine(HistoryRunner(block_count=12))
    expected = [alone(token, 30) for token in range(3)]
    generator = random.Random(1)
    interrupted = 0

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        for _ in range(60):
            generations = [engine.submit([token] * 9, OPTIONS, max_tokens=30) for token in range(3)]
            while any(generation.finish_reason is None for generation in generations):
                try:
                    signal.setitimer(signal.ITIMER_REAL, generator.uniform(1e-5, 3e-3))
                    for generation in generations:
                        next(generation, None)
                    signal.setitimer(signal.ITIMER_REAL, 0)
                except KeyboardInterrupt:
                    interrupted += 1
            assert [generation._sequence.generated for generation in generations] == expected
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert interrupted > 0


@pytest.mark.parametrize("place", ["next_step", "commit", "_give", "_drop_finished"])
def test_an_interrupt_inside_the_scheduler_is_mended(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(HistoryRunner(block_count=10))
    generations = [engine.submit([token] * 9, OPTIONS, max_tokens=12) for token in range(3)]
    real = getattr(engine._scheduler, place)
    calls = [0]

    def act(*arguments: Any) -> Any:
        result = real(*arguments)
        calls[0] += 1
        if calls[0] % 5 == 4:
            raise KeyboardInterrupt
        return result

    monkeypatch.setattr(engine._scheduler, place, act)
    for token, generation in enumerate(generations):
        while generation.finish_reason is None:
            try:
                next(generation)
            except KeyboardInterrupt:
                continue
        assert generation.tokens == alone(token, 12)
    assert calls[0] >= 4


@pytest.mark.parametrize("nth", [1, 11, 12])
def test_an_interrupt_right_after_a_token_is_mended(nth: int, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(HistoryRunner(block_count=10))
    real = TokenSequence.settle
    calls = [0]

    def settle(sequence: TokenSequence) -> None:
        calls[0] += 1
        if calls[0] == nth:
            raise KeyboardInterrupt
        real(sequence)

    monkeypatch.setattr(TokenSequence, "settle", settle)
    generation = engine.submit([4] * 9, OPTIONS, max_tokens=12)
    with pytest.raises(KeyboardInterrupt):
        list(generation)
    list(generation)
    assert generation.tokens == alone(4, 12)
    assert generation.finish_reason == "length"


def test_a_late_cancel_leaves_the_next_loan_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    runner = HistoryRunner(block_count=10)
    engine = Engine(runner)
    generation = engine.submit([4] * 9, OPTIONS, max_tokens=12)
    cancels: list[str] = []
    monkeypatch.setattr(runner, "cancel", lambda: cancels.append("cancel"))
    monkeypatch.setattr(engine._scheduler, "next_step", interrupted(engine._scheduler.next_step, engine))
    with pytest.raises(KeyboardInterrupt):
        next(generation)
    with engine.borrow(2):
        generation.cancel()
    assert cancels == []


def interrupted(next_step: Any, engine: Engine) -> Any:
    """A Ctrl-C when the step is known to the engine and has not begun."""

    def act(*arguments: Any) -> Any:
        engine._current = next_step(*arguments)
        raise KeyboardInterrupt

    return act


def test_another_thread_goes_on_after_an_interrupt() -> None:
    runner = HistoryRunner(block_count=40)
    engine = Engine(runner)
    first, second = (engine.submit([token] * 9, OPTIONS, max_tokens=10) for token in range(2))
    entered, go_on = threading.Event(), threading.Event()

    def interrupt() -> None:
        entered.set()
        assert go_on.wait(60)
        runner.before_step = lambda: None
        raise KeyboardInterrupt

    runner.before_step = interrupt
    caught: list[BaseException] = []
    taken: list[int] = []

    def lead() -> None:
        try:
            next(first)
        except KeyboardInterrupt as error:
            caught.append(error)

    leader = threading.Thread(target=lead)
    leader.start()
    assert entered.wait(60)
    follower = threading.Thread(target=lambda: taken.extend(second))
    follower.start()
    go_on.set()
    leader.join(60)
    follower.join(60)
    assert caught and taken == alone(1, 10)
    assert list(first) == alone(0, 10)


def test_cancelling_before_the_step_has_chosen_its_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another thread cancels the only sequence when this one may step already."""
    engine = Engine(HistoryRunner(block_count=40))
    generation = engine.submit([1] * 9, OPTIONS, max_tokens=5)
    run_step = engine._run_step

    def cancelled_first() -> None:
        generation.cancel()
        run_step()

    monkeypatch.setattr(engine, "_run_step", cancelled_first)
    assert list(generation) == [] and generation.finish_reason == "cancelled"
    monkeypatch.undo()
    assert list(engine.submit([2] * 9, OPTIONS, max_tokens=5)) == alone(2, 5)


def test_cancel_ends_a_step_that_nobody_wants(monkeypatch: pytest.MonkeyPatch) -> None:
    runner = HistoryRunner(block_count=40)
    engine = Engine(runner)
    generation = engine.submit([1] * 9, OPTIONS, max_tokens=5)
    entered, cancelled = threading.Event(), threading.Event()

    def stall() -> None:
        entered.set()
        assert cancelled.wait(60)
        raise CancelledError("the step was cancelled")

    runner.before_step = stall
    monkeypatch.setattr(runner, "cancel", cancelled.set)
    taken: list[int] = []
    reader = threading.Thread(target=lambda: taken.extend(generation))
    reader.start()
    assert entered.wait(60)
    generation.cancel()
    reader.join(60)
    assert not reader.is_alive() and taken == [] and generation.finish_reason == "cancelled"
    runner.before_step = lambda: None
    assert list(engine.submit([2] * 9, OPTIONS, max_tokens=5)) == alone(2, 5)


def test_steps_and_loans_take_turns() -> None:
    """While a thread wants to step and another to borrow, neither gets two turns in a row."""
    runner = HistoryRunner(block_count=40)
    engine = Engine(runner)
    order: list[str] = []
    runner.before_step = lambda: order.append("step")
    generation = engine.submit([1] * 9, OPTIONS, max_tokens=40)
    with engine.borrow(1):

        def lend() -> None:
            for _ in range(10):
                with engine.borrow(1):
                    order.append("loan")

        lender = threading.Thread(target=lend)
        reader = threading.Thread(target=lambda: list(generation))
        lender.start()
        reader.start()
        while sum(engine._waiting.values()) < 2:
            threading.Event().wait(0.001)
    lender.join(60)
    reader.join(60)
    assert not lender.is_alive() and not reader.is_alive()
    assert order.index("loan") <= 1 and order.index("step") <= 1
