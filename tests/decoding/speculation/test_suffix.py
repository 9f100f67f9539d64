"""The suffix automaton beside brute force, and what the source makes of it."""

from __future__ import annotations

from collections.abc import Hashable

import numpy as np
import pytest
from token_sequences import sequence_of

from octavo import _native
from octavo.decoding.speculation.controller import Estimates
from octavo.decoding.speculation.suffix import SuffixSource


def occurs(text: list[int], part: list[int]) -> list[int]:
    """Where the part ends in the text."""
    width = len(part)
    return [end - 1 for end in range(width, len(text) + 1) if text[end - width : end] == part]


def longest_repeated_end(text: list[int]) -> int:
    return max(n for n in range(len(text)) if n == 0 or occurs(text[:-1], text[len(text) - n :]))


def longest_known_end(text: list[int], other: list[int]) -> int:
    return max(n for n in range(len(other) + 1) if n == 0 or occurs(text, other[len(other) - n :]))


@pytest.mark.parametrize("letters", [1, 2, 3, 5])
def test_the_automaton_equals_brute_force(letters: int) -> None:
    generator = np.random.default_rng(letters)
    for _ in range(30):
        text = generator.integers(0, letters, 40).tolist()
        automaton = _native.SuffixAutomaton()
        for end, token in enumerate(text, 1):
            automaton.extend(np.array([token], np.int32))
            match = automaton.repeated()
            assert match[1] == longest_repeated_end(text[:end])
            guess = np.empty(5, np.int32)
            count = automaton.continuation(match, guess)
            if not match[1]:
                assert count == 0
                continue
            # It goes on as some earlier place of the match did, and then as the period that this makes.
            places = occurs(text[: end - 1], text[end - match[1] : end])
            periodic = [[text[p + 1 + i % (end - 1 - p)] for i in range(5)] for p in places]
            assert guess[:count].tolist() in periodic


def test_another_text_is_followed() -> None:
    generator = np.random.default_rng(7)
    for _ in range(30):
        text, other = generator.integers(0, 3, 30).tolist(), generator.integers(0, 4, 30).tolist()
        automaton = _native.SuffixAutomaton()
        automaton.extend(np.array(text, np.int32))
        match = (0, 0)
        for end, token in enumerate(other, 1):
            match = automaton.advance(match, np.array([token], np.int32))
            assert match[1] == longest_known_end(text, other[:end])


def test_a_foreign_match_is_an_error() -> None:
    with pytest.raises(ValueError, match="another automaton"):
        _native.SuffixAutomaton().advance((5, 1), np.array([1], np.int32))


class Believed(Estimates):
    """Every token is as likely as one is told."""

    def __init__(self, likely: float) -> None:
        super().__init__()
        self._likely = likely

    def chance(self, bucket: Hashable, prior: float | None = None) -> float:
        return self._likely


def test_a_copied_span_is_proposed_and_earlier_texts_are_remembered() -> None:
    source = SuffixSource(Believed(0.9))
    first = sequence_of([1, 2, 3, 4, 5, 6, 7, 8, 2, 3])
    assert source.propose([first], [4])[0].tokens == [4, 5, 6, 7]
    first.generated.append(3)
    source.forget(first)
    second = sequence_of([20, 21, 5, 6, 7])
    assert source.propose([second], [10])[0].tokens == [8, 2, 3]  # and no further than that text went
    assert source.propose([sequence_of([30, 31])], [4])[0].tokens == []


def test_what_is_hardly_ever_right_is_hardly_ever_proposed() -> None:
    text = [1, 2, 3, 4, 5, 6, 7, 8] * 8
    assert len(SuffixSource(Believed(0.5)).propose([sequence_of(text)], [16])[0]) == 4  # 0.5 ** 5 < 0.05
    source = SuffixSource(Believed(0.02))
    proposed = [len(source.propose([sequence_of(text[:length])], [16])[0]) for length in range(16, 64)]
    assert sorted(proposed) == [0] * 45 + [1] * 3
