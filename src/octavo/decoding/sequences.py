"""A sequence of tokens, and the arrays of a step over several of them.

T: new tokens of a step, R: outputs of a step, S: rows of the block tables.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from octavo.decoding.constraints.constraint import Constraint
from octavo.decoding.sampling import SamplingOptions
from octavo.decoding.speculation.branches import Branch
from octavo.decoding.speculation.draft import ROOT, Draft

FinishReason = Literal["length", "stop", "deadline", "cancelled"]


@dataclass(slots=True, eq=False)
class TokenSequence:
    """A prompt and what was generated after it.

    ids: int32, prompt and generated tokens, with room for all that may come.  length: how many there are.
    cached: how many have keys and values in the cache.  row: of the block tables, -1 while it waits.
    constraint: the grammar that its text is within.  adapter: the runner's number of it, -1 for none.
    error: why it ended without a token, for its owner.  abandoned: nobody can ask for its tokens any more.
    deadline: the time at which it should have ended.  closing: why the step that runs is its last.
    is_prepared: its constraint is there; before, it is not among the scheduler's.
    submitted, started, first_token, last_token: times in seconds; 0 before.
    drafted, accepted: tokens that were guessed and verified, and those of them that were right.
    depths: for each depth of a draft, how often all before it were right, and how often it was too.
    saved_seconds: by drafts, measured by what steps without them take.
    earned_steps: what drafts have gained it, in plain steps (speculation/budget.py).
    """

    ids: NDArray[np.int32]
    prompt_length: int
    options: SamplingOptions
    seed: int
    end_ids: Collection[int]
    submitted: float
    length: int
    cached: int = 0
    row: int = -1
    blocks: list[int] = field(default_factory=list)
    generated: list[int] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    constraint: Constraint | None = None
    adapter: int = -1
    error: Exception | None = None
    abandoned: bool = False
    deadline: float = math.inf
    closing: Literal["length", "deadline"] | None = None
    is_prepared: bool = True
    started: float = 0.0
    first_token: float = 0.0
    last_token: float = 0.0
    drafted: int = 0
    accepted: int = 0
    depths: list[list[int]] = field(default_factory=list)
    saved_seconds: float = 0.0
    earned_steps: float = 0.0

    @property
    def ended(self) -> bool:
        """Whether it gets no more tokens."""
        return self.finish_reason is not None or self.error is not None

    def recent(self, drafted: Sequence[int] = ()) -> NDArray[np.int32]:
        """The tokens that penalties count, none where there are no penalties, after `drafted` ones too."""
        if not self.options.has_penalties:
            return self.ids[:0]
        window = self.options.penalty_window
        ids = self.ids[0 if window < 0 else max(0, self.length - window) : self.length]
        if not drafted:
            return ids
        ids = np.concatenate([ids, np.array(drafted, np.int32)])
        return ids if window < 0 else ids[max(0, len(ids) - window) :]

    def begin(self, tokens: Sequence[int]) -> None:
        """Tokens that follow the prompt without being drawn."""
        for token in tokens:
            self.ids[self.prompt_length + len(self.generated)] = token
            self.generated.append(token)
        self.settle()

    def append(self, token: int, now: float) -> None:
        """Commit a token that was drawn."""
        self.first_token = self.first_token or now
        self.last_token = now
        self.ids[self.length] = token
        self.generated.append(token)
        self.settle()

    def count_depths(self, accepted: int, tried: int) -> None:
        """A draft was right as far as `accepted`, and was there as far as `tried`."""
        while len(self.depths) < tried:
            self.depths.append([0, 0])
        for depth in range(tried):
            self.depths[depth][0] += 1
            self.depths[depth][1] += depth < accepted

    @property
    def remaining(self) -> int:
        """How many more tokens there is room for."""
        return len(self.ids) - self.length

    def settle(self) -> None:
        """Make all else follow from `generated`: an interrupt may have come right after it grew."""
        self.length = self.prompt_length + len(self.generated)
        if self.ended or not self.generated:
            return
        if self.generated[-1] in self.end_ids:
            self.finish_reason = "stop"
        elif self.length == len(self.ids):
            self.finish_reason = "length"
        elif self.constraint is not None and self.constraint.finished(self.generated):
            self.finish_reason = (self.closing or "length") if self.constraint.shortened else "stop"


@dataclass(slots=True)
class Drawing:
    """A sequence that gets tokens from a step.

    rows: of the outputs, the one after its last token, then one for each node of its draft.
    branches: of the draft, where it is a tree.
    accepted: the deepest node of the draft that came true, or ROOT.
    """

    sequence: TokenSequence
    draft: Draft
    rows: range
    branches: list[Branch]
    accepted: int = ROOT


class Step:
    """The arrays of one step, made once and filled again for each.

    participants: sequences of the step and how many new tokens of each run, in the order of the arrays.
    drawings: those of them that get tokens.  outputs: one for each row that is drawn from, output_count.
    copies, shares: what branches of drafts need before and in the native step (speculation/branches.py).
    """

    def __init__(self, max_tokens: int, max_outputs: int) -> None:
        self.tokens = np.zeros(max_tokens, np.int32)
        self.positions = np.zeros(max_tokens, np.int32)
        self.rows = np.zeros(max_tokens, np.int32)
        self.outputs = np.zeros(max_outputs, np.int32)
        self.clear()

    def clear(self) -> None:
        self.token_count = 0
        self.output_count = 0
        self.participants: list[tuple[TokenSequence, int]] = []
        self.drawings: list[Drawing] = []
        self.copies: list[tuple[int, int]] = []
        self.shares: list[tuple[int, int]] = []

    @property
    def is_generation(self) -> bool:
        """Whether it holds nothing but next tokens and their drafts."""
        return self.token_count == self.output_count

    def add(self, sequence: TokenSequence, count: int) -> None:
        """The next `count` tokens of a sequence."""
        cached = sequence.cached
        self._append(sequence.ids[cached : cached + count], cached, sequence.row)
        self.participants.append((sequence, count))

    def draw(self, sequence: TokenSequence, draft: Draft, branches: Sequence[Branch] = ()) -> None:
        """The sequence, whose last tokens were added, gets tokens; those of the draft run with them."""
        first, last = self.output_count, self.token_count - 1
        tokens = np.array(draft.tokens, np.int32)
        trunk = draft.chains()[0]
        self._append(tokens[: trunk.stop], sequence.length, sequence.row)
        for branch in branches:
            depth = len(draft.path(branch.chain.start)) - 1
            part = tokens[branch.chain.start : branch.chain.stop]
            self._append(part, sequence.length + depth, branch.row)
            self.copies += branch.copies
            self.shares += [(last + place, branch.row) for place in branch.shared]
        self.output_count = first + 1 + len(draft)
        self.outputs[first : self.output_count] = np.arange(last, self.token_count)
        rows = range(first, self.output_count)
        self.drawings.append(Drawing(sequence, draft, rows, list(branches)))

    def _append(self, tokens: NDArray[np.int32], position: int, row: int) -> None:
        begin, end = self.token_count, self.token_count + len(tokens)
        self.tokens[begin:end] = tokens
        self.positions[begin:end] = np.arange(position, position + len(tokens), dtype=np.int32)
        self.rows[begin:end] = row
        self.token_count = end


def step_extras(
    shares: NDArray[np.int32] | None,
    adapters: NDArray[np.int32],
    hidden: NDArray[np.float32] | None = None,
) -> tuple[Any, ...]:
    """What `Runner.step` is given after the logits: nothing where there are no branches and no adapters, and
    nobody reads hidden states."""
    if (adapters >= 0).any():
        return hidden, shares, adapters
    if shares is not None:
        return hidden, shares
    return () if hidden is None else (hidden,)
