"""A set of literal texts as one automaton: a trie."""

from __future__ import annotations

from collections.abc import Iterable, Iterator


class LiteralTrie:
    """A node of a trie; its identity is its state.  `index` is the literal's number, or -1."""

    __slots__ = ("children", "index", "_moves", "_texts")

    def __init__(self) -> None:
        self._texts: list[str] | None = None  # of the root
        self.children: dict[int, LiteralTrie] = {}
        self.index = -1
        self._moves: list[tuple[int, int, LiteralTrie]] | None = None

    @classmethod
    def build(cls, texts: Iterable[str]) -> LiteralTrie:
        root = cls()
        root._texts = list(texts)
        for index, text in enumerate(root._texts):
            node = root
            for character in text:
                node = node.children.setdefault(ord(character), cls())
            if node.index < 0:
                node.index = index
        return root

    def native(self) -> tuple[str, list[str]] | None:
        return None if self._texts is None else ("texts", self._texts)

    @property
    def nullable(self) -> bool:
        return self.index >= 0

    def moves(self) -> Iterator[tuple[int, int, LiteralTrie]]:
        if self._moves is None:
            self._moves = [(code, code, node) for code, node in sorted(self.children.items())]
        return iter(self._moves)
