"""Generation within a grammar, as the engine sees it: which tokens may follow, which must, when it is over.

A constraint is asked with the tokens generated so far and follows them by itself: after an interrupt or a
preemption the tokens are the truth, and nothing else has to be mended.

V: vocabulary, W: words of a mask, ceil(V / 32).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from octavo.errors import OctavoError
from octavo.grammar import GrammarError, GrammarMatcher

ForcedMode = Literal["exact", "canonical", "off"]
FORBIDDEN = np.float32(
    -1e30
)  # the logit of what cannot follow: finite, since an infinite one means damaged weights
Encode = Callable[[bytes], list[int]]


class Constraint(Protocol):
    """What the engine asks.  generated: all tokens after the prompt; remaining: how many more have room."""

    shortened: bool  # the text was led to its end because max_tokens or its deadline came near

    def mask(self, generated: Sequence[int]) -> NDArray[np.int32] | None: ...
    def admit(self, generated: Sequence[int], token: int, remaining: int) -> int | None: ...
    def forced(self, generated: Sequence[int], remaining: int) -> list[int]: ...
    def ending(self, generated: Sequence[int]) -> list[int] | None: ...
    def finished(self, generated: Sequence[int]) -> bool: ...
    def admissible(self, generated: Sequence[int], tokens: Sequence[int]) -> int: ...
    def places(self, generated: Sequence[int]) -> Sequence[Hashable]: ...


class GrammarConstraint:
    """One text within a grammar that always closes: a token from which the rest of max_tokens could not end
    the text gives way to the next token of a short ending.

    encode: bytes -> ids as the model's tokenizer writes them, for forced tokens of the mode "canonical".
    Raises GrammarError if the shortest text needs more than max_tokens.
    """

    def __init__(self, matcher: GrammarMatcher, encode: Encode, max_tokens: int, forced: ForcedMode) -> None:
        self.shortened = False
        self._matcher = matcher
        self._encode = encode
        self._mode = forced
        self._accepted: list[int] = []
        self._places: list[Hashable] = [self._place()]
        needed = self._closing()
        if needed is not None and len(needed) > max_tokens:
            raise GrammarError(
                f"max_tokens: {max_tokens}, and the shortest text of this grammar has {len(needed)} tokens"
            )

    def mask(self, generated: Sequence[int]) -> NDArray[np.int32]:
        """int32 [W]: bit t % 32 of word t // 32 says whether token t may follow."""
        self._follow(generated)
        words = np.zeros(self._matcher.compiled.info.mask_words, np.int32)
        self._matcher.fill_next_token_bitmask(words)
        return words

    def admit(self, generated: Sequence[int], token: int, remaining: int) -> int | None:
        """The token, or the first of a short ending where there would be too little room left after it; None
        where the text is whole and should end here."""
        self._follow(generated)
        if token in self._matcher.compiled.info.stop_token_ids:
            return token
        ending = self._closing()
        if ending is None or not self._matcher.accept_token(token):
            return token
        after = self._closing()
        self._matcher.rollback(1)
        if after is not None and len(after) < remaining:
            return token
        self.shortened = True
        return ending[0] if ending else None

    def forced(self, generated: Sequence[int], remaining: int) -> list[int]:
        """Tokens that follow without a choice, as far as they leave room for the text's end."""
        self._follow(generated)
        tokens = self._matcher.forced_tokens(self._mode, self._encode) if self._mode != "off" else []
        for token in tokens:
            if not self._matcher.accept_token(token):  # the tokenizer wrote other bytes than it was given
                self._matcher.rollback(len(self._accepted) - len(generated))
                return []
            self._note(token)
        ending = self._closing()
        fits = len(tokens) + len(ending or ()) < remaining
        self._follow(generated)
        return tokens if fits else []

    def ending(self, generated: Sequence[int]) -> list[int] | None:
        """The tokens of a short ending, for a text that is out of time; None where none is known."""
        self._follow(generated)
        ending = self._closing()
        self.shortened = self.shortened or bool(ending)
        return ending

    def finished(self, generated: Sequence[int]) -> bool:
        """Whether nothing but the end can follow."""
        self._follow(generated)
        return self._matcher.is_terminated()

    def admissible(self, generated: Sequence[int], tokens: Sequence[int]) -> int:
        """How many of these tokens, from the first on, can follow; the end of the text is not among them."""
        self._follow(generated)
        stops = self._matcher.compiled.info.stop_token_ids
        count = 0
        for token in tokens:
            try:
                if token in stops or not self._matcher.accept_token(token):
                    break
            except GrammarError:  # too complex to follow: it is an error when the text really gets there
                break
            self._note(token)
            count += 1
        self._follow(generated)
        return count

    def places(self, generated: Sequence[int]) -> Sequence[Hashable]:
        """Where in the grammar the text was before each of its tokens, and where it is now: equal places have
        equal futures."""
        self._follow(generated)
        return self._places

    def _follow(self, generated: Sequence[int]) -> None:
        extra = len(self._accepted) - len(generated)
        if extra > 0:
            self._matcher.rollback(extra)
            del self._accepted[-extra:], self._places[-extra:]
        for token in generated[len(self._accepted) :]:
            if not self._matcher.accept_token(token):
                raise OctavoError(f"token {token} is not in the grammar at place {len(self._accepted)}")
            self._note(token)

    def _note(self, token: int) -> None:
        """The matcher has just accepted it."""
        self._accepted.append(token)
        self._places.append(self._place())

    def _place(self) -> Hashable:
        return id(self._matcher.compiled), self._matcher.state

    def _closing(self) -> list[int] | None:
        """Tokens of a short ending; None where none is known."""
        ending = self._matcher.closing_bytes()
        return None if ending is None else self._matcher.compiled.info.split(ending)


