"""Drafts from what has been said: the text's end stood somewhere before, and its continuation is guessed.

Prompt lookup (Saxena 2023) and SuffixDecoding (Oliaro et al. 2024) in one: a suffix automaton of the prompt
and the answer so far finds the longest end that occurred before, however long, and a second one does so in
earlier texts of the same engine.  Copying spans (code edits, summaries, retrieval) is what this is for; a
token costs about a microsecond where nothing is found.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from octavo import _native
from octavo.decoding.sequences import TokenSequence
from octavo.decoding.speculation.controller import Estimates
from octavo.decoding.speculation.draft import NO_DRAFT, ROOT, Draft

# Tokens of earlier texts that are kept: the newest half goes on when there are more (about 200 bytes each).
KEPT_TOKENS = 1 << 16
_LONGEST_BUCKET = 7  # matches of 64 tokens and more are counted together
_LEAST_CHANCE = 0.1  # below which a first token is not worth the time that proposing takes
_LEAST_REACH = 0.05  # a chain ends where its tokens are reached more rarely: no step is so cheap


class _Follower:
    """One sequence: its own automaton, and where its end stands in the earlier texts."""

    def __init__(self, earlier: _native.SuffixAutomaton) -> None:
        self.own = _native.SuffixAutomaton()
        self.earlier = earlier
        self.match = (0, 0)
        self.length = 0

    def catch_up(self, sequence: TokenSequence) -> None:
        new = sequence.ids[self.length : sequence.length]
        self.own.extend(new)
        if len(self.earlier):
            self.match = self.earlier.advance(self.match, new)
        self.length = sequence.length


class SuffixSource:
    """Proposes the continuation of the longest repeated end, of the text itself or of earlier texts."""

    name = "suffix"

    def __init__(
        self,
        estimates: Estimates,
        *,
        earlier: bool = True,
        least_chance: float = _LEAST_CHANCE,
    ) -> None:
        self._estimates = estimates
        self._least_chance = least_chance
        self._keeps = earlier
        self._texts: deque[NDArray[np.int32]] = deque()
        self._earlier = _native.SuffixAutomaton()
        self._followers: dict[int, _Follower] = {}

    def propose(self, sequences: Sequence[TokenSequence], limits: Sequence[int]) -> list[Draft]:
        """See `DraftSource.propose`."""
        return [self._propose(sequence, limit) for sequence, limit in zip(sequences, limits, strict=True)]

    def _propose(self, sequence: TokenSequence, limit: int) -> Draft:
        follower = self._followers.get(id(sequence))
        if follower is None:
            follower = self._followers[id(sequence)] = _Follower(self._earlier)
        follower.catch_up(sequence)
        if limit < 1:
            return NO_DRAFT
        where, automaton, match = "text", follower.own, follower.own.repeated()
        if follower.match[1] > match[1]:
            where, automaton, match = "earlier", follower.earlier, follower.match
        matched = match[1]
        if matched < 1 or self._is_hopeless(where, matched, sequence.length):
            return NO_DRAFT
        tokens = np.empty(limit, np.int32)
        count = automaton.continuation(match, tokens)
        least = max(_LEAST_REACH, self._estimates.least_chance / 2)
        draft, reach = Draft(), 1.0
        for depth, token in enumerate(tokens[:count].tolist()):
            # A token that comes true makes the match longer for the next.
            bucket = (self.name, where, min((matched + depth).bit_length(), _LONGEST_BUCKET))
            chance = self._estimates.chance(bucket)
            reach *= chance
            if token < 0 or (depth and reach < least):  # the end of an earlier text, or too far ahead
                break
            draft.add(token, depth - 1 if depth else ROOT, chance, bucket)
        return draft

    def _is_hopeless(self, where: str, matched: int, length: int) -> bool:
        """Whether such matches are rarely right: one in sixteen is looked at, lest that change."""
        if length % 16 == 0:
            return False
        bucket = (self.name, where, min(matched.bit_length(), _LONGEST_BUCKET))
        return self._estimates.chance(bucket) < max(self._least_chance, self._estimates.least_chance)

    def forget(self, sequence: TokenSequence) -> None:
        """The text becomes an earlier one."""
        self._followers.pop(id(sequence), None)
        if not self._keeps or not sequence.generated:
            return
        self._texts.append(sequence.ids[: sequence.length].copy())
        if sum(map(len, self._texts)) > KEPT_TOKENS:
            while len(self._texts) > 1 and sum(map(len, self._texts)) > KEPT_TOKENS // 2:
                self._texts.popleft()
            self._earlier = _native.SuffixAutomaton()
            for text in self._texts:
                self._extend_earlier(text)
        else:
            self._extend_earlier(self._texts[-1])

    def _extend_earlier(self, text: NDArray[np.int32]) -> None:
        # A token that no text holds keeps matches from crossing from one text into the next.
        self._earlier.extend(text[-KEPT_TOKENS:])
        self._earlier.extend(np.array([-1], np.int32))

    def restart(self) -> None:
        """See `DraftSource.restart`."""
        self._followers.clear()
