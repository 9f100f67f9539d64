"""The one way from drawn tokens to the text: follow the draft as long as it says what was drawn.

Each row of a step draws the model's own token for its place, with noise keyed by seed and position
(sampling.py).  A drafted token is accepted if it equals that token, so whatever was drafted, the text is the
one that plain decoding gives, bit for bit: the coupling of Daliri et al. 2025 ("Coupling without
communication and drafter-invariant speculative decoding").  Accepting by the ratio p / q instead needs noise
that the draft has not seen (rules.py); mixing the two is biased.

A sequence without a draft is the same walk with one row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from octavo.decoding.constraints.constraint import continuation
from octavo.decoding.sampling import sampling_failure
from octavo.decoding.sequences import Drawing
from octavo.decoding.speculation.draft import ROOT, Draft
from octavo.decoding.speculation.rules import draw, keep_block, keep_token_by_token
from octavo.errors import OctavoError


def follow(drawing: Drawing, drawn: Sequence[int]) -> list[int]:
    """The tokens that follow the sequence, given the tokens [1 + nodes] drawn after its last token and after
    each node.  `drawing.accepted` becomes the deepest node that they pass through."""
    sequence, draft = drawing.sequence, drawing.draft
    emitted: list[int] = []
    node: int | None = ROOT
    while node is not None:
        token = drawn[node + 1]
        if token < 0:
            if not emitted:  # else the tokens so far stand, and the next step meets it again
                sequence.error = OctavoError(f"token {sequence.length} of a text: {sampling_failure(token)}")
            break
        addition = continuation(sequence, emitted, token)
        for following in addition:
            emitted.append(following)
            if node is not None:
                children = draft.children(node)
                node = next((child for child in children if draft.tokens[child] == following), None)
                drawing.accepted = drawing.accepted if node is None else node
        if sequence.error is not None or sequence.closing or emitted[-1] in sequence.end_ids:
            break
        if len(emitted) >= sequence.remaining:
            break
    return emitted


def judge(drawing: Drawing, laws: NDArray[np.float64], rule: Literal["token", "block"]) -> list[int]:
    """As `follow`, by a rejection rule (rules.py), given the model's laws float64 [1 + nodes, V]; "block" on
    the trunk of the draft.  The noise is of this step alone: the draft has not seen it."""
    sequence = drawing.sequence
    if not laws[0].any():
        sequence.error = OctavoError(f"token {sequence.length} of a text has nothing that it can be")
        return []
    nodes = _usable(drawing.draft, laws, drawing.draft.chains()[0] if rule == "block" else None)
    draft, models = drawing.draft.keep(nodes), [laws[0], *(laws[node + 1] for node in nodes)]
    drafted = [
        np.eye(1, laws.shape[1], token)[0] if law is None else law
        for token, law in zip(draft.tokens, draft.laws, strict=True)
    ]
    key = np.random.SeedSequence([sequence.seed % 2**64, sequence.length, 2])
    uniform = np.random.Generator(np.random.Philox(key)).random
    if rule == "token":
        kept, law = keep_token_by_token(models, drafted, draft.tokens, draft.parents, uniform)
    else:
        count, law = keep_block(models, drafted, draft.tokens, uniform)
        kept = count - 1
    drawing.accepted = ROOT if kept < 0 else nodes[kept]
    emitted = drawing.draft.before(drawing.accepted)
    if not (emitted and emitted[-1] in sequence.end_ids):
        emitted += continuation(sequence, emitted, draw(law, uniform))
    return emitted


def _usable(draft: Draft, laws: NDArray[np.float64], chain: range | None) -> list[int]:
    """Nodes of a draft, or of one chain of it, after which the model has something to say."""
    usable: list[int] = []
    for node in range(len(draft)) if chain is None else chain:
        if laws[node + 1].any() and draft.parents[node] in (ROOT, *usable):
            usable.append(node)
    return usable
