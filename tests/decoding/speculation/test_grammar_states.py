"""Drafts from the grammar: they learn what followed a place, and change no text."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from types import SimpleNamespace
from typing import Any

from octavo.decoding.speculation import grammar_states
from octavo.decoding.speculation.controller import Estimates
from octavo.decoding.speculation.grammar_states import GrammarSource


class Places:
    """A grammar of three places in a ring, which forbids token 9."""

    def places(self, generated: Sequence[int]) -> Sequence[Hashable]:
        return [index % 3 for index in range(len(generated) + 1)]

    def admissible(self, generated: Sequence[int], tokens: Sequence[int]) -> int:
        return next((count for count, token in enumerate(tokens) if token == 9), len(tokens))


def sequence(*generated: int, constraint: Any = None) -> Any:
    return SimpleNamespace(generated=list(generated), constraint=constraint or Places())


def propose(source: GrammarSource, one: Any, limit: int = 4) -> list[int]:
    (draft,) = source.propose([one], [limit])
    assert draft.parents == list(range(-1, len(draft) - 1)) and all(
        0 < chance < 1 for chance in draft.chances
    )
    return draft.tokens


def test_it_proposes_what_followed_the_place_behind_the_token() -> None:
    source = GrammarSource(Estimates())
    earlier = sequence(1, 2, 3, 1, 2, 4)
    assert propose(source, earlier) == []
    source.forget(earlier)
    assert propose(source, sequence(1)) == [2]  # behind 1, 2 came 3 and 4 as often
    assert propose(source, sequence(5)) == [] and propose(source, sequence()) == []
    assert propose(source, sequence(7, 1)) == []  # another place
    later = sequence(1, 2, 4)
    source.forget(later)
    assert propose(source, sequence(1)) == [2, 4] and propose(source, sequence(1), limit=1) == [2]


def test_what_the_grammar_forbids_is_not_proposed() -> None:
    source = GrammarSource(Estimates())
    source.forget(sequence(1, 9))
    assert propose(source, sequence(1)) == []


def test_free_texts_get_nothing() -> None:
    source = GrammarSource(Estimates())
    free = SimpleNamespace(generated=[1, 2, 1, 2], constraint=None)
    assert len(source.propose([free], [4])[0]) == 0
    source.forget(free)
    assert len(source._followers) == 0


def test_its_memory_is_bounded(monkeypatch: Any) -> None:
    monkeypatch.setattr(grammar_states, "KEPT_PLACES", 10)
    source = GrammarSource(Estimates())
    source.forget(sequence(*range(100, 200)))
    assert len(source._followers) == 10
    for token in range(50):
        source.forget(sequence(1, token))
    assert max(map(len, source._followers.values())) <= 16
