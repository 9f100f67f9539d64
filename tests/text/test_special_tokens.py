"""Splitting at special tokens against a slow search."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from octavo.text.encoders import SpecialTokenSplitter


def _split_slowly(text: str, tokens: dict[str, int]) -> list[str | int]:
    pieces: list[str | int] = []
    begin = position = 0
    while position < len(text):
        found = max((token for token in tokens if text.startswith(token, position)), key=len, default=None)
        if found is None:
            position += 1
            continue
        pieces += [text[begin:position]] * (begin < position) + [tokens[found]]
        begin = position = position + len(found)
    return pieces + [text[begin:]] * (begin < len(text))


@given(
    text=st.text(alphabet="<|a>.*", max_size=40),
    tokens=st.lists(st.text(alphabet="<|a>.*", min_size=1, max_size=5), unique=True, max_size=8),
)
def test_the_longest_token_at_the_leftmost_place_wins(text: str, tokens: list[str]) -> None:
    ids = {token: index for index, token in enumerate(tokens)}
    assert list(SpecialTokenSplitter(ids).split(text)) == _split_slowly(text, ids)


def test_without_tokens_text_stays_whole() -> None:
    assert list(SpecialTokenSplitter({}).split("abc")) == ["abc"]
    assert list(SpecialTokenSplitter({"": 1}).split("")) == []
