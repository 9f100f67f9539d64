"""What a draft source gives: tokens that may follow a sequence, as a tree, with how likely they are.

A draft changes how fast a text comes and never which text: the model's own step decides each token
(verification.py).  So a source may be wrong, late or empty, and need not know about penalties, filters or
grammars.

V: vocabulary.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from octavo.decoding.sequences import TokenSequence

ROOT = -1


@dataclass(slots=True)
class Draft:
    """Nodes of a tree below the last token of a sequence.

    tokens: of each node.  parents: index of the node before, ROOT for the sequence's last token.  A node
    whose parent is not the node right before it begins a branch, and stands after its parent.
    chances: how likely each token is to be the model's own where its parent is.  buckets: under what the
    outcome is counted, so that the chances come true (controller.py).  laws: float64 [V], what a token was
    drawn from, kept where it was drawn; None for a guess without chance, and where nobody needs it.
    """

    tokens: list[int] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)
    chances: list[float] = field(default_factory=list)
    buckets: list[Hashable] = field(default_factory=list)
    laws: list[NDArray[np.float64] | None] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.tokens)

    def add(
        self,
        token: int,
        parent: int,
        chance: float,
        bucket: Hashable,
        law: NDArray[np.float64] | None = None,
    ) -> int:
        """A node more; its index."""
        self.tokens.append(token)
        self.parents.append(parent)
        self.chances.append(chance)
        self.buckets.append(bucket)
        self.laws.append(law)
        return len(self.tokens) - 1

    def children(self, node: int) -> list[int]:
        """The nodes right below one, or below ROOT."""
        return [child for child, parent in enumerate(self.parents) if parent == node]

    def path(self, node: int) -> list[int]:
        """Nodes from the first to this one; none for ROOT."""
        nodes: list[int] = []
        while node != ROOT:
            nodes.append(node)
            node = self.parents[node]
        return nodes[::-1]

    def before(self, node: int) -> list[int]:
        """The drafted tokens down to a node, it included."""
        return [self.tokens[index] for index in self.path(node)]

    def reach(self) -> list[float]:
        """For each node the chance that its whole path is accepted."""
        reach: list[float] = []
        for parent, chance in zip(self.parents, self.chances, strict=True):
            reach.append(chance * (1.0 if parent == ROOT else reach[parent]))
        return reach

    def keep(self, nodes: Sequence[int]) -> Draft:
        """Only these nodes, in order; where a node is kept its parent is too."""
        place = {ROOT: ROOT} | {node: index for index, node in enumerate(nodes)}
        return Draft(
            [self.tokens[node] for node in nodes],
            [place[self.parents[node]] for node in nodes],
            [self.chances[node] for node in nodes],
            [self.buckets[node] for node in nodes],
            [self.laws[node] for node in nodes],
        )

    def merge(self, chain: Draft) -> None:
        """Another source's chain: where it says the same it adds nothing, then it is a branch, as likely as
        it is where the tokens beside it are wrong."""
        parent = ROOT
        for token, chance, bucket in zip(chain.tokens, chain.chances, chain.buckets, strict=True):
            children = self.children(parent)
            same = next((child for child in children if self.tokens[child] == token), None)
            if same is None:
                rest = max(1.0 - sum(self.chances[child] for child in children), 0.0)
                same = self.add(token, parent, chance * rest, bucket)
            parent = same

    def chains(self) -> list[range]:
        """The trunk and then the branches, as ranges of nodes; the first is the trunk, even without nodes."""
        starts = [node for node, parent in enumerate(self.parents) if parent != node - 1]
        ends = [*starts, len(self)]
        trunk = range(0, ends[0])
        return [trunk, *(range(start, end) for start, end in zip(starts, ends[1:], strict=True))]


NO_DRAFT = Draft()


class DraftSource(Protocol):
    """Something that guesses what comes next.

    Sequences are told apart by identity.  A source keeps what state it wants for each and catches up with
    the sequence's tokens by itself: those never change once they are there.
    """

    name: str

    def propose(self, sequences: Sequence[TokenSequence], limits: Sequence[int]) -> list[Draft]:
        """A draft of at most `limit` nodes for each sequence, perhaps empty."""

    def forget(self, sequence: TokenSequence) -> None:
        """A sequence has ended: give back what was kept for it."""

    def restart(self) -> None:
        """An interrupt may have come in the middle of anything: trust no state."""
