"""Drafts for the sequences of each step: sources propose, the controller chooses, outcomes are learnt.

Nothing here can change a text (verification.py); it can only make it slower, which the controller's costs
and estimates prevent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from octavo.decoding.runner import Runner
from octavo.decoding.scheduler import Step, TokenSequence
from octavo.decoding.speculation.controller import LEAST_GAIN, Estimates, choose, learn_from
from octavo.decoding.speculation.costs import StepCosts, measure
from octavo.decoding.speculation.draft import ROOT, Draft, DraftSource

MOST_NODES = 64  # of a step, all sequences together
DRAFT_MAX = 16  # of a sequence in a step


class Speculation:
    """What one engine knows about guessing.

    sources: the first that is sure enough wins.  costs: of the engine's runner; None has them measured when
    the first sequence generates, and `on_measured` is told.  draft_max: drafted tokens of a sequence in a
    step.  least_gain: expected gain below which a step is plain; 0 drafts whatever is proposed.
    """

    def __init__(
        self,
        sources: Sequence[DraftSource],
        estimates: Estimates,
        *,
        costs: StepCosts | None = None,
        on_measured: Callable[[StepCosts], None] = lambda costs: None,
        draft_max: int = DRAFT_MAX,
        least_gain: float = LEAST_GAIN,
    ) -> None:
        if draft_max < 1:
            raise ValueError(f"draft_max: {draft_max}, and it must be at least 1")
        self.sources = list(sources)
        self.estimates = estimates
        self.costs = costs
        self.most_nodes = MOST_NODES
        self._on_measured = on_measured
        self._draft_max = draft_max
        self._least_gain = least_gain
        self._known: list[TokenSequence] = []
        self._proposed: dict[int, Draft] = {}
        self._proposing = False  # what a source has may be half done

    def measure(self, runner: Runner, blocks: list[int]) -> None:
        """Measure what steps cost, in a free block."""
        self.costs = measure(runner, blocks[0])
        self._on_measured(self.costs)

    def propose(self, sequences: Sequence[TokenSequence]) -> dict[int, Draft]:
        """What to verify in the next step, by id() of the sequences."""
        if self._proposing:
            self.restart()
        self._proposed = {}
        if self.costs is None or not sequences:
            return {}
        self._proposing = True
        limits = [min(self._draft_max, sequence.remaining - 1) for sequence in sequences]
        drafts = [Draft() for _ in sequences]
        for source in self.sources:
            wanting = [index for index, draft in enumerate(drafts) if not len(draft)]
            proposals = source.propose([sequences[i] for i in wanting], [limits[i] for i in wanting])
            for index, draft in zip(wanting, proposals, strict=True):
                drafts[index] = _admissible(sequences[index], draft)
        self._proposed = {id(sequence): draft for sequence, draft in zip(sequences, drafts, strict=True)}
        self._proposing = False
        kept = choose(drafts, len(sequences), self.costs, self._least_gain)
        return {
            id(sequence): draft.keep(nodes)
            for sequence, draft, nodes in zip(sequences, drafts, kept, strict=True)
            if nodes
        }

    def learn(self, step: Step, tokens: Sequence[Sequence[int]], seconds: float) -> None:
        """A step took so long and gave these tokens to its drawings."""
        for drawing, emitted in zip(step.drawings, tokens, strict=True):
            draft = self._proposed.get(id(drawing.sequence))
            if draft is not None:
                learn_from(self.estimates, draft, emitted)
        if self.costs is None or not step.is_generation:
            return
        plain = self.costs.of(len(step.drawings))
        for drawing, emitted in zip(step.drawings, tokens, strict=True):
            drawing.sequence.plain_seconds += plain * len(emitted)
            drawing.sequence.step_seconds += seconds
        self.costs.observe(step.token_count, seconds)

    def forget_all_but(self, sequences: Sequence[TokenSequence]) -> None:
        """These are all that live; what was kept for others is given back."""
        if self._known == sequences:
            return
        live = set(map(id, sequences))
        for sequence in self._known:
            if id(sequence) not in live:
                for source in self.sources:
                    source.forget(sequence)
        self._known = list(sequences)

    def restart(self) -> None:
        """After an interrupt: whatever is known of sequences may be half of it."""
        for source in self.sources:
            source.restart()
        self._proposed, self._proposing = {}, False


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
