"""Drafts from the grammar: at one place of it, behind the same token, texts tend to go on alike.

Places of a grammar are numbers (position-free, hash-consed states), so what followed them in this text and in
earlier ones is a table (Beurer-Kellner et al. 2024, "Guiding LLMs the right way").  It learns which white
space, which key and which closing a model writes, where more than one is allowed and none can be forced.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Hashable, Sequence

from octavo.decoding.sequences import TokenSequence
from octavo.decoding.speculation.controller import Estimates
from octavo.decoding.speculation.draft import NO_DRAFT, ROOT, Draft

KEPT_PLACES = 1 << 15  # the least recently met are forgotten
_KEPT_TOKENS = 16  # of a place
_LARGEST_BUCKET = 5  # places met 16 times and more are counted together

Key = tuple[Hashable, int]  # a place, and the token before it


class GrammarSource:
    """Proposes, for texts within a grammar, what followed their place in more than half of all cases."""

    name = "grammar"

    def __init__(self, estimates: Estimates) -> None:
        self._estimates = estimates
        self._followers: OrderedDict[Key, Counter[int]] = OrderedDict()
        self._learnt: dict[int, int] = {}  # how many tokens of each sequence

    def propose(self, sequences: Sequence[TokenSequence], limits: Sequence[int]) -> list[Draft]:
        """See `DraftSource.propose`."""
        return [self._propose(sequence, limit) for sequence, limit in zip(sequences, limits, strict=True)]

    def _propose(self, sequence: TokenSequence, limit: int) -> Draft:
        constraint = sequence.constraint
        if constraint is None:
            return NO_DRAFT
        draft = Draft()
        self._learn(sequence)
        while len(draft) < limit:
            tokens = [*sequence.generated, *draft.tokens]
            places = constraint.places(tokens)
            followers = self._followers.get((places[-1], tokens[-1])) if places and tokens else None
            if followers is None:
                break
            ((token, count),), total = followers.most_common(1), followers.total()
            if 2 * count <= total or constraint.admissible(tokens, [token]) == 0:
                break
            bucket = (self.name, count == total, min(total.bit_length(), _LARGEST_BUCKET))
            chance = self._estimates.chance(bucket, prior=count / (total + 1))
            draft.add(token, len(draft) - 1 if len(draft) else ROOT, chance, bucket)
        return draft

    def _learn(self, sequence: TokenSequence) -> None:
        constraint, tokens = sequence.constraint, sequence.generated
        known = self._learnt.get(id(sequence), 0)
        self._learnt[id(sequence)] = len(tokens)
        places = constraint.places(tokens) if constraint is not None and known < len(tokens) else []
        for index in range(max(known, 1), len(tokens) if places else 0):
            key = (places[index], tokens[index - 1])
            followers = self._followers.setdefault(key, Counter())
            followers[tokens[index]] += 1
            if len(followers) > _KEPT_TOKENS:
                self._followers[key] = Counter(dict(followers.most_common(_KEPT_TOKENS // 2)))
            self._followers.move_to_end(key)
        while len(self._followers) > KEPT_PLACES:
            self._followers.popitem(last=False)

    def forget(self, sequence: TokenSequence) -> None:
        """The end of the text is learnt too."""
        self._learn(sequence)
        self._learnt.pop(id(sequence), None)

    def restart(self) -> None:
        """See `DraftSource.restart`: counts may be a little wrong, which costs a guess at most."""