class Constrained(Protocol):
    """What of a sequence matters here."""

    constraint: Constraint | None
    generated: list[int]
    closing: Literal["length", "deadline"] | None
    error: Exception | None

    @property
    def remaining(self) -> int: ...


class MaskWorker:
    """The masks of a step's sequences, computed by a thread of their own while the native step runs."""

    def __init__(self) -> None:
        self._executor: ThreadPoolExecutor | None = None
        self._masks: list[Future[NDArray[np.int32] | None] | None] = []

    def begin(self, rows: Sequence[tuple[Constrained, Sequence[int]]]) -> None:
        """Start on the masks of the next tokens: of a sequence after what it has and what is drafted."""
        self._masks = []
        if all(sequence.constraint is None for sequence, _ in rows):
            return
        if self._executor is None:
            self._executor = ThreadPoolExecutor(1, "octavo-masks")
        for sequence, drafted in rows:
            if sequence.constraint is None:
                self._masks.append(None)
            else:
                tokens = [*sequence.generated, *drafted]
                self._masks.append(self._executor.submit(sequence.constraint.mask, tokens))

    def forbid(self, rows: Sequence[tuple[Constrained, Sequence[int]]], logits: NDArray[np.float32]) -> None:
        """FORBIDDEN in float32 [R, V] outside the masks.  A grammar's failure ends its sequence only; in a
        row after drafted tokens it waits until those have come true."""
        for (sequence, drafted), mask, row in zip(rows, self._masks, logits, strict=False):
            if mask is None:
                continue
            try:
                words = mask.result()
            except GrammarError as error:
                if drafted:
                    row[:] = np.nan
                else:
                    sequence.error = error
                continue
            if words is None:
                continue
            row[np.unpackbits(words.view(np.uint8), count=len(row), bitorder="little") == 0] = FORBIDDEN

    def close(self) -> None:
        if self._executor is not None:
            self._executor.shutdown(wait=False, cancel_futures=True)


def continuation(sequence: Constrained, emitted: Sequence[int], token: int) -> list[int]:
    """After the tokens `emitted` since the step began: the drawn token, or what the grammar has in its place,
    and those forced after it.  A sequence that is out of time gets its ending and no more."""
    constraint = sequence.constraint
    if constraint is None or sequence.error is not None:
        return [token]
    generated, remaining = [*sequence.generated, *emitted], sequence.remaining - len(emitted)
    try:
        if sequence.closing == "deadline":
            ending = constraint.ending(generated)
            return [token] if ending is None else ending
        first = constraint.admit(generated, token, remaining)
        if first is None:
            sequence.closing = "length"
            return []
        return [first, *constraint.forced([*generated, first], remaining - 1)]
    except GrammarError as error:
        sequence.error = error
        return [token]
