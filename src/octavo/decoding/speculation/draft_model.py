"""Drafts from a smaller model of the same vocabulary.

It draws as the large one does (drawn.py).  Its keys and values are its own pool; what is in there is compared
with the sequence's tokens each time, so wrong guesses, preemptions and interrupts need no messages.

T: new tokens of a step, R: sequences, V: vocabulary of the large model.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

import numpy as np
from numpy.typing import NDArray

from octavo.decoding.constraints.constraint import FORBIDDEN
from octavo.decoding.kv_cache import BlockAllocator, blocks_for
from octavo.decoding.runner import Runner
from octavo.decoding.sequences import TokenSequence
from octavo.decoding.speculation.controller import Estimates
from octavo.decoding.speculation.drawn import DrawnSource, Guess
from octavo.errors import OctavoError


@dataclass(slots=True, eq=False)
class _Cached:
    """tokens: whose keys and values are there.  checked: how many of them are known to be the sequence's."""

    blocks: list[int] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    checked: int = 0


@dataclass(slots=True, eq=False)
class _Guess(Guess):
    cached: _Cached = field(default_factory=_Cached)


class ModelSource(DrawnSource):
    """runner: of the small model.  vocabulary_size: of the large one."""

    name = "model"

    def __init__(
        self, runner: Runner, estimates: Estimates, vocabulary_size: int, *, own_noise: bool = False
    ) -> None:
        super().__init__(estimates, vocabulary_size, own_noise=own_noise)
        self._runner = runner
        self.restart()

    def restart(self) -> None:
        """See `DraftSource.restart`."""
        self._allocator = BlockAllocator(self._runner.block_count)
        self._cached: dict[int, _Cached] = {}

    def forget(self, sequence: TokenSequence) -> None:
        """See `DraftSource.forget`."""
        cached = self._cached.pop(id(sequence), None)
        if cached is not None:
            self._allocator.release(cached.blocks)

    def begin(self, sequence: TokenSequence, limit: int) -> Guess | None:
        """What the cache lacks of a sequence; None where it has no room."""
        cached = self._cached.setdefault(id(sequence), _Cached())
        ids, agreed = sequence.ids, cached.checked
        while agreed < min(len(cached.tokens), sequence.length - 1) and cached.tokens[agreed] == ids[agreed]:
            agreed += 1
        del cached.tokens[agreed:]
        cached.checked = agreed
        missing = blocks_for(sequence.length + limit, self._runner.block_size) - len(cached.blocks)
        if missing > self._allocator.free_count:
            return None
        if missing > 0:
            cached.blocks += self._allocator.allocate(missing)
        return _Guess(sequence, limit, ids[agreed : sequence.length].tolist(), cached=cached)

    def behind(self, sequence: TokenSequence) -> int:
        """See `DrawnSource.behind`."""
        cached = self._cached.get(id(sequence))
        return sequence.length - (0 if cached is None else len(cached.tokens))

    def read(self, guess: Guess) -> None:
        """See `DrawnSource.read`; in chunks without outputs."""
        room = self._runner.max_step_tokens
        while len(guess.pending) > 1:
            count = min(room, len(guess.pending) - 1)
            chunk, guess.pending = guess.pending[:count], guess.pending[count:]
            self._step([guess], [chunk], np.empty((0, self._runner.vocabulary_size), np.float32))

    def measure(self) -> None:
        """See `DrawnSource.measure`; a block of tokens is read and one more drawn, twice."""
        if self.step_seconds or not self._allocator.free_count:
            return
        blocks, length = self._allocator.allocate(1), self._runner.block_size
        tables = np.array([blocks], np.int32)
        logits = np.empty((1, self._runner.vocabulary_size), np.float32)
        places = np.arange(length, dtype=np.int32)
        for _ in range(2):
            started = time.perf_counter()
            none = np.zeros(0, np.int32)
            self._runner.step(places, places, np.zeros(length, np.int32), tables, none, logits[:0])
            middle = time.perf_counter()
            self._runner.step(places[-1:], places[-1:], np.zeros(1, np.int32), tables, places[:1], logits)
            self.reading_seconds = (middle - started) / length
            self.step_seconds = time.perf_counter() - middle
        self._allocator.release(blocks)

    def run(self, guesses: Sequence[Guess]) -> NDArray[np.float32]:
        """See `DrawnSource.run`."""
        logits = np.empty((len(guesses), self._runner.vocabulary_size), np.float32)
        self._step(guesses, [guess.pending for guess in guesses], logits)
        return self._in_large_vocabulary(logits)

    def _step(
        self, guesses: Sequence[Guess], chunks: Sequence[Sequence[int]], logits: NDArray[np.float32]
    ) -> None:
        """One native step over a chunk of each; logits float32 [R, V] after the chunks, or of none."""
        lengths = [len(chunk) for chunk in chunks]
        caches = [cast(_Guess, guess).cached for guess in guesses]
        begins = [len(cached.tokens) for cached in caches]
        tables = np.zeros((len(guesses), max(len(cached.blocks) for cached in caches)), np.int32)
        for row, cached in enumerate(caches):
            tables[row, : len(cached.blocks)] = cached.blocks
        self._runner.step(
            np.concatenate([np.asarray(chunk, np.int32) for chunk in chunks]),
            np.concatenate(
                [np.arange(b, b + n, dtype=np.int32) for b, n in zip(begins, lengths, strict=True)]
            ),
            np.repeat(np.arange(len(guesses), dtype=np.int32), lengths),
            tables,
            (np.cumsum(lengths) - 1).astype(np.int32)[: len(logits)],
            logits,
        )
        # They are there now; had the cached tokens claimed them before, an interrupt would have left a lie.
        for cached, chunk in zip(caches, chunks, strict=True):
            cached.tokens += chunk

    def _in_large_vocabulary(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits float32 [R, V]: no chance for what the small model lacks, nothing for what it has more."""
        more = self.vocabulary_size - logits.shape[1]
        if more == 0:
            return logits
        if more < 0:
            return np.ascontiguousarray(logits[:, : self.vocabulary_size])
        return np.pad(logits, ((0, 0), (0, more)), constant_values=FORBIDDEN)


def check_vocabularies(large: Sequence[str], small: Sequence[str], *, name: str) -> None:
    """OctavoError unless the two agree in every token but padding at the end."""
    common = min(len(large), len(small))
    wrong = [index for index in range(common) if large[index] != small[index]]
    for longer in (large, small):
        wrong += [index for index in range(common, len(longer)) if not _is_padding(longer[index])]
    if not wrong:
        return
    index = wrong[0]
    here, there = (tokens[index] if index < len(tokens) else "nothing" for tokens in (large, small))
    raise OctavoError(
        f"{name} cannot draft for this model: their vocabularies differ in {len(wrong):,} tokens, the first "
        f"of them {index} ({here!r} and {there!r}); a draft model has to have the same tokenizer"
    )


def _is_padding(token: str) -> bool:
    text = token.strip("<>[]|").lower()
    return not text or text.startswith(("pad", "unused", "reserved", "extra", "dummy"))
