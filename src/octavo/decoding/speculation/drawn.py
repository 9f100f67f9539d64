"""What drafters that compute have in common: they draw their tokens as the model draws its own.

Same options, same noise for a position: so the two agree as often as their distributions nearly allow, at any
temperature (Daliri et al. 2025).  All sequences draft together, one token at a time for each.

R: sequences, V: vocabulary of the model.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from octavo.decoding.sampling import (
    SamplingError,
    distribution,
    flatten,
    sample,
    sampling_batch,
    top_logprobs,
)
from octavo.decoding.sequences import Drawing, TokenSequence
from octavo.decoding.speculation.controller import Estimates
from octavo.decoding.speculation.draft import ROOT, Draft

# Told of each step's drawings, the tokens that follow each, and the model's last hidden states float32
# [outputs, H] of their rows, which the next step overwrites.
StateReader = Callable[[Sequence[Drawing], Sequence[Sequence[int]], NDArray[np.float32]], None]

CONFIDENCE_BUCKETS = 10
_FEW = 4  # tokens that a sequence brings to a step which counts as one


@dataclass(slots=True, eq=False)
class Guess:
    """A draft under way.  pending: tokens to run before the next one can be drawn."""

    sequence: TokenSequence
    limit: int
    pending: list[int]
    draft: Draft = field(default_factory=Draft)
    reach: float = 1.0


class DrawnSource(ABC):
    """vocabulary_size: of the model.  goes_on(reach, length): whether one more token is worth it after a
    chain of this length that all comes true with the chance `reach`.  own_noise: for rules that need noise
    which the draft has not seen (rules.py).
    """

    name: str

    def __init__(self, estimates: Estimates, vocabulary_size: int, *, own_noise: bool = False) -> None:
        self.estimates = estimates
        self.vocabulary_size = vocabulary_size
        self.goes_on: Callable[[float, int], bool] = lambda reach, length: True
        self._own_noise = own_noise
        self.state_reader: StateReader | None = None  # what the engine shall tell of the model's states
        self.step_seconds = 0.0  # of one drafted token for each sequence, a running mean
        self.caught_up = False  # the last drafts had to read a prompt or a long stretch first

    # What a drafter is

    @abstractmethod
    def begin(self, sequence: TokenSequence, limit: int) -> Guess | None:
        """A draft to be made; None where none can be."""

    @abstractmethod
    def run(self, guesses: Sequence[Guess]) -> NDArray[np.float32]:
        """Run what is pending of each: logits float32 [R, V] after it."""

    def confidences(self, logits: NDArray[np.float32], tokens: NDArray[np.int32]) -> NDArray[np.float32]:
        """How likely the drafter itself finds each token int32 [R], by its logits float32 [R, V]."""
        return np.exp(top_logprobs(logits, tokens, 0)[0])

    def catch_up(self, guesses: Sequence[Guess]) -> None:  # noqa: B027 -- most have nothing to run
        """Run all but what one step takes."""

    @abstractmethod
    def forget(self, sequence: TokenSequence) -> None:
        """See `DraftSource.forget`."""

    @abstractmethod
    def restart(self) -> None:
        """See `DraftSource.restart`."""

    # Drafting

    def propose(self, sequences: Sequence[TokenSequence], limits: Sequence[int]) -> list[Draft]:
        """See `DraftSource.propose`."""
        guesses = [
            self.begin(sequence, limit) if limit > 0 else None
            for sequence, limit in zip(sequences, limits, strict=True)
        ]
        live = [guess for guess in guesses if guess is not None]
        self.caught_up = any(len(guess.pending) > _FEW for guess in live)
        self.catch_up(live)
        while live:
            few = all(len(guess.pending) <= _FEW for guess in live)
            started = time.perf_counter()
            self._draw(live, self.run(live))
            if few:
                self._time(time.perf_counter() - started)
            live = [guess for guess in live if self._may_go_on(guess)]
        return [Draft() if guess is None else guess.draft for guess in guesses]

    def _time(self, seconds: float) -> None:
        if not self.step_seconds:
            self.step_seconds = seconds
        # A pause of the process is no property of the model.
        self.step_seconds += 0.1 * (min(seconds, 2 * self.step_seconds) - self.step_seconds)

    def _may_go_on(self, guess: Guess) -> bool:
        draft = guess.draft
        if not guess.pending or len(draft) >= guess.limit or draft.tokens[-1] in guess.sequence.end_ids:
            return False
        return self.goes_on(guess.reach, len(draft))

    def _draw(self, guesses: Sequence[Guess], logits: NDArray[np.float32]) -> None:
        """A token more for each draft, from logits float32 [R, V]."""
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
            confidences = self.confidences(logits, tokens)
        except SamplingError:  # damaged weights, or nothing allowed: the large model will say
            for guess in guesses:
                guess.pending = []
            return
        drawn = zip(guesses, tokens.tolist(), confidences.tolist(), strict=True)
        for place, (guess, token, confidence) in enumerate(drawn):
            bucket = (self.name, min(int(confidence * CONFIDENCE_BUCKETS), CONFIDENCE_BUCKETS - 1))
            chance = self.estimates.chance(bucket, prior=confidence)
            law = None if laws is None else laws[place]
            guess.draft.add(token, len(guess.draft) - 1 if len(guess.draft) else ROOT, chance, bucket, law)
            guess.reach *= chance
            guess.pending = [token]


def noise_of_draft(sequence: TokenSequence) -> int:
    """A seed for the noise of the draft after these tokens of a sequence, used once."""
    state = np.random.SeedSequence([sequence.seed % 2**64, sequence.length, 1]).generate_state(1, np.uint64)
    return int(state[0])
