"""Trees of drafts in a paged cache: a branch is a fork of the block table.

The branch has a row of the block tables of its own.  It shares the trunk's blocks before the one that it
begins in; from there on it has its own, with a copy of what the first of them held.  What the branch's
ancestors store in this same step goes there too (`shares`).  So a branch sees its ancestors and nothing else,
each at its own position: no mask, no key out of its place, and therefore the bits of plain decoding.  The
branch that came true keeps its blocks, and the table that it replaces gives its own back.
"""

from __future__ import annotations

from dataclasses import dataclass

from octavo.decoding.speculation.draft import ROOT, Draft

MOST_BRANCHES = 16  # of a step, all sequences together


@dataclass(slots=True)
class Branch:
    """chain: its nodes.  table: the blocks from the sequence's first token on; own: those of them that nobody
    else has.  row: of the block tables.  copies: (block, block) to copy before the step.  shared: positions
    in the step, 0 for the sequence's last token and 1 + node for drafted ones, that it stores as well."""

    chain: range
    table: list[int]
    own: list[int]
    row: int
    copies: list[tuple[int, int]]
    shared: list[int]


def chain_of(draft: Draft, node: int) -> int:
    """Index of the chain that holds a node; the trunk for ROOT."""
    chains = draft.chains()
    return 0 if node == ROOT else next(index for index, chain in enumerate(chains) if node in chain)


def blocks_of_branch(draft: Draft, chain: range, length: int, block_size: int) -> tuple[int, int]:
    """(index of the first block that a branch needs for itself, how many it needs)."""
    begin = length + len(draft.path(draft.parents[chain.start]))
    first = begin // block_size
    return first, (begin + len(chain) - 1) // block_size - first + 1


def fork(
    draft: Draft,
    chain: range,
    length: int,
    block_size: int,
    tables: list[list[int]],
    own: list[int],
    row: int,
) -> Branch:
    """A branch behind a node of an earlier chain; `tables` are those chains' tables, the trunk's first.

    own: as many blocks as `blocks_of_branch` says.  length: tokens of the sequence, all but the last cached.
    """
    parent = draft.parents[chain.start]
    path = draft.path(parent)
    first, _ = blocks_of_branch(draft, chain, length, block_size)
    begin = first * block_size
    # The last token of the sequence and the path are at length - 1, length, ...
    shared = [
        place
        for place, position in zip(
            [0, *(1 + node for node in path)], range(length - 1, length + len(path)), strict=True
        )
        if position >= begin
    ]
    copies = [(tables[0][first], own[0])] if begin < length - 1 else []
    table = [*tables[chain_of(draft, parent)][:first], *own]
    return Branch(chain, table, own, row, copies, shared)
