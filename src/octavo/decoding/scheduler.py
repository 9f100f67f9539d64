"""Which new tokens run in the next step: continuous batching over a paged KV cache.

A sequence has tokens, and a number of them whose keys and values are in the cache.  What is not there yet is
to be run: one token of a generation, a chunk of a prompt, or everything again after a preemption.  There is
no other difference between prompt and generation (Yu et al. 2022, Orca; Agrawal et al. 2023, Sarathi: chunked
prefills).

Sequences stand in order of arrival; the first `running` of them hold blocks and a row of the block tables,
the rest wait.  Generations go first in a step, prompts share what is left of its tokens.  When blocks run
out, the youngest running sequence gives its own back and waits: the oldest always gets on, so every sequence
ends.

S: rows of the block tables, B: blocks of the pool, T: new tokens of a step, R: outputs of a step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from octavo.decoding.kv_cache import BlockAllocator, blocks_for
from octavo.decoding.runner import Runner
from octavo.decoding.sequences import Drawing, Step, TokenSequence
from octavo.decoding.speculation.branches import MOST_BRANCHES, Branch, blocks_of_branch, chain_of, fork
from octavo.decoding.speculation.draft import NO_DRAFT, ROOT, Draft


class Scheduler:
    """Chooses the tokens of each step and keeps the block tables, for one thread at a time.

    After an exception in the middle of anything here or of a step, `restart` makes the state whole again: the
    tokens of the sequences are the truth, and whatever the cache holds is computed anew.
    """

    def __init__(self, runner: Runner, max_sequences: int, max_drafted: int = 0) -> None:
        if max_sequences < 1:
            raise ValueError(f"max_sequences: {max_sequences}, and it must be at least 1")
        self.block_size = runner.block_size
        self.max_step_tokens = runner.max_step_tokens
        self.max_sequences = min(max_sequences, runner.max_step_tokens)
        self.allocator = BlockAllocator(runner.block_count)
        rows = self.max_sequences + (MOST_BRANCHES if max_drafted else 0)
        self.block_tables = np.zeros((rows, runner.block_count), np.int32)
        self.adapters = np.full(rows, -1, np.int32)  # of each row of the block tables
        self.sequences: list[TokenSequence] = []
        self.running = 0
        self._free_rows = list(range(self.max_sequences - 1, -1, -1))
        self._branch_rows = list(range(self.max_sequences, rows))
        self.max_outputs = min(self.max_step_tokens, self.max_sequences + max_drafted)
        self._step = Step(self.max_step_tokens, self.max_outputs)
        self._begun = self._step_seconds = 0.0  # of the step that runs; of the one before

    @property
    def capacity(self) -> int:
        """Tokens that one sequence can have in the cache when it has all blocks."""
        return self.allocator.block_count * self.block_size

    def add(self, sequence: TokenSequence) -> None:
        """Let a sequence wait for its turn; it fits the capacity."""
        self.sequences.append(sequence)

    def generating(self) -> list[TokenSequence]:
        """The running sequences that will get tokens from the next step."""
        return [
            sequence
            for sequence in self.sequences[: self.running]
            if sequence.length - sequence.cached == 1 and not (sequence.ended or sequence.abandoned)
        ]

    def next_step(self, now: float, drafts: Mapping[int, Draft] | None = None) -> Step:
        """The next step's tokens, at the time `now`; at least one where any sequence is unfinished.

        drafts: by id() of their sequences; what has no room in the step or the cache is left out.
        """
        self._drop_finished()
        self._grow_generations()
        self._admit(now)
        step = self._step
        step.clear()
        self._begun = now
        for sequence in self.sequences[: self.running]:
            sequence.closing = "deadline" if now + self._step_seconds >= sequence.deadline else None
        generating = [s for s in self.sequences[: self.running] if s.length - s.cached == 1]
        room = min(self.max_step_tokens, self.max_outputs) - len(generating)
        for sequence in generating:
            step.add(sequence, 1)
            draft, branches = self._fitting(sequence, (drafts or {}).get(id(sequence), NO_DRAFT), room)
            step.draw(sequence, draft, branches)
            room -= len(draft)
        for sequence in self.sequences[: self.running]:
            pending = sequence.length - sequence.cached
            count = min(pending, self.max_step_tokens - step.token_count)
            if pending > 1 and count > 0:
                step.add(sequence, count)
                if count == pending:
                    step.draw(sequence, NO_DRAFT)
        return step

    def _fitting(self, sequence: TokenSequence, draft: Draft, room: int) -> tuple[Draft, list[Branch]]:
        """As much of a draft as finds room without a block of another sequence, and its branches."""
        if not len(draft):
            return draft, []
        trunk = len(draft.chains()[0])
        spare = max(self.allocator.free_count - self.running, 0)
        places = (len(sequence.blocks) + spare) * self.block_size - sequence.length
        count = max(min(trunk, room, places, sequence.remaining - 1), 0)
        missing = blocks_for(sequence.length + count, self.block_size) - len(sequence.blocks)
        if missing > 0:
            self._give(sequence, missing)
        if count < trunk or trunk == len(draft):
            return (draft if count == len(draft) else draft.keep(range(count))), []
        draft = self._with_rows(sequence, draft, room)
        return draft, self._fork(sequence, draft)

    def _with_rows(self, sequence: TokenSequence, draft: Draft, room: int) -> Draft:
        """Without the branches for which rows, blocks or places are missing."""
        trunk, *chains = draft.chains()
        kept, rows = list(trunk), len(self._branch_rows)
        spare = self.allocator.free_count - self.running
        for chain in chains:
            _, needed = blocks_of_branch(draft, chain, sequence.length, self.block_size)
            deepest = len(draft.path(chain.stop - 1))
            fits = rows > 0 and needed <= spare and len(kept) + len(chain) <= room
            if fits and deepest < sequence.remaining and draft.parents[chain.start] in (ROOT, *kept):
                kept += chain
                rows, spare = rows - 1, spare - needed
        return draft if len(kept) == len(draft) else draft.keep(kept)

    def _fork(self, sequence: TokenSequence, draft: Draft) -> list[Branch]:
        tables, branches = [sequence.blocks], []
        for chain in draft.chains()[1:]:
            _, needed = blocks_of_branch(draft, chain, sequence.length, self.block_size)
            own, row = self.allocator.allocate(needed), self._branch_rows.pop()
            self.adapters[row] = sequence.adapter
            branch = fork(draft, chain, sequence.length, self.block_size, tables, own, row)
            self.block_tables[row, : len(branch.table)] = branch.table
            tables.append(branch.table)
            branches.append(branch)
        return branches

    def _join(self, drawing: Drawing) -> None:
        """Keep the blocks of the branch that came true, or of the trunk."""
        sequence = drawing.sequence
        tables = [sequence.blocks, *(branch.table for branch in drawing.branches)]
        kept = tables[chain_of(drawing.draft, drawing.accepted)]
        self.allocator.release({block for table in tables for block in table} - set(kept))
        self._branch_rows += [branch.row for branch in drawing.branches]
        sequence.blocks = kept
        self.block_tables[sequence.row, : len(kept)] = kept

    def commit(self, step: Step, tokens: Sequence[Sequence[int]], now: float) -> None:
        """The step is done: its tokens are in the cache, and `tokens` follow for each drawing.  None is taken
        for the finished.  Keys and values of drafted tokens stay where those came true."""
        self._step_seconds = now - self._begun
        for sequence, count in step.participants:
            sequence.cached += count
        for drawing, drawn in zip(step.drawings, tokens, strict=True):
            sequence = drawing.sequence
            accepted = len(drawing.draft.path(drawing.accepted))
            sequence.drafted += len(drawing.draft)
            sequence.accepted += accepted
            sequence.count_depths(accepted, tried=accepted + bool(drawing.draft.children(drawing.accepted)))
            for token in drawn:
                if not sequence.ended:
                    sequence.append(token, now)
            if sequence.closing and not sequence.ended:
                sequence.finish_reason = sequence.closing
            sequence.cached = min(sequence.cached + accepted, sequence.length - 1)
            if drawing.branches:
                self._join(drawing)

    def restart(self) -> None:
        """Trust nothing but the sequences' tokens: all wait, and all blocks are free."""
        self.allocator.reset()
        self.adapters[:] = -1
        self._free_rows = list(range(self.max_sequences - 1, -1, -1))
        self._branch_rows = list(range(self.max_sequences, len(self.block_tables)))
        self.running = 0
        for sequence in self.sequences:
            sequence.settle()
            sequence.blocks, sequence.row, sequence.cached = [], -1, 0

    def take_blocks(self, count: int) -> list[int]:
        """Blocks for a use outside of the sequences; running ones give theirs up where needed."""
        self._drop_finished()
        while self.allocator.free_count < count and self.running:
            self._preempt_youngest()
        return self.allocator.allocate(count)

    def _drop_finished(self) -> None:
        unfinished = [sequence for sequence in self.sequences if not (sequence.ended or sequence.abandoned)]
        if len(unfinished) == len(self.sequences):
            return
        kept = set(map(id, unfinished))
        for sequence in self.sequences[: self.running]:
            if id(sequence) not in kept:
                self._take_back(sequence)
        self.running = sum(sequence.row >= 0 for sequence in unfinished)
        self.sequences = unfinished

    def _grow_generations(self) -> None:
        """A block more for each sequence whose next token has no place, the oldest first."""
        index = 0
        while index < self.running:
            sequence = self.sequences[index]
            missing = blocks_for(sequence.length, self.block_size) - len(sequence.blocks)
            while missing > self.allocator.free_count and index < self.running:
                self._preempt_youngest()
            if missing > 0 and index < self.running:
                self._give(sequence, missing)
            index += 1

    def _admit(self, now: float) -> None:
        """Waiting sequences in order of arrival, each with blocks for all of its tokens."""
        while self.running < len(self.sequences) and self._free_rows:
            sequence = self.sequences[self.running]
            needed = blocks_for(sequence.length, self.block_size)
            # One block more than a newcomer needs stays free for those who run, so that it is not sent away
            # again at the next token.
            if self.allocator.free_count < needed + (1 if self.running else 0):
                return
            sequence.row = self._free_rows.pop()
            self.adapters[sequence.row] = sequence.adapter
            sequence.started = sequence.started or now
            self._give(sequence, needed)
            self.running += 1

    def _give(self, sequence: TokenSequence, count: int) -> None:
        blocks = self.allocator.allocate(count)
        begin = len(sequence.blocks)
        self.block_tables[sequence.row, begin : begin + count] = blocks
        sequence.blocks += blocks

    def _preempt_youngest(self) -> None:
        sequence = self.sequences[self.running - 1]
        self.running -= 1
        self._take_back(sequence)

    def _take_back(self, sequence: TokenSequence) -> None:
        self.allocator.release(sequence.blocks)
        self._free_rows.append(sequence.row)
        self.adapters[sequence.row] = -1
        sequence.blocks, sequence.row, sequence.cached = [], -1, 0
