"""How much to draft, so that it always pays: expected tokens by expected time.

A step of n tokens takes T(n) (costs.py).  Of all drafted tokens of all sequences, those with the best chance
to be reached come first; the best m of them make the step worth
    (sequences + sum of the chances) / T(sequences + m)
tokens a second, and m = 0 is plain decoding.  This is the speed-up of Leviathan et al. 2023 (theorem 3.8)
with measured costs in place of "a step is a step", and one budget for a whole batch.  Drafts that
take time to draw go on by the same reckoning, before they are drawn (`Outlook`).
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence

from octavo.decoding.speculation.costs import StepCosts
from octavo.decoding.speculation.draft import ROOT, Draft

HALF_LIFE = 64.0  # outcomes after which one counts half
LEAST_GAIN = 1.03  # expected, below which a step is plain: estimates and clocks are not better than that

_PRIOR_WEIGHT = 3.0
_DOUBT = 0.005
_TRUSTED = 0.9  # of what a draft promises
_AHEAD = 4  # tokens: a tile of the kernels, whose first is dear (costs.py)
# For suffix drafts by the bit length of the match; for a draft model its own word is taken (see `chance`).
_SUFFIX_PRIORS = (0.05, 0.15, 0.3, 0.45, 0.65, 0.8, 0.85, 0.85)


class Estimates:
    """Running shares of drafted tokens that came true, by bucket."""

    def __init__(self) -> None:
        self.least_chance = 0.0  # below which no token pays in the next step: it need not be proposed
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

    def doubt(self, bucket: Hashable) -> None:
        """A step went by without such a token: what is never tried must not be known for ever."""
        true, seen = self._counts.get(bucket, (0.0, 0.0))
        self._counts[bucket] = (true * (1 - _DOUBT), seen * (1 - _DOUBT))


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
    spare: Sequence[float] = (),
    trust: float = 1.0,
) -> list[list[int]]:
    """Which nodes of each draft to verify: the best m of all, by the formula above.

    spare: how many plain steps longer the step may take for each draft's text, should none come true; of what
    its draft promises most is trusted, up to `trust` steps.  Empty: any.
    """
    ranked: list[tuple[float, int, int]] = []
    for index, draft in enumerate(drafts):
        ranked += [(-reach, index, node) for node, reach in enumerate(draft.reach())]
    ranked.sort()  # a node never comes before its parent: its reach is no larger, and its index is
    plain = costs.of(sequences)
    best, best_rate, expected = 0, sequences / plain * least_gain, float(sequences)
    hoped = [0.0] * len(drafts)
    ceiling = min(spare) + trust if spare else math.inf
    for count, (reach, index, _) in enumerate(ranked, 1):
        expected -= reach
        hoped[index] -= _TRUSTED * reach
        seconds = costs.of(sequences + count)
        longer = seconds / plain - 1
        if longer > ceiling:
            break
        rate = expected / seconds
        if rate <= best_rate:
            continue
        if all(longer <= mine + min(hope, trust) for mine, hope in zip(spare, hoped, strict=False)):
            best, best_rate = count, rate
    kept: list[list[int]] = [[] for _ in drafts]
    for _, index, node in ranked[:best]:
        kept[index].append(node)
    return [sorted(nodes) for nodes in kept]


def promise(draft: Draft, costs: StepCosts, sequences: int = 1) -> float:
    """The gain of a step in which each sequence has such a draft, at its best length; 1 where none gains."""
    best, expected = 1.0, 1.0
    for count, reach in enumerate(sorted(draft.reach(), reverse=True), 1):
        expected += reach
        best = max(best, expected * costs.of(sequences) / costs.of(sequences * (1 + count)))
    return best


class Outlook:
    """Whether to draw one more token of the drafts of a step, asked before each.

    One more token of `count` drafts is one step of the drafter, for all of them together, and a longer step
    of the model.  It pays where it is expected to bring more tokens than are had in that time at the rate so
    far: at the optimum of a ratio the margin equals the mean.  Looks a few tokens ahead, as costs rise in
    stairs.

    drawing_seconds: of a step of the drafter.  chance: that a token comes true where all before it did.
    """

    def __init__(
        self, sequences: int, costs: StepCosts, drawing_seconds: float, chance: float, least_gain: float
    ) -> None:
        self._costs = costs
        self._drawing_seconds = drawing_seconds
        self._chance = chance
        self._sequences = self._tokens = sequences  # of the model's step
        self._least_gain = least_gain
        self._expected, self._spent = float(sequences), 0.0  # so far: tokens, seconds of drawing

    @property
    def gain(self) -> float:
        """Of drafts for all sequences at the best length, over plain steps; 1 where none is better."""
        count, best, each, expected = self._sequences, 1.0, 1.0, 1.0
        for length in range(1, _AHEAD + 1):
            each *= self._chance
            expected += each
            seconds = length * self._drawing_seconds + self._costs.of(count * (1 + length))
            best = max(best, expected * self._costs.of(count) / seconds)
        return best

    def drawn(self, reaches: Sequence[float]) -> None:
        """Drafts got a token more, which are reached with these chances."""
        self._expected += sum(reaches)
        self._tokens += len(reaches)
        self._spent += self._drawing_seconds

    def going_on(self, reaches: Sequence[float]) -> list[int]:
        """Which drafts to draw a token more of, given the chances that they come true as far as they go."""
        here = self._costs.of(self._tokens)
        rate = self._sequences / self._costs.of(self._sequences)
        rate = max(rate, self._expected / (here + self._spent)) * self._least_gain
        order = sorted(range(len(reaches)), key=lambda index: -reaches[index])
        most, best, reach = 0, 0.0, 0.0
        for count, index in enumerate(order, 1):
            reach += reaches[index]
            gained, next_reach = 0.0, reach
            for ahead in range(1, _AHEAD + 1):
                next_reach *= self._chance
                gained += next_reach
                longer = self._costs.of(self._tokens + ahead * count) - here
                surplus = gained - rate * (ahead * self._drawing_seconds + longer)
                if surplus > best:
                    most, best = count, surplus
        return sorted(order[:most])


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
