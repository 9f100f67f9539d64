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
from octavo.decoding.speculation.controller import Estimates, Outlook
from octavo.decoding.speculation.draft import ROOT, Draft

# Told of each step's drawings, the tokens that follow each, and the model's last hidden states float32
# [outputs, H] of their rows, which the next step overwrites.
StateReader = Callable[[Sequence[Drawing], Sequence[Sequence[int]], NDArray[np.float32]], None]

CONFIDENCE_BUCKETS = 10
FEW = 4  # tokens that a sequence brings to a step which counts as one: more are read before


@dataclass(slots=True, eq=False)
class Guess:
    """A draft under way.  pending: tokens to run before the next one can be drawn."""

    sequence: TokenSequence
    limit: int
    pending: list[int]
    draft: Draft = field(default_factory=Draft)
    reach: float = 1.0


class DrawnSource(ABC):
    """vocabulary_size: of the model.  own_noise: for rules that need noise which the draft has not seen
    (rules.py).  outlook: of the step that is drafted for, says how far drafts go; None: to their limits.
    """

    name: str

    def __init__(self, estimates: Estimates, vocabulary_size: int, *, own_noise: bool = False) -> None:
        self.estimates = estimates
        self.vocabulary_size = vocabulary_size
        self.outlook: Outlook | None = None
        self._own_noise = own_noise
        self.state_reader: StateReader | None = None  # what the engine shall tell of the model's states
        self.step_seconds = 0.0  # of one drafted token for each sequence, a running mean
        self.reading_seconds = 0.0  # of one token that is read, not drafted, a running mean
        self.last_reading_seconds = 0.0  # of all that the last drafts had to read first

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

    def behind(self, sequence: TokenSequence) -> int:
        """How many tokens it would have to read before it could draft."""
        return 0

    def read(self, guess: Guess) -> None:  # noqa: B027 -- most have nothing to read
        """Run all that is pending but the last token."""

    def measure(self) -> None:  # noqa: B027 -- where nothing is read drafts alone tell
        """Find out what a step and a token that is read take, where that is not known yet."""

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
        self._read(live)
        while live:
            started = time.perf_counter()
            self._draw(live, self.run(live))
            self.step_seconds = _running_mean(self.step_seconds, time.perf_counter() - started)
            if self.outlook is not None:
                self.outlook.drawn([guess.reach for guess in live])
            live = [guess for guess in live if _may_go_on(guess)]
            if self.outlook is not None:
                live = [live[place] for place in self.outlook.going_on([guess.reach for guess in live])]
        return [Draft() if guess is None else guess.draft for guess in guesses]

    def _read(self, guesses: Sequence[Guess]) -> None:
        behind = [guess for guess in guesses if len(guess.pending) > FEW]
        count, started = sum(len(guess.pending) - 1 for guess in behind), time.perf_counter()
        for guess in behind:
            self.read(guess)
        self.last_reading_seconds = time.perf_counter() - started if behind else 0.0
        if behind:
            self.reading_seconds = _running_mean(self.reading_seconds, self.last_reading_seconds / count)

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


def _may_go_on(guess: Guess) -> bool:
    draft = guess.draft
    return bool(guess.pending) and len(draft) < guess.limit and draft.tokens[-1] not in guess.sequence.end_ids


def _running_mean(mean: float, seconds: float) -> float:
    # A pause of the process is no property of the model.
    return mean + 0.1 * (min(seconds, 2 * mean) - mean) if mean else seconds


def noise_of_draft(sequence: TokenSequence) -> int:
    """A seed for the noise of the draft after these tokens of a sequence, used once."""
    state = np.random.SeedSequence([sequence.seed % 2**64, sequence.length, 1]).generate_state(1, np.uint64)
    return int(state[0])
