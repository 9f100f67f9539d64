"""A set of literal texts as one automaton: a trie."""

from __future__ import annotations

from collections.abc import Iterable, Iterator


class LiteralTrie:
    """A node of a trie; its identity is its state.  `index` is the literal's number, or -1.

    The native engine has a trie of its own for the texts: this one is made only when it is asked.
    """

    __slots__ = ("_children", "_index", "_moves", "_texts")

    def __init__(self, texts: list[str] | None = None) -> None:
        self._texts = texts  # of the root
        self._children: dict[int, LiteralTrie] | None = None if texts is not None else {}
        self._index = -1
        self._moves: list[tuple[int, int, LiteralTrie]] | None = None

    @classmethod
    def build(cls, texts: Iterable[str]) -> LiteralTrie:
        return cls(list(texts))

    @property
    def children(self) -> dict[int, LiteralTrie]:
        if self._children is None:
            self._children = {}
            for index, text in enumerate(self._texts or ()):
                node = self
                for character in text:
                    node = node.children.setdefault(ord(character), LiteralTrie())
                if node._index < 0:
                    node._index = index
        return self._children

    @property
    def index(self) -> int:
        return self._index if self.children is not None else -1

    def native(self) -> tuple[str, list[str]] | None:
        return None if self._texts is None else ("texts", self._texts)

    @property
    def nullable(self) -> bool:
        return self.index >= 0

    def moves(self) -> Iterator[tuple[int, int, LiteralTrie]]:
        if self._moves is None:
            self._moves = [(code, code, node) for code, node in sorted(self.children.items())]
        return iter(self._moves)
