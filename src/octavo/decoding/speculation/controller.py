"""How much to draft, so that it always pays: expected tokens by expected time.

A step of n tokens takes T(n) (costs.py).  Of all drafted tokens of all sequences, those with the best chance
to be reached come first; the best m of them make the step worth
    (sequences + sum of the chances) / T(sequences + m)
tokens a second, and m = 0 is plain decoding.  This is the speed-up of Leviathan et al. 2023 (theorem 3.8)
with measured costs in place of "a step is a step", and one budget for a whole batch.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence

from octavo.decoding.speculation.costs import StepCosts
from octavo.decoding.speculation.draft import ROOT, Draft

HALF_LIFE = 64.0  # outcomes after which one counts half
LEAST_GAIN = 1.03  # expected, below which a step is plain: estimates and clocks are not better than that

_PRIOR_WEIGHT = 3.0
_FIRST_STEPS, _MOST_STEPS, _SHARE_OF_FAILURES = 0.5, 4.0, 0.005
_MOST_LOOKING, _SHARE_OF_LOOKING = 0.2, 0.01
_FIRST_GAIN, _NEXT_GAIN, _GAIN_WEIGHT = 1.2, 1.04, 0.1
_FIRST_PAUSE, _LONGEST_PAUSE = 64, 2048
# For suffix drafts by the bit length of the match; for a draft model its own word is taken (see `chance`).
_SUFFIX_PRIORS = (0.05, 0.15, 0.3, 0.45, 0.65, 0.8)


class Estimates:
    """Running shares of drafted tokens that came true, by bucket."""

    def __init__(self) -> None:
        self._counts: dict[Hashable, tuple[float, float]] = {}
        self._decay = 0.5 ** (1 / HALF_LIFE)

    def chance(self, bucket: Hashable, prior: float | None = None) -> float:
        """How likely a token of this bucket comes true.  prior: what to think before anything was seen."""
        if prior is None:
            prior = _SUFFIX_PRIORS[bucket[2]] if isinstance(bucket, tuple) else 0.5
        true, seen = self._counts.get(bucket, (0.0, 0.0))
        return (true + _PRIOR_WEIGHT * prior) / (seen + _PRIOR_WEIGHT)

    def learn(self, bucket: Hashable, came_true: bool) -> None:
        """One outcome."""
        true, seen = self._counts.get(bucket, (0.0, 0.0))
        self._counts[bucket] = (true * self._decay + came_true, seen * self._decay + 1.0)


def learn_from(estimates: Estimates, draft: Draft, emitted: Sequence[int]) -> None:
    """Outcomes of a whole proposal, tried or not: the text tells, as far as it goes."""
    nodes = [ROOT]
    for token in emitted:
        below = [child for node in nodes for child in draft.children(node)]
        for child in below:
            estimates.learn(draft.buckets[child], draft.tokens[child] == token)
        nodes = [child for child in below if draft.tokens[child] == token]


def choose(
    drafts: Sequence[Draft],
    sequences: int,
    costs: StepCosts,
    least_gain: float,
    may_lose: float = math.inf,
) -> list[list[int]]:
    """Which nodes of each draft to verify: the best m of all, by the formula above.

    may_lose: how many plain steps longer the step may take, should none of them come true.
    """
    ranked: list[tuple[float, int, int]] = []
    for index, draft in enumerate(drafts):
        ranked += [(-reach, index, node) for node, reach in enumerate(draft.reach())]
    ranked.sort()  # a node never comes before its parent: its reach is no larger, and its index is
    plain = sequences / costs.of(sequences)
    best, best_rate, expected = 0, plain * least_gain, float(sequences)
    for count, (reach, _, _) in enumerate(ranked, 1):
        expected -= reach
        if costs.of(sequences + count) > (1 + may_lose) * costs.of(sequences):
            break
        rate = expected / costs.of(sequences + count)
        if rate > best_rate:
            best, best_rate = count, rate
    kept: list[list[int]] = [[] for _ in drafts]
    for _, index, node in ranked[:best]:
        kept[index].append(node)
    return [sorted(nodes) for nodes in kept]


def promise(draft: Draft, costs: StepCosts) -> float:
    """The gain that a draft promises a sequence alone, at its best length; 1 where none is better."""
    best, expected = 1.0, 1.0
    for count, reach in enumerate(sorted(draft.reach(), reverse=True), 1):
        expected += reach
        best = max(best, expected * costs.of(1) / costs.of(1 + count))
    return best


class Budget:
    """What drafts may still lose, in plain steps: what they have earned, and a share of the time.

    Estimates and measured costs may be wrong, and the text may change at any token.  This bounds the loss
    whatever they say: a draft is tried where its failure can be paid, and looking for drafts goes on only
    where its own share pays for it.
    """

    def __init__(self) -> None:
        self.steps = _FIRST_STEPS
        self._looking = _MOST_LOOKING

    @property
    def may_look(self) -> bool:
        """Whether there is anything left for looking for drafts."""
        return self._looking >= 0

    def add_plain(self, looking: float) -> None:
        """A step had no drafts; looking for them took so much of it."""
        self.steps = min(self.steps + _SHARE_OF_FAILURES, _MOST_STEPS)
        self._looking = min(self._looking + _SHARE_OF_LOOKING - looking, _MOST_LOOKING)

    def add_drafted(self, tokens: float, steps: float) -> None:
        """A step gave so many tokens to each sequence, and took as long as so many plain steps."""
        self.steps = min(self.steps + tokens - steps, _MOST_STEPS)
        self._looking = min(self._looking + max(tokens - steps, 0.0), _MOST_LOOKING)


class Trial:
    """Whether a source that takes time is worth it: off while it is not, and tried again ever more rarely.

    Each try costs a few steps at most, so what all of them cost stays under a hundredth of the time.
    """

    def __init__(self) -> None:
        self.gain = _FIRST_GAIN  # a running mean over the steps that it drafted for
        self._pause = _FIRST_PAUSE
        self._waiting = 0  # tokens until it is tried again

    @property
    def is_on(self) -> bool:
        return self._waiting <= 0

    def observe(self, gain: float) -> None:
        """A step that it drafted for gave so many times what plain ones give in the same time."""
        self.gain += (min(max(gain, 0.5), 4.0) - self.gain) * _GAIN_WEIGHT
        if self.gain < 1.0:
            self._waiting = self._pause
            self._pause = min(self._pause * 2, _LONGEST_PAUSE)
            self.gain = _NEXT_GAIN
        elif self.gain > 1.1:
            self._pause = _FIRST_PAUSE

    def pass_by(self, tokens: int) -> None:
        """So many tokens came without it."""
        self._waiting -= tokens


def expected_tokens(chances: Iterable[float]) -> float:
    """Tokens of a step whose drafted chain has these chances, the model's own token included."""
    total, reach = 1.0, 1.0
    for chance in chances:
        reach *= chance
        total += reach
    return total


def speedup(acceptance: float, length: int, costs: StepCosts, draft_seconds: float = 0.0) -> float:
    """Predicted gain of chains of one length and one acceptance: E / ((g c + T(g + 1)) / T(1))."""
    expected = expected_tokens([acceptance] * length)
    return expected * costs.of(1) / (length * draft_seconds + costs.of(length + 1))


def best_length(acceptance: float, most: int, costs: StepCosts, draft_seconds: float = 0.0) -> int:
    """The chain length with the largest predicted gain; 0 where none has any."""
    gains = {length: speedup(acceptance, length, costs, draft_seconds) for length in range(1, most + 1)}
    length = max(gains, key=lambda candidate: gains[candidate])
    return length if gains[length] > 1.0 else 0
