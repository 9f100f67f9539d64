"""Stop strings across any cut, and the stream that carries them."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octavo.completion import Piece, StopMatcher, Stream


def run_matcher(pieces: Sequence[str], stops: Sequence[str]) -> tuple[str, bool]:
    matcher = StopMatcher(stops)
    text = "".join(matcher.push(piece) for piece in pieces)
    return text + matcher.finish(), matcher.stopped


def slow_answer(text: str, stops: Sequence[str]) -> tuple[str, bool]:
    """The definition, character by character: the match that ends first, then the one that begins first."""
    for end in range(1, len(text) + 1):
        starts = [end - len(stop) for stop in stops if text[:end].endswith(stop)]
        if starts:
            return text[: min(starts)], True
    return text, False


@given(
    st.lists(st.text("ab\n", max_size=4), max_size=8),
    st.lists(st.text("ab\n", min_size=1, max_size=4), max_size=3),
)
def test_any_cut_gives_the_same_text(pieces: list[str], stops: list[str]) -> None:
    assert run_matcher(pieces, stops) == slow_answer("".join(pieces), stops)


@given(
    st.lists(st.text("ab", max_size=3), max_size=8),
    st.lists(st.text("ab", min_size=1, max_size=3), max_size=3),
)
def test_what_is_let_through_is_never_taken_back(pieces: list[str], stops: list[str]) -> None:
    matcher = StopMatcher(stops)
    seen = ""
    for piece in pieces:
        seen += matcher.push(piece)
        assert slow_answer("".join(pieces), stops)[0].startswith(seen)


def test_text_is_not_held_longer_than_needed() -> None:
    matcher = StopMatcher(["END"])
    assert matcher.push("the E") == "the "
    assert matcher.push("N") == ""
    assert matcher.push("T") == "ENT"
    assert not matcher.stopped


def test_an_empty_stop_string_is_refused() -> None:
    with pytest.raises(ValueError, match="empty stop string"):
        StopMatcher(["\n", ""])


def test_a_piece_is_a_string_with_its_token() -> None:
    piece = Piece("hello", 7)
    assert piece == "hello" and piece.token == 7 and Piece("x").token is None


class LetterGeneration:
    """Stands for a Generation: gives the code points of a text, then ends for the given reason."""

    def __init__(self, text: str, reason: str = "length") -> None:
        self._ids = iter(map(ord, text))
        self._reason = reason
        self.finish_reason: str | None = None
        self.timings = object()
        self.cancelled = False

    def __next__(self) -> int:
        token = None if self.cancelled else next(self._ids, None)
        if token is None:
            self.finish_reason = "cancelled" if self.cancelled else self._reason
            raise StopIteration
        return token

    def cancel(self) -> None:
        self.cancelled = True


class LetterDecoder:
    """One letter late, as a decoder is that waits for the rest of a character."""

    def __init__(self) -> None:
        self._late = ""

    def push(self, token: int) -> str:
        late, self._late = self._late, chr(token)
        return late

    def finish(self) -> str:
        return self._late


def stream_of(text: str, *stops: str) -> tuple[Stream, LetterGeneration]:
    generation = LetterGeneration(text)
    return Stream(generation, LetterDecoder(), stops), generation  # type: ignore[arg-type]


def test_a_stream_joins_to_its_completion() -> None:
    stream, _ = stream_of("a story")
    pieces = list(stream)
    assert "".join(pieces) == stream.completion().text == "a story"
    assert [piece.token for piece in pieces] == [*map(ord, "a story"), None]
    assert stream.completion().finish_reason == "length"


def test_a_stop_string_ends_the_generation_and_is_not_emitted() -> None:
    stream, generation = stream_of("one. two. three", ". t")
    assert "".join(stream) == "one"
    assert stream.completion().finish_reason == "stop"
    assert generation.cancelled
    assert list(stream) == []


def test_a_stop_string_in_the_last_held_text_counts() -> None:
    stream, _ = stream_of("the end", "end")
    assert "".join(stream) == "the "
    assert stream.finish_reason == "stop"


def test_leaving_a_stream_cancels_its_generation() -> None:
    stream, generation = stream_of("long text")
    with stream:
        next(stream)
    assert generation.cancelled and stream.completion().finish_reason == "cancelled"
    forgotten, generation = stream_of("long text")
    next(forgotten)
    del forgotten
    assert generation.cancelled
