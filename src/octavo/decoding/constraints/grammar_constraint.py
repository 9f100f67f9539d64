"""One text within a grammar: what the engine asks of a `Constraint`, answered by the grammar's matcher.

Apart from constraint.py, so that a generation without a grammar loads nothing of grammars.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from octavo.decoding.constraints.constraint import ForcedMode
from octavo.errors import OctavoError
from octavo.grammar import GrammarError, GrammarMatcher

Encode = Callable[[bytes], list[int]]


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
        """Where in the grammar the text was before each token, and where it is now; equals go on alike."""
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
