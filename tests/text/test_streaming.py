"""The stream decoder on bytes: nothing half, nothing late, nothing lost."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from octavo.text.streaming import StreamDecoder


def _stream(parts: list[bytes], strip: bool = False) -> list[str]:
    stream = StreamDecoder(parts.__getitem__, strip_first_space=strip)
    return [*map(stream.push, range(len(parts))), stream.finish()]


@given(st.lists(st.binary(max_size=6)))
def test_any_bytes_decode_as_a_whole(parts: list[bytes]) -> None:
    assert "".join(_stream(parts)) == b"".join(parts).decode("utf-8", "replace")


@given(st.text(), st.data())
def test_valid_text_never_shows_a_replacement_and_comes_at_once(text: str, data: st.DataObject) -> None:
    encoded = text.encode("utf-8", "replace")
    text = encoded.decode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(encoded)), max_size=8)))
    parts = [encoded[a:b] for a, b in zip([0, *cuts], [*cuts, len(encoded)], strict=True)]
    pushed = _stream(parts)
    assert "".join(pushed) == text and pushed[-1] == ""
    seen = 0
    for part, shown in zip(parts, pushed, strict=False):
        seen += len(part)
        whole = encoded[:seen].decode("utf-8", "ignore")  # all characters that are complete so far
        assert text.startswith(whole) and whole.endswith(shown)


def test_an_emoji_byte_by_byte() -> None:
    assert _stream([b"\xf0", b"\x9f", b"\x98", b"\x80"]) == ["", "", "", "\U0001f600", ""]
    assert _stream([b"\xf0\x9f", b"A"]) == ["", "\ufffdA", ""]
    assert _stream([b"\xf0\x9f"]) == ["", "\ufffd"]


def test_only_the_first_space_is_taken() -> None:
    assert _stream([b"", b"  a", b" b"], strip=True) == ["", " a", " b", ""]
    assert _stream([b"a", b" b"], strip=True) == ["a", " b", ""]
