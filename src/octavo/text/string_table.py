"""The strings of a vocabulary, in little memory and with their indices.

As a list and a dict, Gemma's 262,144 tokens take 60 MB and a third of a second; as bytes one after the other
(native/text/string_table.h) they take 6 MB and are ready at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import overload

import numpy as np
from numpy.typing import NDArray

from octavo._native import StringTable as _NativeTable
from octavo.errors import FormatError


class StringTable(Sequence[str]):
    """A sequence of strings that also knows where each one stands.

    field: what an error calls it.  Reading a string that is not UTF-8 raises FormatError.
    """

    def __init__(self, field: str, table: _NativeTable | None = None) -> None:
        self.field = field
        self._table = _NativeTable() if table is None else table

    @classmethod
    def of(cls, field: str, texts: Iterable[str]) -> StringTable:
        """Raises FormatError for a lone surrogate, which no UTF-8 has, and TypeError for what is no text."""
        table = cls(field)
        try:
            for text in texts:
                table._table.add(text)
        except UnicodeEncodeError:
            raise FormatError(f"{field}: a string is not UTF-8: {text!r:.60}") from None
        return table

    def read(self, data: NDArray[np.uint8], count: int) -> int:
        """Add up to `count` strings as a GGUF array has them; how many bytes they take.

        Fewer than `count` are added if the next one would reach beyond the end of `data`.
        """
        return self._table.read(data, count)

    def __len__(self) -> int:
        return len(self._table)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self._text(position) for position in range(*index.indices(len(self)))]
        return self._text(range(len(self))[index])

    def __iter__(self) -> Iterator[str]:
        return map(self._text, range(len(self)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]  # equal to lists, which have none

    def _text(self, index: int) -> str:
        text = self._table.spelling(index)
        try:
            return text.decode()
        except UnicodeDecodeError as error:
            raise FormatError(f"{self.field}: a string is not UTF-8: {text[:40]!r}") from error

    def check(self) -> None:
        """Raises FormatError if a string is not UTF-8."""
        invalid = self._table.first_invalid()
        if invalid >= 0:
            self._text(invalid)

    def find(self, text: str) -> int | None:
        """Where `text`, without lone surrogates, stands; of several places the last."""
        index = self._table.find(text)
        return None if index < 0 else index

    def replaced(self, part: str, other: str) -> StringTable:
        """The same strings with `other` in place of `part`, which is not empty."""
        return StringTable(self.field, self._table.replaced(part, other))

    def holding(self, part: str) -> list[int]:
        """Where the strings with `part` in them stand, in order."""
        return self._table.holding(part)

    def characters_before(self, mark: str) -> set[str]:
        """The characters that stand right before `mark` in some string."""
        return set(self._table.characters_before(mark).decode())
