"""Which key of an object is being read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from octavo.grammar.literals import LiteralTrie
from octavo.grammar.text_positions import Watch

if TYPE_CHECKING:
    from octavo.grammar.json_schema.objects import ObjectShape


@dataclass(frozen=True, slots=True)
class KeyWatch(Watch):
    """Which key is being read: its place in the trie of names, and in the classes of unnamed keys."""

    shape: ObjectShape
    node: LiteralTrie | None
    classes: tuple[int, ...]
    text: str | None = None

    def native(self) -> tuple[ObjectShape, int, tuple[int, ...], str | None] | None:
        if self.text or self.node is not self.shape.trie:
            return None
        return (self.shape, self.shape.names_leaf, self.classes, self.text)

    def step(self, code_point: int) -> Watch:
        algebra = self.shape.goals.algebra
        node = None if self.node is None else self.node.children.get(code_point)
        classes = tuple(algebra.step(expression, code_point) for expression in self.classes)
        text = None if self.text is None else self.text + chr(code_point)
        return KeyWatch(self.shape, node, classes, text)

    def label(self) -> int:
        index = -1 if self.node is None else self.node.index
        algebra = self.shape.goals.algebra
        mask = sum(1 << i for i, expression in enumerate(self.classes) if algebra.nullable(expression))
        return self.shape.label(index, 0 if index >= 0 else mask, self.text or "" if index < 0 else "")
