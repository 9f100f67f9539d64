"""Rejection rules: which drafted tokens to keep where draft and model draw with noise of their own.

They keep more of a sampled draft than equality with the model's own draw does, and need what equality does
not: the law that each drafted token was really drawn from, and noise that the draft has not seen.

- "token": Leviathan et al. 2023, Chen et al. 2023: accept x with min(1, p(x) / q(x)), else draw from what is
  left, norm(max(p - q, 0)).  On a tree the children of a node are tried in turn, each against what the ones
  before have left (SpecInfer, Miao et al. 2024, multi-step speculative sampling).
- "block": Sun et al. 2025, "Block verification accelerates speculative decoding": one decision for a whole
  chain, never worse.

Laws are arrays [V] of any numbers: floats in the engine, fractions in the tests, which enumerate every draft
and prove that the law of the text is the model's, exactly.  Whether a drawn token is verified at all must
not depend on the token itself, only on what was there before it: dropping the unlikely ones is biased.

g: drafted tokens of a chain, V: vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Law = NDArray[Any]
Uniform = Callable[[], Any]  # a fresh number in [0, 1) at each call


def positive_part(difference: Law) -> Law:
    """max(x, 0) of each, for any kind of number."""
    return np.where(difference > 0, difference, difference * 0)


def normalized(weights: Law) -> Law:
    """Weights as a law."""
    law: Law = weights / weights.sum()
    return law


def acceptance(model: Law, draft: Law, token: int) -> Any:
    """Chance to accept a token that was drawn from the draft's law: min(1, p / q)."""
    p, q = model[token], draft[token]
    return p / q if p < q else q / q


def residual(model: Law, draft: Law) -> Law:
    """What to draw from after a rejection; where nothing is left none can have happened."""
    left = positive_part(model - draft)
    return normalized(left) if left.sum() > 0 else model


def keep_token_by_token(
    models: Sequence[Law],
    drafts: Sequence[Law],
    tokens: Sequence[int],
    parents: Sequence[int],
    uniform: Uniform,
) -> tuple[int, Law]:
    """The deepest of g nodes of a tree to keep, -1 for none, and the law of the token after it.

    models: [g + 1] laws at the root and after each node.  drafts: [g], what the nodes' tokens were drawn
    from, given everything drawn before.  parents: of each node, -1 for the root; children in the order of
    their drawing.  A chain has the parents -1, 0, 1, ...
    """
    node = -1
    while True:
        children = [child for child, parent in enumerate(parents) if parent == node]
        of_children = [(drafts[child], tokens[child]) for child in children]
        place, law = keep_child(models[node + 1], of_children, uniform)
        if place is None:
            return node, law
        node = children[place]


def keep_child(model: Law, children: Sequence[tuple[Law, int]], uniform: Uniform) -> tuple[int | None, Law]:
    """Which of a node's children to follow, None for none, and with it the law of what comes instead.

    children: what each was drawn from, given the ones before, and its token: the same law each time for
    independent drawings, what the ones before have left of it for drawings without replacement, and a law
    of one token for a guess that involved no chance.
    """
    for place, (draft, token) in enumerate(children):
        if uniform() < acceptance(model, draft, token):
            return place, model
        model = residual(model, draft)
    return None, model


def block_chances(
    models: Sequence[Law], drafts: Sequence[Law], tokens: Sequence[int]
) -> tuple[list[Any], list[Any]]:
    """p_0 .. p_g and h_1 .. h_g of block verification: with chance h_i, i tokens are kept if no more are."""
    weights, chances = [drafts[0].sum() / drafts[0].sum()], []
    for index, token in enumerate(tokens):
        weight = weights[-1] * models[index][token] / drafts[index][token]
        weights.append(min(weights[0], weight))
    for kept in range(1, len(tokens) + 1):
        weight = weights[kept]
        if kept == len(tokens):
            chances.append(weight)
            continue
        left = positive_part(weight * models[kept] - drafts[kept]).sum()
        below = left + 1 - weight
        chances.append(left / below if below > 0 else weights[0])
    return weights, chances


def keep_block(
    models: Sequence[Law], drafts: Sequence[Law], tokens: Sequence[int], uniform: Uniform
) -> tuple[int, Law]:
    """How many of g tokens of a chain to keep, and the law of the token after them; from the longest down."""
    if not tokens:
        return 0, models[0]
    weights, chances = block_chances(models, drafts, tokens)
    for kept in range(len(tokens), 0, -1):
        if uniform() < chances[kept - 1]:
            return kept, block_residual(models, drafts, weights, kept)
    return 0, block_residual(models, drafts, weights, 0)


def block_residual(models: Sequence[Law], drafts: Sequence[Law], weights: Sequence[Any], kept: int) -> Law:
    """The law of the token after a chain of `kept` tokens that block verification has settled on."""
    if kept == len(drafts):
        return models[kept]
    left = positive_part(weights[kept] * models[kept] - drafts[kept])
    return normalized(left) if left.sum() > 0 else models[kept]


def draw(law: Law, uniform: Uniform) -> int:
    """A token by inversion."""
    totals = np.cumsum(law)
    return int(min(np.searchsorted(totals, uniform() * totals[-1], side="right"), len(law) - 1))
