"""Ids to text as they come, without ever showing half a character."""

from __future__ import annotations

import codecs
from collections.abc import Callable


class StreamDecoder:
    """Turns ids into text one at a time; `push(...)` over all ids plus `finish()` equals `decode(ids)`.

    A token can end in the middle of a UTF-8 sequence, so bytes are held until the character is whole or is
    certain to be invalid, which gives one U+FFFD for each maximal invalid part (Unicode, section 3.9).
    """

    def __init__(self, token_bytes: Callable[[int], bytes], *, strip_first_space: bool) -> None:
        self._token_bytes = token_bytes
        self._characters = codecs.getincrementaldecoder("utf-8")("replace")
        self._strip_first_space = strip_first_space

    def push(self, id: int) -> str:
        """The text that this id completes; often all of the token's, sometimes nothing yet."""
        data = self._token_bytes(id)
        if self._strip_first_space and data:
            self._strip_first_space = False
            data = data.removeprefix(b" ")
        return self._characters.decode(data)

    def finish(self) -> str:
        """What was held back: nothing, or U+FFFD for a character that never became whole."""
        return self._characters.decode(b"", final=True)
