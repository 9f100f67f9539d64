"""Drafts from a smaller model of the same vocabulary.

It draws as the large one does, with the same options and the same noise for a position, so it agrees as often
as the two distributions nearly allow, at any temperature (Daliri et al. 2025).  Its keys and values are its
own pool; what is in there is compared with the sequence's tokens each time, so wrong guesses, preemptions and
interrupts need no messages.  All sequences draft in one native batch, one token at a time for each.

T: new tokens of a step, R: sequences, V: vocabulary of the large model.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from octavo.decoding.constraint import FORBIDDEN
from octavo.decoding.kv_cache import BlockAllocator, blocks_for
from octavo.decoding.runner import Runner
from octavo.decoding.sampling import (
    SamplingError,
    distribution,
    flatten,
    sample,
    sampling_batch,
    top_logprobs,
)
from octavo.decoding.scheduler import TokenSequence
from octavo.decoding.speculation.controller import Estimates
from octavo.decoding.speculation.draft import ROOT, Draft
from octavo.errors import OctavoError

CONFIDENCE_BUCKETS = 10
_FEW = 4  # tokens that a sequence brings to a step which counts as one


@dataclass(slots=True, eq=False)
class _Cached:
    """tokens: whose keys and values are there.  checked: how many of them are known to be the sequence's."""

    blocks: list[int] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    checked: int = 0


@dataclass(slots=True, eq=False)
class _Guess:
    """A draft under way.  pending: tokens to run before the next one can be drawn."""

    sequence: TokenSequence
    cached: _Cached
    limit: int
    pending: list[int]
    draft: Draft = field(default_factory=Draft)
    reach: float = 1.0


class ModelSource:
    """goes_on(reach, length): whether one more token is worth it after a chain of this length that all comes
    true with the chance `reach`."""

    name = "model"

    def __init__(
        self,
        runner: Runner,
        estimates: Estimates,
        vocabulary_size: int,
        goes_on: Callable[[float, int], bool] = lambda reach, length: True,
        *,
        own_noise: bool = False,
    ) -> None:
        self._runner = runner
        self._estimates = estimates
        self._vocabulary = vocabulary_size
        self.goes_on = goes_on
        self._own_noise = own_noise
        self.step_seconds = 0.0  # of one drafted token for each sequence, a running mean
        self.caught_up = False  # the last drafts had to read a prompt or a long stretch first
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

    def propose(self, sequences: Sequence[TokenSequence], limits: Sequence[int]) -> list[Draft]:
        """See `DraftSource.propose`."""
        guesses = [self._begin(s, limit) for s, limit in zip(sequences, limits, strict=True)]
        live = [guess for guess in guesses if guess is not None]
        self.caught_up = any(len(guess.pending) > _FEW for guess in live)
        self._catch_up(live)
        while live:
            few = all(len(guess.pending) <= _FEW for guess in live)
            started = time.perf_counter()
            self._draw(live)
            if few:
                self._observe(time.perf_counter() - started)
            live = [guess for guess in live if self._may_go_on(guess)]
        return [Draft() if guess is None else guess.draft for guess in guesses]

    def _observe(self, seconds: float) -> None:
        if not self.step_seconds:
            self.step_seconds = seconds
        # A pause of the process is no property of the model.
        self.step_seconds += 0.1 * (min(seconds, 2 * self.step_seconds) - self.step_seconds)

    def _may_go_on(self, guess: _Guess) -> bool:
        draft = guess.draft
        if not guess.pending or len(draft) >= guess.limit or draft.tokens[-1] in guess.sequence.end_ids:
            return False
        return self.goes_on(guess.reach, len(draft))

    def _begin(self, sequence: TokenSequence, limit: int) -> _Guess | None:
        """What the cache lacks of a sequence; None where it has no room."""
        if limit < 1:
            return None
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
        return _Guess(sequence, cached, limit, ids[agreed : sequence.length].tolist())

    def _catch_up(self, guesses: Sequence[_Guess]) -> None:
        """Run what is more than a step can take together, in chunks without outputs."""
        room = self._runner.max_step_tokens // max(len(guesses), 1)
        for guess in guesses:
            while len(guess.pending) > room:
                chunk, guess.pending = guess.pending[:room], guess.pending[room:]
                self._run([guess], [chunk], np.empty((0, self._runner.vocabulary_size), np.float32))

    def _run(
        self, guesses: Sequence[_Guess], chunks: Sequence[Sequence[int]], logits: NDArray[np.float32]
    ) -> None:
        """One native step over a chunk of each; logits float32 [R, V] after the chunks, or of none."""
        lengths = [len(chunk) for chunk in chunks]
        begins = [len(guess.cached.tokens) for guess in guesses]
        tables = np.zeros((len(guesses), max(len(guess.cached.blocks) for guess in guesses)), np.int32)
        for row, guess in enumerate(guesses):
            tables[row, : len(guess.cached.blocks)] = guess.cached.blocks
            # They are there when the step ends; until then the cached tokens must not claim them.
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
        for guess, chunk in zip(guesses, chunks, strict=True):
            guess.cached.tokens += chunk

    def _draw(self, guesses: Sequence[_Guess]) -> None:
        """A token more for each draft."""
        logits = np.empty((len(guesses), self._runner.vocabulary_size), np.float32)
        self._run(guesses, [guess.pending for guess in guesses], logits)
        logits = self._in_large_vocabulary(logits)
        sequences = [guess.sequence for guess in guesses]
        positions = [guess.sequence.length + len(guess.draft) for guess in guesses]
        seeds = [noise_of_draft(s) if self._own_noise else s.seed for s in sequences]
        batch = sampling_batch([s.options for s in sequences], seeds, positions)
        recent = [guess.sequence.recent(guess.draft.tokens) for guess in guesses]
        if any(map(len, recent)):
            batch.history, batch.history_offsets = flatten(recent)
        try:
            tokens = sample(logits, batch)
            laws = distribution(logits, batch) if self._own_noise else None
            confidences = np.exp(top_logprobs(logits, tokens, 0)[0])
        except SamplingError:  # damaged weights, or nothing allowed: the large model will say
            for guess in guesses:
                guess.pending = []
            return
        drawn = zip(guesses, tokens.tolist(), confidences.tolist(), strict=True)
        for place, (guess, token, confidence) in enumerate(drawn):
            bucket = (self.name, min(int(confidence * CONFIDENCE_BUCKETS), CONFIDENCE_BUCKETS - 1))
            chance = self._estimates.chance(bucket, prior=confidence)
            law = None if laws is None else laws[place]
            guess.draft.add(token, len(guess.draft) - 1 if len(guess.draft) else ROOT, chance, bucket, law)
            guess.reach *= chance
            guess.pending = [token]

    def _in_large_vocabulary(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits float32 [R, V]: no chance for what the small model lacks, nothing for what it has more."""
        more = self._vocabulary - logits.shape[1]
        if more == 0:
            return logits
        if more < 0:
            return np.ascontiguousarray(logits[:, : self._vocabulary])
        return np.pad(logits, ((0, 0), (0, more)), constant_values=FORBIDDEN)


def noise_of_draft(sequence: TokenSequence) -> int:
    """A seed for the noise of the draft after these tokens of a sequence, used once."""
    state = np.random.SeedSequence([sequence.seed % 2**64, sequence.length, 1]).generate_state(1, np.uint64)
    return int(state[0])


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
