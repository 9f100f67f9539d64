"""Draft sources for tests: they guess right as often as they are told to, and cannot know how."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from octavo.decoding.engine import Engine
from octavo.decoding.sequences import TokenSequence
from octavo.decoding.speculation.controller import Estimates
from octavo.decoding.speculation.costs import StepCosts
from octavo.decoding.speculation.draft import ROOT, Draft
from octavo.decoding.speculation.speculation import Speculation

Texts = dict[bytes, list[int]]  # prompt -> the answer that plain decoding gave


class Oracle:
    """Proposes the true continuation with some tokens changed.  trees: adds wrong and right branches."""

    name = "oracle"

    def __init__(self, texts: Texts, acceptance: float, vocabulary: int, *, trees: bool = False) -> None:
        self._texts = texts
        self._acceptance = acceptance
        self._vocabulary = vocabulary
        self._trees = trees
        self._generator = np.random.default_rng(1)

    def propose(self, sequences: Sequence[TokenSequence], limits: Sequence[int]) -> list[Draft]:
        return [self._propose(sequence, limit) for sequence, limit in zip(sequences, limits, strict=True)]

    def _propose(self, sequence: TokenSequence, limit: int) -> Draft:
        draft = Draft()
        answer = self._texts.get(sequence.ids[: sequence.prompt_length].tobytes(), [])
        true = answer[len(sequence.generated) :][:limit]
        self._chain(draft, ROOT, true, limit)
        while self._trees and 0 < len(draft) < limit:
            parent = int(self._generator.integers(-1, len(draft)))
            depth = len(draft.path(parent))
            taken = {draft.tokens[child] for child in draft.children(parent)}
            on_path = draft.before(parent) == true[:depth]
            follows = true[depth:] if on_path and depth < len(true) and true[depth] not in taken else []
            if not follows:
                fresh = [token for token in range(self._vocabulary) if token not in taken]
                follows = [int(self._generator.choice(fresh))] if fresh else []
            if parent == len(draft) - 1 or not follows:
                continue
            self._chain(draft, parent, follows, min(limit, len(draft) + 3))
        return draft

    def _chain(self, draft: Draft, parent: int, tokens: Sequence[int], limit: int) -> None:
        for token in tokens:
            if len(draft) >= limit:
                return
            if self._generator.random() > self._acceptance:
                token = int(self._generator.integers(self._vocabulary))
            if token in [draft.tokens[child] for child in draft.children(parent)]:
                return
            parent = draft.add(token, parent, 0.9, ("oracle",))

    def forget(self, sequence: TokenSequence) -> None:
        pass

    def restart(self) -> None:
        pass


def speculation_of(*sources: object, draft_max: int = 8) -> Speculation:
    """Drafts whatever the sources propose."""
    return Speculation(
        list(sources),  # type: ignore[arg-type]
        Estimates(),
        costs=StepCosts.linear(1.0, 1e-6),
        draft_max=draft_max,
        least_gain=0.0,
    )


def run(engine: Engine, submit: Sequence[Callable[[Engine], object]]) -> list[list[int]]:
    """All generations together, in turns."""
    generations = [one(engine) for one in submit]
    for generation in generations:
        list(generation)  # type: ignore[call-overload]
    return [generation.tokens for generation in generations]  # type: ignore[attr-defined]
