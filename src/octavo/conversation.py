"""A conversation to the tokens of a prompt, ready for the answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from octavo.text.control_tokens import encode_apart, take_apart

if TYPE_CHECKING:
    from octavo.text.templates import ChatTemplate
    from octavo.text.tokenizer import Tokenizer


def encode_conversation(
    tokenizer: Tokenizer, template: ChatTemplate, messages: Sequence[Mapping[str, object]]
) -> list[int]:
    """The tokens of the rendered messages, ready for the answer; control tokens in contents stay text.

    The template writes the beginning token where the model wants one; none is added.
    Raises TemplateError where the template refuses the messages.
    """
    apart, mark = take_apart(tokenizer, messages)
    return encode_apart(tokenizer, template.render(apart, add_generation_prompt=True), mark)
