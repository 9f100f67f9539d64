"""Whether the keys that an object may still have can meet all that is claimed of some key.

In an object of few keys (maxProperties) one key may have to meet all claims that its schemas make.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations
from typing import TYPE_CHECKING

from octavo.grammar.json_schema.scalars import Goal

if TYPE_CHECKING:
    from octavo.grammar.json_schema.objects import ObjectShape, Progress

MOST_CLAIMS = 6  # for more, sets of them would be too many: each is then looked at alone


def claims_fit(
    shape: ObjectShape,
    pending: list[int],
    progress: Progress,
    missing: Sequence[int],
    remaining: Sequence[int],
) -> bool:
    """Of an object of at most so many keys.  missing: required names, remaining: all that may still come."""
    assert shape.most is not None
    slots = shape.most - progress.keys - len(missing)
    if len(pending) <= slots or len(pending) > MOST_CLAIMS or len(shape.classes) > MOST_CLAIMS:
        return True  # a key for each, or too much to look at together
    every = frozenset(pending)
    met = {frozenset[int]()}
    for index in missing:  # these keys come anyway
        met |= {one | other for one in met for other in _met_by_name(shape, index, pending)}
    keys = [_met_by_name(shape, index, pending) for index in remaining if index not in missing]
    keys += [_met_by_others(shape, mask, goal, pending) for mask, goal in shape.mixtures]
    one_more = {claims for key in keys for claims in key}
    for _ in range(min(slots, len(pending))):
        met |= {one | other for one in met for other in one_more}
    return every in met


def dead_ends(shape: ObjectShape, progress: Progress) -> list[int]:
    """Unnamed keys, as expressions, after which too few more may come for what is claimed."""
    if not progress.pending or shape.most is None or len(shape.classes) > MOST_CLAIMS:
        return []
    after = shape.most - progress.keys - len(shape.missing(progress)) - 1
    if progress.pending.bit_count() <= after:
        return []
    masks = [mask for mask, _ in shape.mixtures if not shape.after_key(progress, shape.label(-1, mask, ""))]
    return [shape.exactly(mask) for mask in masks]


def _met_by_name(shape: ObjectShape, index: int, pending: Iterable[int]) -> list[frozenset[int]]:
    own = shape.name_goal(index)
    if own is None:
        return []
    fitting = [claim for claim in pending if shape.matches(shape.claims[claim][0], shape.names[index])]
    return _together(shape, own, fitting)


def _met_by_others(shape: ObjectShape, mask: int, own: Goal, pending: Iterable[int]) -> list[frozenset[int]]:
    """By a key that is not named, of the classes `mask`."""
    if not shape.goals.algebra.live(shape.exactly(mask)):
        return []
    classes = ((claim, shape.claim_classes[claim]) for claim in pending)
    return _together(shape, own, [claim for claim, cls in classes if cls < 0 or mask >> cls & 1])


def _together(shape: ObjectShape, own: Goal, claims: Sequence[int]) -> list[frozenset[int]]:
    """The sets of claims that one value can meet, which satisfies `own` too."""
    return [
        frozenset(some)
        for count in range(1, len(claims) + 1)
        for some in combinations(claims, count)
        if shape.goals.satisfiable(shape.goals.goal(own, *(shape.claims[claim][1] for claim in some)))
    ]
