"""Drafts for the sequences of each step: sources propose, the controller chooses, outcomes are learnt.

Nothing here can change a text (verification.py); it can only make it slower, which the controller's costs
and estimates prevent.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Literal

from octavo.decoding.runner import Runner
from octavo.decoding.sequences import Step, TokenSequence
from octavo.decoding.speculation.controller import (
    LEAST_GAIN,
    Budget,
    Estimates,
    Trial,
    choose,
    learn_from,
    promise,
)
from octavo.decoding.speculation.costs import StepCosts, measure
from octavo.decoding.speculation.draft import ROOT, Draft, DraftSource
from octavo.decoding.speculation.drawn import DrawnSource

MOST_NODES = 64  # of a step, all sequences together
DRAFT_MAX = 16  # of a sequence in a step
Rule = Literal["equality", "token", "block"]
_PROMISING = 0.5  # drafted tokens that are expected to come true
OF_MODEL = ("all tokens of a draft model",)


class Speculation:
    """What one engine knows about guessing.

    sources: cheap ones, the first that has anything wins.  model: a source that takes time; it is asked for
    the sequences for which the others promise less than it has been giving.
    costs: of the engine's runner; None has them measured as soon as a draft is worth it, and `on_measured`
    is told.  draft_max: drafted tokens of a sequence in a step.  rule: how drafts are judged: by equality
    with the model's own draw (the same seed gives the same text), or by the rejection rules of rules.py,
    which keep more of a model's sampled draft.  least_gain: expected gain below which a step
    is plain; 0 drafts whatever is proposed.
    """

    def __init__(
        self,
        sources: Sequence[DraftSource],
        estimates: Estimates,
        *,
        model: DrawnSource | None = None,
        costs: StepCosts | None = None,
        on_measured: Callable[[StepCosts], None] = lambda costs: None,
        draft_max: int = DRAFT_MAX,
        rule: Rule = "equality",
        least_gain: float = LEAST_GAIN,
    ) -> None:
        if draft_max < 1:
            raise ValueError(f"draft_max: {draft_max}, and it must be at least 1")
        self.sources = list(sources)
        self.estimates = estimates
        self.model = model
        self.trial = Trial()
        self.budget = Budget()
        self.costs = costs
        self.wants_costs = False  # something promises enough to find out what steps cost
        self.most_nodes = MOST_NODES
        self._on_measured = on_measured
        self._draft_max = draft_max
        self.rule = rule
        self._least_gain = least_gain
        self._always = least_gain == 0
        self._known: list[TokenSequence] = []
        self._proposed: dict[int, Draft] = {}
        self._drafting_seconds, self._learning_seconds = 0.0, 0.0  # of the last step
        self._plain_seconds = 0.0  # what it would have taken without drafts
        self._modelled: set[int] = set()  # sequences that the model drafted for in this step
        self._proposing = False  # what a source has may be half done

    def measure(self, runner: Runner, blocks: list[int]) -> None:
        """Measure what steps cost, in a free block."""
        self.costs, self.wants_costs = measure(runner, blocks[0]), False
        self._on_measured(self.costs)

    def propose(self, sequences: Sequence[TokenSequence]) -> dict[int, Draft]:
        """What to verify in the next step, by id() of the sequences."""
        if self._proposing:
            self.restart()
        self._proposed, self._drafting_seconds, self._modelled = {}, 0.0, set()
        if not (sequences and self._may_look()):
            return {}
        self._proposing = True
        started = time.perf_counter()
        drafts = self._drafts(sequences)
        self._proposed = {id(sequence): draft for sequence, draft in zip(sequences, drafts, strict=True)}
        self._proposing = False
        self._drafting_seconds = time.perf_counter() - started
        if self.costs is None:
            sure = any(sum(draft.reach()) > _PROMISING for draft in drafts)
            self.wants_costs = sure or self.model is not None or self._always
            return {}
        if not any(map(len, drafts)):
            return {}
        if self._always:
            return {id(one): draft for one, draft in zip(sequences, drafts, strict=True) if len(draft)}
        kept = choose(drafts, len(sequences), self.costs, self._least_gain, self._may_lose())
        if self.rule != "equality":
            # To leave out a token for being unlikely, after it was drawn, would make it rarer in the text.
            kept = [_with_drawn(draft, nodes) for draft, nodes in zip(drafts, kept, strict=True)]
        return {
            id(sequence): draft.keep(nodes)
            for sequence, draft, nodes in zip(sequences, drafts, kept, strict=True)
            if nodes
        }

    def _drafts(self, sequences: Sequence[TokenSequence]) -> list[Draft]:
        """What the sources propose."""
        limits = [min(self._draft_max, sequence.remaining - 1) for sequence in sequences]
        if self.rule != "equality":  # what a grammar forces is drawn from no law that a rule could judge
            pairs = zip(sequences, limits, strict=True)
            limits = [0 if sequence.constraint is not None else limit for sequence, limit in pairs]
        drafts = [Draft() for _ in sequences]
        for source in self.sources:
            wanting = [index for index, draft in enumerate(drafts) if not len(draft)]
            _fill(source, wanting, sequences, limits, drafts)
        if self.model is None or self.costs is None or not (self.trial.is_on or self._always):
            return drafts
        wanting = [
            index
            for index, draft in enumerate(drafts)
            if limits[index] > 0 and promise(draft, self.costs) <= max(self.trial.gain, LEAST_GAIN)
        ]
        self.model.goes_on = self._goes_on(len(sequences))
        before = list(drafts)
        filled = _fill(self.model, wanting, sequences, limits, drafts)
        for index in filled:
            if self.rule != "block" and len(before[index]):
                drafts[index].merge(before[index])
        self._modelled = {id(sequences[index]) for index in filled}
        return drafts

    def _may_lose(self) -> float:
        """Plain steps; a draft model that is on answers for itself (`Trial`)."""
        return math.inf if self.model is not None and self.trial.is_on else self.budget.steps

    def _may_look(self) -> bool:
        return self._always or self.budget.may_look or (self.model is not None and self.trial.is_on)

    def _goes_on(self, sequences: int) -> Callable[[float, int], bool]:
        """Whether a draft model should guess one more: while that raises expected tokens by expected time.

        Of a chain of n tokens with the chance to be reached of its last; the next is expected to be as likely
        as the model's tokens have been.
        """
        if self._always:
            return lambda reach, length: True
        costs, model = self.costs, self.model
        assert costs is not None and model is not None

        def goes_on(reach: float, length: int) -> bool:
            chance = self.estimates.chance(OF_MODEL, prior=0.7)
            share = 1 / sequences
            # Two tokens ahead: the kernels' tiles make every second one nearly free (costs.py).
            further = (costs.of(sequences + length + 2) - costs.of(sequences + length)) / 2
            spent = length * model.step_seconds * share + costs.of(sequences + length) * share
            return reach * chance * spent > (model.step_seconds * share + further) * self._hoped(
                reach, length
            )

        return goes_on

    @staticmethod
    def _hoped(reach: float, length: int) -> float:
        """Expected tokens of a chain whose last node has this reach, if all its nodes were equally likely."""
        chance = float(reach ** (1 / length))
        return sum(chance**depth for depth in range(length + 1))

    def learn(self, step: Step, tokens: Sequence[Sequence[int]], seconds: float) -> None:
        """A step took so long and gave these tokens to its drawings."""
        started = time.perf_counter()
        for drawing, emitted in zip(step.drawings, tokens, strict=True):
            draft = self._proposed.get(id(drawing.sequence))
            if draft is not None:
                learn_from(self.estimates, draft, emitted)
                if id(drawing.sequence) in self._modelled:
                    _learn_overall(self.estimates, draft, emitted)
        if step.is_generation and not self._always:
            self._account(step, sum(map(len, tokens)), seconds)
            for drawing, emitted in zip(step.drawings, tokens, strict=True):
                drawing.sequence.plain_seconds += self._plain_seconds * len(emitted)
                drawing.sequence.step_seconds += seconds
        self._learning_seconds = time.perf_counter() - started

    def _account(self, step: Step, emitted: int, seconds: float) -> None:
        """What a step that gave so many tokens says of costs, and of what drafts are worth.

        `_plain_seconds` becomes what it would have taken without them: its own time, by the ratio of the two
        costs, so that whatever else is slow at the moment is slow in both.
        """
        native, count = seconds - self._drafting_seconds, len(step.drawings)
        overhead = self._drafting_seconds + self._learning_seconds
        if self.costs is None:
            self._plain_seconds = native
            self.budget.add_plain(overhead / native)
            return
        usual, expected = self.costs.of(count), self.costs.of(step.token_count)
        self._plain_seconds = native * usual / expected
        drafted = step.token_count > count
        if self._modelled:
            if self.model is not None and not self.model.caught_up:  # reading a prompt is paid once
                self.trial.observe(self._plain_seconds * emitted / count / seconds)
        else:
            self.trial.pass_by(emitted)
            if drafted:
                # A pause of the process is no fault of the draft.
                self.budget.add_drafted(emitted / count, min(seconds, 2 * expected) / usual)
            else:
                self.budget.add_plain(overhead / usual)
        self.costs.observe(step.token_count, native, plain=not drafted)

    def forget_all_but(self, sequences: Sequence[TokenSequence]) -> None:
        """These are all that live; what was kept for others is given back."""
        if self._known == sequences:
            return
        live = set(map(id, sequences))
        for sequence in self._known:
            if id(sequence) not in live:
                for source in self._all_sources():
                    source.forget(sequence)
        self._known = list(sequences)

    def _all_sources(self) -> list[DraftSource]:
        return [*self.sources, self.model] if self.model is not None else self.sources

    def restart(self) -> None:
        """After an interrupt: whatever is known of sequences may be half of it."""
        for source in self._all_sources():
            source.restart()
        self._proposed, self._proposing = {}, False


def _fill(
    source: DraftSource,
    wanting: Sequence[int],
    sequences: Sequence[TokenSequence],
    limits: Sequence[int],
    drafts: list[Draft],
) -> list[int]:
    """What a source proposes for some of the sequences takes the place of their drafts, if it is anything;
    for which it did."""
    if not wanting:
        return []
    proposals = source.propose([sequences[i] for i in wanting], [limits[i] for i in wanting])
    for index, draft in zip(wanting, proposals, strict=True):
        if len(draft):
            drafts[index] = _admissible(sequences[index], draft)
    return [index for index, draft in zip(wanting, proposals, strict=True) if len(draft)]


def _with_drawn(draft: Draft, nodes: Sequence[int]) -> list[int]:
    """These nodes and all that were drawn from a law."""
    return sorted({*nodes, *(node for node, law in enumerate(draft.laws) if law is not None)})


def _learn_overall(estimates: Estimates, draft: Draft, emitted: Sequence[int]) -> None:
    """How often a draft model's tokens are right, whatever it said of itself."""
    for token, drawn in zip(draft.tokens, emitted, strict=False):
        estimates.learn(OF_MODEL, token == drawn)
        if token != drawn:
            return


def _admissible(sequence: TokenSequence, draft: Draft) -> Draft:
    """Without what cannot be: tokens after the text's end, or outside its grammar."""
    kept: list[int] = []
    for node, parent in enumerate(draft.parents):
        if parent != ROOT and (parent not in kept or draft.tokens[parent] in sequence.end_ids):
            continue
        if sequence.constraint is not None:
            path = draft.before(node)
            if sequence.constraint.admissible(sequence.generated, path) < len(path):
                continue
        kept.append(node)
    return draft if len(kept) == len(draft) else draft.keep(kept)
