"""Drafts for the sequences of each step: sources propose, the controller chooses, outcomes are learnt.

Nothing here can change a text (verification.py); it can only make it slower, which the controller's costs
and estimates prevent.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Literal

from octavo.decoding.runner import Runner
from octavo.decoding.sequences import Drawing, Step, TokenSequence
from octavo.decoding.speculation.budget import (
    FIRST_STEPS,
    Trial,
    earn,
    failing,
    looking,
    spare_steps,
    trust,
)
from octavo.decoding.speculation.controller import (
    LEAST_GAIN,
    Estimates,
    Outlook,
    choose,
    learn_from,
    promise,
)
from octavo.decoding.speculation.costs import StepCosts, measure
from octavo.decoding.speculation.draft import ROOT, Draft, DraftSource
from octavo.decoding.speculation.drawn import FEW, DrawnSource

MOST_NODES = 64  # of a step, all sequences together
DRAFT_MAX = 16  # of a sequence in a step
Rule = Literal["equality", "token", "block"]
_PROMISING = 0.5  # drafted tokens that are expected to come true
OF_MODEL = ("all tokens of a draft model",)
_CHANCE_OF_MODEL = 0.7  # before anything was seen
_UNGUESSED = ("tokens that no cheap source had",)
_SHARE_UNGUESSED = 0.8  # before anything was seen
# After a prompt, steps were seen to take up to half as long again on a Xeon with AMX,
# for 25 ms: that says nothing of drafts.
_SETTLING_SECONDS = 0.03
_TEXT_TOKENS, _TEXT_WEIGHT = 128.0, 0.1  # of an answer, before any has ended


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
        self.looking, self.failing = looking(), failing()
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
        self._looked = False  # for drafts, in the last step
        # Steps without looking for drafts: still to come, and since the last look.
        self._resting, self._rested = 0, 0
        self._settled = 0.0  # when the time of steps says something again
        self._text_tokens = _TEXT_TOKENS  # of answers that have ended, a running mean
        self._modelled: set[int] = set()  # sequences that the model drafted for in this step
        self._proposing = False  # what a source has may be half done

    def measure(self, runner: Runner, blocks: list[int]) -> None:
        """Measure what steps cost, in a free block."""
        self.costs, self.wants_costs = measure(runner, blocks[0]), False
        self._on_measured(self.costs)

    def rests(self) -> bool:
        """Whether nobody is to look for drafts in the next step.  Such a step does no more than ask: beside a
        small model even some microseconds of Python between two steps are seen."""
        if self._resting == 0:
            return False
        self._resting -= 1
        self._rested += 1
        self._looked = False
        return True

    def propose(self, sequences: Sequence[TokenSequence]) -> dict[int, Draft]:
        """What to verify in the next step, by id() of the sequences."""
        if self._proposing:
            self.restart()
        self._proposed, self._drafting_seconds, self._modelled = {}, 0.0, set()
        self._looked = bool(sequences)
        if not self._looked:
            return {}
        for allowance in (self.looking, self.failing):
            allowance.add(steps=self._rested)
        self._rested = 0
        self._proposing = True
        started = time.perf_counter()
        costs = None if self._always else self.costs
        self.estimates.least_chance = (
            0.0 if costs is None else costs.least_chance(len(sequences), self._least_gain)
        )
        drafts = self._drafts(sequences)
        pairs = zip(sequences, drafts, strict=True)
        self._proposed = {id(sequence): draft for sequence, draft in pairs if len(draft)}
        self._proposing = False
        self._drafting_seconds = time.perf_counter() - started
        if self.costs is None:
            sure = any(sum(draft.reach()) > _PROMISING for draft in drafts)
            self.wants_costs = sure or self.model is not None or self._always
            return {}
        if self._always or not self._proposed:
            return self._proposed
        if not self.costs.are_current:
            return {}
        # A draft model that is on answers for itself (`Trial`).
        texts = [] if self._modelled else sequences
        together = self.failing.spare
        spare = [spare_steps(text.earned_steps, len(text.generated), together) for text in texts]
        kept = choose(drafts, len(sequences), self.costs, self._least_gain, spare, trust(together))
        taken, most = (len(sequences) + sum(map(len, nodes)) for nodes in (kept, drafts))
        if taken < most and all(
            FIRST_STEPS <= steps for steps in spare
        ):  # it was the price, and a try can be paid
            self.costs.doubt(taken, most)
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
        if self.model is None or self.costs is None:
            return drafts
        if not (self._always or (self.trial.is_on and self.costs.are_current)):
            return drafts
        self.model.measure()
        outlook = self._outlook(len(sequences), self.costs)
        gain = max(outlook.gain, LEAST_GAIN)
        wanting = [
            index
            for index, draft in enumerate(drafts)
            if limits[index] > 0 and (self._always or promise(draft, self.costs, len(sequences)) <= gain)
        ]
        if not self._always:
            wanting = [wanting[place] for place in outlook.going_on([1.0] * len(wanting))]
            wanting = [index for index in wanting if self._pays_reading(sequences[index])]
        self.model.outlook = None if self._always else outlook
        before = list(drafts)
        filled = _fill(self.model, wanting, sequences, limits, drafts)
        for index in filled:
            if self.rule != "block" and len(before[index]):
                drafts[index].merge(before[index])
        self._modelled = {id(sequences[index]) for index in filled}
        return drafts

    def _outlook(self, sequences: int, costs: StepCosts) -> Outlook:
        assert self.model is not None
        chance = self.estimates.chance(OF_MODEL, prior=_CHANCE_OF_MODEL)
        return Outlook(sequences, costs, self.model.step_seconds, chance, self._least_gain)

    def _pays_reading(self, sequence: TokenSequence) -> bool:
        """Whether what a model has to read of a text before it drafts, and of what others will draft, takes
        less than it saves in the tokens that are still to come.

        Texts end by chance, so those are as many as answers have had; all that live soon share the steps.
        """
        assert self.costs is not None and self.model is not None
        behind = self.model.behind(sequence)
        if behind <= FEW:
            return True
        together = max(len(self._known), 1)
        costs = self.costs.without_doubt()
        gain = self._outlook(together, costs).gain
        alone = self.estimates.chance(_UNGUESSED, prior=_SHARE_UNGUESSED)
        saved = alone * (1 - 1 / gain) * costs.of(together) / together
        read = self.model.reading_seconds
        tokens = min(sequence.remaining, self._text_tokens)
        return tokens * (saved - (1 - alone) * read) > behind * read + self.trial.owed_seconds

    def learn(self, step: Step, tokens: Sequence[Sequence[int]], seconds: float) -> None:
        """A step took so long and gave these tokens to its drawings."""
        if not step.is_generation:
            self._settled = time.perf_counter() + _SETTLING_SECONDS
        if not self._looked:  # a text for which nobody looks for drafts must not pay for accounts either
            return
        started = time.perf_counter()
        tells = started - seconds >= self._settled
        if self._proposed or self.model is not None:
            for drawing, emitted in zip(step.drawings, tokens, strict=True):
                self._learn_outcome(drawing, emitted)
        if step.is_generation and not self._always:
            self._account(step, tokens, seconds, tells)
            if self.model is None or not self.trial.is_on:
                self._resting = self.looking.rest
        self._learning_seconds = time.perf_counter() - started

    def _learn_outcome(self, drawing: Drawing, emitted: Sequence[int]) -> None:
        key = id(drawing.sequence)
        draft = self._proposed.get(key)
        if draft is not None:
            learn_from(self.estimates, draft, emitted)
        if self.model is None:
            return
        if draft is not None and key in self._modelled:
            _learn_overall(self.estimates, draft, emitted)
        guessed = len(drawing.draft) > 0 and key not in self._modelled
        for _ in emitted:
            self.estimates.learn(_UNGUESSED, not guessed)

    def _account(self, step: Step, tokens: Sequence[Sequence[int]], seconds: float, tells: bool) -> None:
        """What a step says of costs, if its time tells anything, and of what drafts are worth.

        What it would have taken without them is its own time, by the ratio of the two costs, so that whatever
        else is slow at the moment is slow in both.
        """
        native, count, emitted = seconds - self._drafting_seconds, len(step.drawings), sum(map(len, tokens))
        overhead, drafted = self._drafting_seconds + self._learning_seconds, step.token_count > count
        if self.costs is None:
            self.looking.add(overhead / native)
            return
        usual, expected = self.costs.of(count), self.costs.of(step.token_count)
        if tells:
            self.costs.observe(step.token_count, native, plain=not drafted)
        plain_seconds = native * usual / expected
        if self._modelled and self.model is not None:
            reading = self.model.last_reading_seconds
            self.trial.observe(plain_seconds * emitted / count, seconds - reading, reading)
        else:
            self.trial.pass_by(emitted, native)
            self.estimates.doubt(OF_MODEL)
            gained = emitted / count - expected / usual
            self.looking.add(overhead / usual, max(gained, 0.0))
        if not (drafted or self._modelled):
            self.failing.add()
            return
        # A pause of the process is no fault of the draft.
        steps = (min(seconds, 2 * expected) if tells else expected) / usual
        if not self._modelled:  # the model's own loss is bounded by its trial
            self.failing.add(spent=steps - 1, gained=emitted / count - 1)
        for drawing, new in zip(step.drawings, tokens, strict=True):
            sequence = drawing.sequence
            sequence.saved_seconds += plain_seconds * len(new) - seconds
            if not self._modelled:
                sequence.earned_steps = earn(sequence.earned_steps, len(new), steps)

    def forget_all_but(self, sequences: Sequence[TokenSequence]) -> None:
        """These are all that live; what was kept for others is given back."""
        if self._known == sequences:
            return
        live = set(map(id, sequences))
        for sequence in self._known:
            if id(sequence) not in live:
                self._text_tokens += _TEXT_WEIGHT * (len(sequence.generated) - self._text_tokens)
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
    """What a source proposes takes the place of the sequences' drafts; those for which it had something."""
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
