"""One generation as its owner sees it: tokens as they are asked for, why they ended, how long they took."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from octavo.decoding.sequences import FinishReason, TokenSequence

if TYPE_CHECKING:
    from octavo.decoding.engine import Engine


@dataclass(slots=True)
class Timings:
    """Of one generation so far; times in seconds, 0 where it has not come so far.

    prompt_seconds: from its first step to its first token.  generation_seconds: from the first token to the
    last. time_to_first_token: from `submit`.  cached_tokens: of the prompt, not computed because the cache
    had them.  drafted, accepted: tokens guessed and verified, and those of them that were right.
    accepted_by_depth: of the first, second, ... token of drafts, how often it was right where all before it
    were.
    speedup_estimate: how much longer its steps would have taken without drafts, by the measured cost of a
    step; 1 where nothing was drafted.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt_seconds: float = 0.0
    generation_seconds: float = 0.0
    time_to_first_token: float = 0.0
    cached_tokens: int = 0
    drafted: int = 0
    accepted: int = 0
    accepted_by_depth: tuple[float, ...] = ()
    speedup_estimate: float = 1.0


class Generation(Iterator[int]):
    """The tokens of one sequence as they are asked for; an end token is the last of them.

    tokens: those taken so far.  One thread at a time takes tokens of one generation; `cancel` may be called
    from any. A generation that is forgotten is cancelled.
    """

    def __init__(self, engine: Engine, sequence: TokenSequence) -> None:
        self._engine = engine
        self._sequence = sequence
        self.tokens: list[int] = []

    def __next__(self) -> int:
        sequence, taken = self._sequence, len(self.tokens)
        if taken == len(sequence.generated):
            self._engine.wait_for_token(sequence, taken)
        if sequence.finish_reason == "cancelled":
            raise StopIteration
        if taken == len(sequence.generated):
            if sequence.error is not None:
                raise sequence.error
            raise StopIteration
        token = sequence.generated[taken]
        self.tokens.append(token)
        return token

    @property
    def finish_reason(self) -> FinishReason | None:
        """ "stop" (an end token), "length", "deadline", "cancelled"; None while there are tokens to take."""
        reason = self._sequence.finish_reason
        taken_all = len(self.tokens) == len(self._sequence.generated)
        return reason if taken_all or reason == "cancelled" else None

    @property
    def timings(self) -> Timings:
        """How long it took so far."""
        sequence = self._sequence
        timings = Timings(sequence.prompt_length, len(self.tokens))
        if sequence.first_token:
            timings.prompt_seconds = sequence.first_token - sequence.started
            timings.generation_seconds = sequence.last_token - sequence.first_token
            timings.time_to_first_token = sequence.first_token - sequence.submitted
        timings.drafted, timings.accepted = sequence.drafted, sequence.accepted
        timings.accepted_by_depth = tuple(right / tried for tried, right in sequence.depths)
        if timings.generation_seconds > 0 and sequence.drafted:
            timings.speedup_estimate = 1 + sequence.saved_seconds / timings.generation_seconds
        return timings

    def cancel(self) -> None:
        """No more tokens, at once; those not taken are dropped.  Nothing where it has ended."""
        if self.finish_reason is None:
            self._engine.cancel(self._sequence)

    def __del__(self) -> None:
        # No lock here: this may run anywhere.  The next step looks.
        self._sequence.abandoned = True
