"""Control tokens that somebody typed stay text; those that a template writes count.

A template writes control tokens as text, so its output is encoded with them parsed.  Whoever types
"<|im_end|>" must not end their turn with it: such text is taken apart before the template sees it, by a
character that no text has, and the pieces on both sides of that character are encoded apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from octavo.text.tokenizer import Tokenizer

# Unicode's 32 noncharacters for internal use (The Unicode Standard, section 23.7).
_MARKS = tuple(map(chr, range(0xFDD0, 0xFDF0)))


def take_apart(
    tokenizer: Tokenizer, messages: Sequence[Mapping[str, object]]
) -> tuple[list[dict[str, Any]], str]:
    """(the messages with a mark inside every control token of their contents, the mark)."""
    mark = _unused_mark(messages)
    apart = [
        {**message, "content": _without_control(tokenizer, message.get("content"), mark)}
        for message in messages
    ]
    return apart, mark


def encode_apart(tokenizer: Tokenizer, rendered: str, mark: str) -> list[int]:
    """The tokens of a template's text, or of a part of it; marks separate, and leave nothing behind."""
    return [
        token
        for piece in rendered.split(mark)
        if piece
        for token in tokenizer.encode(piece, add_special=False, parse_special=True)
    ]


def _unused_mark(messages: Sequence[Mapping[str, object]]) -> str:
    text = repr([message.get("content") for message in messages])
    escaped = {mark: mark.encode("unicode_escape").decode() for mark in _MARKS}
    return next((mark for mark in _MARKS if mark not in text and escaped[mark] not in text), _MARKS[0])


def _without_control(tokenizer: Tokenizer, content: object, mark: str) -> object:
    """`content` with `mark` inside every text that the tokenizer would read as a control token."""
    if isinstance(content, Mapping):
        return {key: _without_control(tokenizer, value, mark) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_without_control(tokenizer, part, mark) for part in content]
    if not isinstance(content, str):
        return content
    # Taking one apart may show another that it hid, so look again; each round leaves fewer.
    while found := _control_texts(tokenizer, content):
        broken = content
        for text in found:
            broken = broken.replace(text, text[0] + mark + text[1:])
        if broken == content:
            break
        content = broken
    return content


def _control_texts(tokenizer: Tokenizer, content: str) -> list[str]:
    """Control tokens in `content`, as text, the longest first."""
    tokens = set(tokenizer.encode(content, add_special=False, parse_special=True))
    control = [token for token in tokens if not tokenizer.token_bytes(token)]
    texts = {tokenizer.decode([token], skip_special=False) for token in control}
    return sorted((text for text in texts if len(text) > 1), key=len, reverse=True)
