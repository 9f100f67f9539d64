"""A conversation to tokens: the template's control tokens count, those that somebody typed do not.

A template writes control tokens as text, so its output is encoded with them parsed.  Whoever types
"<|im_end|>" must not end their turn with it: such text is taken apart before the template sees it, by a
character that no text has, and the pieces on both sides of that character are encoded apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from octavo.text.templates import ChatTemplate
    from octavo.text.tokenizer import Tokenizer

# Unicode's 32 noncharacters for internal use (The Unicode Standard, section 23.7).
_MARKS = tuple(map(chr, range(0xFDD0, 0xFDF0)))


def encode_conversation(
    tokenizer: Tokenizer, template: ChatTemplate, messages: Sequence[Mapping[str, object]]
) -> list[int]:
    """The tokens of the rendered messages, ready for the answer.

    The template writes the beginning token where the model wants one; none is added.
    Raises TemplateError where the template refuses the messages.
    """
    mark = _unused_mark(messages)
    plain = [
        {**message, "content": _without_control(tokenizer, message.get("content"), mark)}
        for message in messages
    ]
    rendered = template.render(plain, add_generation_prompt=True)
    pieces = rendered.split(mark)
    return [
        token
        for piece in pieces
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
