"""Ids to ids: generations that share the steps of one model.

A step is: choose tokens of all sequences (scheduler.py), one forward over them (runner.py), draw
(sampling.py), commit.  There is no background thread: whichever thread asks for a token that is not there yet
runs the step for all, the others wait for it.  Their tokens are then there too.

T: tokens of a text, V: vocabulary, H: hidden size, R: sequences that get a token in a step.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Literal, cast

import numpy as np
from numpy.typing import NDArray

from octavo.decoding.constraints.constraint import Constraint
from octavo.decoding.drawing import Drawer
from octavo.decoding.generation import Generation
from octavo.decoding.kv_cache import blocks_for
from octavo.decoding.runner import Runner, TreeRunner
from octavo.decoding.sampling import SamplingOptions
from octavo.decoding.scheduler import Scheduler
from octavo.decoding.sequences import Step, TokenSequence, step_extras
from octavo.decoding.speculation.drawn import StateReader
from octavo.decoding.speculation.speculation import Rule, Speculation
from octavo.decoding.speculation.verification import follow, judge
from octavo.errors import OctavoError, OutOfMemoryError

# Waiting threads look for themselves this often, lest an interrupt cost them their wake-up.
_PATIENCE_SECONDS = 1.0

TurnKind = Literal["step", "loan"]


class Engine:
    """Runs generations on one runner, safe from several threads.

    max_sequences: how many run at once; others wait their turn.  Ctrl-C in a step leaves the engine usable:
    every sequence goes on from the tokens that it has, and the cache is computed anew.  speculation: drafts
    tokens where that pays; None decodes one by one.
    """

    def __init__(
        self, runner: Runner, *, max_sequences: int = 64, speculation: Speculation | None = None
    ) -> None:
        self.runner = runner
        self.speculation = speculation
        self._scheduler = Scheduler(runner, max_sequences, speculation.most_nodes if speculation else 0)
        self._logits = np.empty((self._scheduler.max_outputs, runner.vocabulary_size), np.float32)
        self._state_readers: list[StateReader] = []
        self._states = np.empty((0, 0), np.float32)  # of the same rows, where somebody reads them
        if speculation and speculation.model and speculation.model.state_reader:
            self.add_state_reader(speculation.model.state_reader)
        # Guards the scheduler and the fields below, never for as long as a step.
        self._lock = threading.Lock()
        self._condition = threading.Condition(self._lock)
        self._turn: object | None = None  # of whoever may step
        self._turn_thread = 0
        self._last_kind: TurnKind = "loan"
        self._waiting: dict[TurnKind, int] = {"step": 0, "loan": 0}
        self._current: Step | None = None
        self._unfinished_business = False  # a step or a loan began and did not end
        self._closed = False
        self._drawer = Drawer()

    def submit(
        self,
        prompt: Sequence[int],
        options: SamplingOptions,
        *,
        max_tokens: int,
        end_ids: Collection[int] = (),
        constraint: Constraint | Future[Constraint] | None = None,
        adapter: int = -1,
        seconds: float = math.inf,
    ) -> Generation:
        """Begin a generation, within a grammar if asked; nothing runs before a token is asked for.

        It ends with an id of `end_ids` ("stop"), after max_tokens or when the KV cache cannot hold more
        ("length"), or after so many seconds ("deadline").  While its grammar is being compiled others go on;
        if that fails, its first token raises.  Raises ValueError for a prompt that can never fit, an id
        outside the vocabulary or an impossible number.
        """
        capacity = self._scheduler.capacity
        if max_tokens < 1:
            raise ValueError(f"max_tokens: {max_tokens}, and it must be at least 1")
        if len(prompt) > capacity:
            raise ValueError(f"the prompt has {len(prompt)} tokens, and {capacity} fit the KV cache")
        ids = np.zeros(min(len(prompt) + max_tokens, capacity + 1), np.int32)
        ids[: len(prompt)] = self.check_ids("the prompt", prompt)
        self.check_ids("logit_bias", list(options.logit_bias) or [0])
        submitted = time.perf_counter()
        sequence = TokenSequence(
            ids=ids,
            prompt_length=len(prompt),
            options=options,
            seed=int.from_bytes(os.urandom(8), "little") if options.seed is None else options.seed,
            end_ids=frozenset(end_ids),
            submitted=submitted,
            length=len(prompt),
            adapter=adapter,
            deadline=submitted + seconds,
        )
        generation = Generation(self, sequence)
        with self._lock:
            self._check_open()
        if isinstance(constraint, Future):
            sequence.is_prepared = False
            constraint.add_done_callback(lambda done: self._arrive(sequence, done.result))
        else:
            self._arrive(sequence, lambda: constraint)
        return generation

    def _arrive(self, sequence: TokenSequence, constraint: Callable[[], Constraint | None]) -> None:
        """The sequence has its constraint, or an error in its place, and waits for its turn."""
        try:
            sequence.constraint = constraint()
            if sequence.constraint is not None:
                sequence.begin(sequence.constraint.forced([], sequence.remaining))
        except Exception as error:  # its owner's, whatever it is
            sequence.error = error
        with self._lock:
            sequence.is_prepared = True
            if self._closed:
                sequence.finish_reason = "cancelled"
            elif not (sequence.ended or sequence.abandoned):
                self._scheduler.add(sequence)
            self._condition.notify_all()

    def add_state_reader(self, reader: StateReader) -> None:
        """Let each step give the model's hidden states too; before the first generation."""
        self._states = np.empty((self._scheduler.max_outputs, self.runner.hidden_size), np.float32)
        self._state_readers.append(reader)

    def cancel(self, sequence: TokenSequence) -> None:
        """See `Generation.cancel`."""
        with self._lock:
            sequence.finish_reason = "cancelled"
            step = self._current
            if step is not None and all(participant.ended for participant, _ in step.participants):
                self.runner.cancel()
            self._condition.notify_all()

    def close(self) -> None:
        """Cancel all generations and wait for the step that runs to end.  May be called twice."""
        with self._lock:
            self._closed = True
            for sequence in self._scheduler.sequences:
                if not sequence.ended:
                    sequence.finish_reason = "cancelled"
            if self._current is not None:
                self.runner.cancel()
            self._condition.notify_all()
            self._drawer.masks.close()
            while self._turn is not None and self._turn_thread != threading.get_ident():
                self._condition.wait(_PATIENCE_SECONDS)

    # Steps

    def wait_for_token(self, sequence: TokenSequence, seen: int) -> None:
        """Come back when the sequence has more than `seen` tokens or has ended; run steps where needed."""

        def is_there() -> bool:
            return len(sequence.generated) > seen or sequence.ended

        turn = object()
        with self._lock:
            while not (sequence.is_prepared or sequence.ended):
                self._condition.wait(_PATIENCE_SECONDS)
        while not is_there():
            try:
                if not self._take_turn(turn, "step", is_there):
                    return
                self._run_step()
            finally:
                if self._turn is turn:
                    self._turn = None
                self._wake()

    @contextmanager
    def borrow(self, count: int) -> Iterator[list[int]]:
        """Lend `count` blocks of the KV pool and the right to step, for a `with` block.

        No generation goes on in it.  Steps and loans take turns where both are wanted.

        Running generations give up blocks where needed and are computed again later.  Raises OutOfMemoryError
        for more blocks than the pool has.
        """
        most = self._scheduler.allocator.block_count
        if count > most:
            size = self._scheduler.block_size
            raise OutOfMemoryError(
                f"{count * size} tokens of KV cache are needed and the pool has {most * size}: use a "
                "shorter text, or load the model with more cache tokens"
            )
        turn = object()
        try:
            self._take_turn(turn, "loan", lambda: False)
            with self._lock:
                self._check_open()
                self._begin_business()
                blocks = self._scheduler.take_blocks(count)
            try:
                yield blocks
            finally:
                self._scheduler.allocator.release(blocks)
                self._unfinished_business = False
        finally:
            if self._turn is turn:
                self._turn = None
            self._wake()

    def _run_step(self) -> None:
        scheduler, speculation = self._scheduler, self.speculation
        started = time.perf_counter()
        drafts = None
        if speculation and (self._unfinished_business or not speculation.rests()):
            drafts = speculation.propose(self._to_draft_for(speculation))
        with self._lock:
            self._begin_business()
            step = scheduler.next_step(time.perf_counter(), drafts)
            if step.token_count == 0:  # all were cancelled a moment ago
                self._unfinished_business = False
                return
            self._current = step
        try:
            tokens = self._forward(step)
        except Exception:
            # A step that was cut short because nobody wants its tokens is no error.
            if all(participant.ended for participant, _ in step.participants):
                return
            raise
        finally:
            self._current = None
        with self._lock:
            now = time.perf_counter()
            if speculation:
                speculation.learn(step, tokens, now - started)
            scheduler.commit(step, tokens, now)
            self._unfinished_business = False

    def _forward(self, step: Step) -> list[list[int]]:
        """The native step, and the tokens that follow each drawing."""
        count, outputs, logits = step.token_count, step.output_count, self._logits[: step.output_count]
        self._drawer.begin(step)
        for source, target in step.copies:
            cast(TreeRunner, self.runner).copy_block(source, target)
        shares = np.array(step.shares, np.int32) if step.shares else None
        states = self._states[:outputs] if self._state_readers else None
        cast(TreeRunner, self.runner).step(
            step.tokens[:count],
            step.positions[:count],
            step.rows[:count],
            self._scheduler.block_tables,
            step.outputs[:outputs],
            logits,
            *step_extras(shares, self._scheduler.adapters, states),
        )
        if not outputs:
            return []
        tokens = self._accept(step, logits, self.speculation.rule if self.speculation else "equality")
        if states is not None:
            for read in self._state_readers:
                read(step.drawings, tokens, states)
        return tokens

    def _accept(self, step: Step, logits: NDArray[np.float32], rule: Rule) -> list[list[int]]:
        """The tokens that follow each drawing, by the logits of its rows."""
        if rule == "equality":
            drawn = self._drawer.draw(logits)
            return [follow(one, drawn[one.rows.start : one.rows.stop]) for one in step.drawings]
        laws = self._drawer.laws(logits)
        return [judge(one, laws[one.rows.start : one.rows.stop], rule) for one in step.drawings]

    def _to_draft_for(self, speculation: Speculation) -> list[TokenSequence]:
        """Sequences that get tokens from the next step; none where an interrupt left something to mend."""
        with self._lock:
            if self._unfinished_business:
                speculation.restart()
                return []
            speculation.forget_all_but(self._scheduler.sequences)
            generating, allocator = self._scheduler.generating(), self._scheduler.allocator
            if not (generating and speculation.wants_costs and allocator.free_count):
                return generating
            self._begin_business()
            blocks = allocator.allocate(1)
        speculation.measure(self.runner, blocks)
        with self._lock:
            allocator.release(blocks)
            self._unfinished_business = False
        return generating

    # Turns.  One is taken inside a try block and ended by a plain assignment in its finally, where the
    # interpreter raises no KeyboardInterrupt: Ctrl-C never leaves it taken.

    def _take_turn(self, turn: object, kind: TurnKind, is_needless: Callable[[], bool]) -> bool:
        """Wait until this thread alone may step, and until it is this kind's turn where both kinds wait.

        False, with no turn taken, as soon as none is needed any more.
        """
        other: TurnKind = "loan" if kind == "step" else "step"
        with self._lock:
            self._waiting[kind] += 1
            try:
                while not is_needless():
                    if self._turn is None and not (self._last_kind == kind and self._waiting[other]):
                        break
                    if self._turn is not None and self._turn_thread == threading.get_ident():
                        raise RuntimeError("a generation cannot go on inside this thread's own borrow()")
                    self._condition.wait(_PATIENCE_SECONDS)
            finally:
                self._waiting[kind] -= 1
            if is_needless():
                return False
            self._turn_thread = threading.get_ident()
            self._last_kind = kind
            self._turn = turn
            return True

    def _wake(self) -> None:
        with self._lock:
            self._condition.notify_all()

    def _begin_business(self) -> None:
        """Mark that the scheduler is being changed, after mending what an interrupt left."""
        if self._unfinished_business:
            self._scheduler.restart()
            self._current = None
        self._unfinished_business = True

    def _check_open(self) -> None:
        if self._closed:
            raise OctavoError("the engine is closed: its model was closed, load it again")

    # Whole texts, without drawing

    def score(self, token_ids: Sequence[int], adapter: int = -1) -> NDArray[np.float32]:
        """Logits after each token of a text, float32 [T, V], in chunks of a step."""
        ids = self.check_ids("the text", token_ids)
        logits = np.empty((len(ids), self.runner.vocabulary_size), np.float32)
        with self.borrow(blocks_for(len(ids), self.runner.block_size)) as blocks:
            table = np.array([blocks], np.int32)
            more = step_extras(None, np.array([adapter], np.int32))
            for begin in range(0, len(ids), self.runner.max_step_tokens):
                part = ids[begin : begin + self.runner.max_step_tokens]
                every = np.arange(len(part), dtype=np.int32)
                end = begin + len(part)
                self.runner.step(
                    part, every + np.int32(begin), np.zeros_like(part), table, every, logits[begin:end], *more
                )
        return logits

    def check_ids(self, what: str, ids: Sequence[int]) -> NDArray[np.int32]:
        """The ids as int32; ValueError where there are none, or one is outside the vocabulary."""
        array = np.asarray(ids, np.int64)
        if array.ndim != 1 or len(array) == 0:
            raise ValueError(f"{what} has no tokens: give at least one id")
        wrong = array[(array < 0) | (array >= self.runner.vocabulary_size)]
        if len(wrong):
            raise ValueError(
                f"{what}: {wrong[0]} is not in the vocabulary of {self.runner.vocabulary_size} tokens"
            )
        return array.astype(np.int32)
