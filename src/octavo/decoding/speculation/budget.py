"""What drafts may lose: bounds that hold whatever the estimates and the costs say.

Estimates and measured costs may be wrong, and a text may change at any token.  So each text has an account in
plain steps: what drafts have earned it, and a share of its length.  A step is made longer only where the
accounts of all its texts can pay for a failure: no text pays for another's drafts.  A new text may try a
little before it has earned anything, as long as earlier ones have not spent what all of them together may.
"""

from __future__ import annotations

import math

FIRST_STEPS = 0.25  # on a new account
_MOST_EARNED, _SHARE_OF_FAILURES = 4.0, 0.002
_FIRST_GAIN, _NEXT_GAIN, _GAIN_WEIGHT = 1.2, 1.04, 0.1
_FIRST_PAUSE, _LONGEST_PAUSE = 64, 2048
_SHARE_OF_READING = 0.005


class Allowance:
    """What something may cost all texts together, in plain steps: a share of the time and what drafts gain.

    most: what is saved up at most; no single step is charged more.  first: what is there at first.
    """

    def __init__(self, share: float, most: float, first: float) -> None:
        self._share, self._most = share, most
        self.spare = first

    def add(self, spent: float = 0.0, gained: float = 0.0, steps: int = 1) -> None:
        """So many steps, of which so much was spent, and in which drafts gained so much."""
        change = self._share * steps + gained - min(spent, self._most)
        self.spare = min(self.spare + change, self._most)

    @property
    def rest(self) -> int:
        """Steps to go until there is something to spend."""
        return math.ceil(max(-self.spare, 0.0) / self._share)


def looking() -> Allowance:
    """For looking for drafts."""
    return Allowance(share=0.002, most=0.2, first=0.2)


def failing() -> Allowance:
    """For drafts beyond what their own texts have earned."""
    return Allowance(share=0.002, most=_MOST_EARNED, first=1.0)


def spare_steps(earned: float, tokens: int, together: float = FIRST_STEPS) -> float:
    """Steps that drafts may still cost a text: what they earned it, and its part of what all may lose."""
    return min(max(together, 0.0), FIRST_STEPS) + _SHARE_OF_FAILURES * tokens + earned


def trust(together: float) -> float:
    """How many steps of what a draft promises are believed: fewer after promises that were not kept."""
    return min(max(1.0 + together, 0.0), 1.0)


def earn(earned: float, tokens: int, steps: float) -> float:
    """A text got so many tokens from a step as long as so many plain ones."""
    return min(earned + tokens - steps, _MOST_EARNED)


class Trial:
    """Whether a source that takes time is worth it: off while it is not, and tried again ever more rarely.

    Each try costs a few steps at most, so what all of them cost stays under a hundredth of the time.
    Reading texts is paid in advance, and owed until drafts have brought it in again.
    """

    def __init__(self) -> None:
        self.gain = _FIRST_GAIN  # a running mean over the steps that it drafted for
        self.owed_seconds = 0.0
        self._pause = _FIRST_PAUSE
        self._waiting = 0  # tokens until it is tried again

    @property
    def is_on(self) -> bool:
        return self._waiting <= 0

    def observe(self, plain_seconds: float, seconds: float, reading_seconds: float = 0.0) -> None:
        """A step that it drafted for, what its tokens take in plain ones, and what reading took before."""
        self.owed_seconds = max(self.owed_seconds + reading_seconds + seconds - plain_seconds, 0.0)
        self.gain += (min(max(plain_seconds / seconds, 0.5), 4.0) - self.gain) * _GAIN_WEIGHT
        if self.gain < 1.0:
            self._waiting = self._pause
            self._pause = min(self._pause * 2, _LONGEST_PAUSE)
            self.gain = _NEXT_GAIN
        elif self.gain > 1.1:
            self._pause = _FIRST_PAUSE

    def pass_by(self, tokens: int, seconds: float) -> None:
        """So many tokens came without it."""
        self._waiting -= tokens
        self.owed_seconds = max(self.owed_seconds - _SHARE_OF_READING * seconds, 0.0)
