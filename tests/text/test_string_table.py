"""The table of strings against its slow twin, a list and a dict of Python's."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from octavo.errors import FormatError
from octavo.text.string_table import StringTable

TEXTS = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=12), max_size=40)
# Few letters and the mark often: strings that are equal, and marks side by side.
CROWDED = st.lists(st.text("aé\u2581 ", max_size=6), max_size=60)


def gguf_array(texts: list[bytes]) -> np.ndarray:
    return np.frombuffer(b"".join(struct.pack("<Q", len(text)) + text for text in texts), np.uint8)


@given(TEXTS | CROWDED, st.text(st.characters(exclude_categories=["Cs"]), max_size=3))
def test_it_is_a_list_and_a_dict(texts: list[str], other: str) -> None:
    table = StringTable.of("tokens", texts)
    twin = dict(zip(texts, range(len(texts)), strict=True))
    assert list(table) == texts and table == texts and len(table) == len(texts)
    assert [table[index] for index in range(-len(texts), 0)] == texts and table[1:4] == texts[1:4]
    for text in [*texts, other, other + "\u2581"]:
        assert table.find(text) == twin.get(text)
    assert table.holding(other) == [index for index, text in enumerate(texts) if other in text]
    pairs = [pair for text in texts for pair in zip(text, text[1:], strict=False)]
    assert table.characters_before("\u2581") == {before for before, after in pairs if after == "\u2581"}
    assert table.replaced("\u2581", other) == [text.replace("\u2581", other) for text in texts]
    with pytest.raises(IndexError):
        table[len(texts)]


@given(TEXTS, TEXTS)
def test_it_grows_after_it_was_searched(first: list[str], second: list[str]) -> None:
    table = StringTable("tokens")
    for texts in (first, second):
        data = gguf_array([text.encode() for text in texts])
        assert table.read(data, len(texts)) == len(data)
        table.find("a")
    assert list(table) == first + second
    twin = {text: index for index, text in enumerate(first + second)}
    assert all(table.find(text) == index for text, index in twin.items())


@given(st.lists(st.binary(max_size=8), max_size=12))
def test_what_is_utf8_is_what_python_takes(texts: list[bytes]) -> None:
    table = StringTable("tokens")
    table.read(gguf_array(texts), len(texts))
    try:
        expected = [text.decode() for text in texts]
    except UnicodeDecodeError:
        with pytest.raises(FormatError, match="tokens: a string is not UTF-8"):
            table.check()
    else:
        table.check()
        assert list(table) == expected


@given(TEXTS, st.integers(0, 200), st.integers(0, 2**64 - 1))
def test_reading_stops_before_what_does_not_fit(texts: list[str], cut: int, length: int) -> None:
    whole = gguf_array([text.encode() for text in texts])
    kept = whole[:cut]
    table = StringTable("tokens")
    taken = table.read(kept, len(texts))
    assert taken <= len(kept) and list(table) == texts[: len(table)]
    assert len(table) == len(texts) or len(whole) > cut
    # A length that no file has, after strings that are there.
    if length > 8:
        hostile = np.concatenate([whole, np.frombuffer(struct.pack("<Q", length), np.uint8)])
        table = StringTable("tokens")
        assert table.read(hostile, len(texts) + 1) == len(whole) and list(table) == texts


def test_lone_surrogates_and_what_is_no_text_are_refused() -> None:
    with pytest.raises(FormatError, match="tokens: a string is not UTF-8"):
        StringTable.of("tokens", ["a", "\ud800"])
    with pytest.raises(TypeError):
        StringTable.of("tokens", ["a", 7])  # type: ignore[list-item]
