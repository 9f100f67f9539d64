"""Lark grammars -> rules over tokens: templates are written out, texts in rules become terminals.

For languages with indentation three templates are built in (`indented=True`): `_block{x}` is x on one or more
lines that are indented deeper, `_line{x}` is x behind the indentation of the block, `_in{mode, x}` changes
what is ignored and forbidden; and `_END` is the end of the text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from octavo.grammar.errors import GrammarEmptyError, GrammarSyntaxError, GrammarTooComplexError
from octavo.grammar.expressions import Algebra
from octavo.grammar.front_ends.lark_notation import LarkParser, LarkText, Tree, is_terminal
from octavo.grammar.front_ends.lark_terminals import Terminals
from octavo.grammar.front_ends.left_recursion import remove_left_recursion, trim
from octavo.grammar.lexing.analysis import Item, Mode, neighbours
from octavo.grammar.lexing.lexer import Lexer
from octavo.grammar.lexing.rules import TokenRules
from octavo.grammar.network import Position

MAX_RULES = 50_000


@dataclass(frozen=True)
class ModeNames:
    """A mode by the names (or texts) of terminals; `within`: the mode that one asked for becomes here;
    `only`: whatever else there is is forbidden."""

    ignored: tuple[str, ...] = ()
    forbidden: tuple[str, ...] = ()
    within: Mapping[str, str] | None = None
    only: tuple[str, ...] = ()


def compile_lark(
    text: str,
    start: str = "start",
    modes: Mapping[str, ModeNames] | None = None,
    reserved: Mapping[str, Sequence[str]] | None = None,
) -> Position:
    """The network of a grammar.

    `modes`: for a language with indentation its modes, first the one that it begins in.  `reserved`: texts
    that a terminal is nowhere, in any case if its pattern is so.
    """
    source = LarkParser(text).parse()
    if start not in source.rules:
        names = ", ".join(list(source.rules)[:20])
        raise GrammarSyntaxError(f"the grammar has no rule {start!r}; it has {names}")
    return _Compiler(source, modes or {}, reserved or {}).compile(start)


class _Compiler:
    def __init__(
        self, source: LarkText, modes: Mapping[str, ModeNames], reserved: Mapping[str, Sequence[str]]
    ) -> None:
        self.source = source
        self.mode_names = modes
        self.algebra = Algebra()
        self.terminals = Terminals(source, self.algebra, reserved)
        self.items: dict[str, Item] = {}

    def compile(self, start: str) -> Position:
        work = [(start, self.source.rules[start].tree)]
        self.items[start] = ()
        self._work = work
        while work:
            name, tree = work.pop()
            self.items[name] = self.item(tree, {})
        ignored = frozenset(self._ignored(tree) for tree in self.source.ignored)
        modes = self._modes(ignored)
        every = frozenset[int]().union(*(mode.ignored for mode in modes))
        productive = trim(self.items, lambda item: True)
        if start not in productive:
            raise GrammarEmptyError(f"no text can ever complete the rule {start!r}")
        rules = remove_left_recursion(productive, start, lambda item: item[1][0] == "end", _called_at_once)
        lexer = Lexer(self.algebra, self.terminals.list, every)
        lexer.let_follow(neighbours(rules, start, every))
        return TokenRules(lexer, rules, modes).start(start)

    def _ignored(self, tree: Tree) -> int:
        return self.terminals.named(tree[1]) if tree[0] == "name" else self.terminals.anonymous(tree)

    def _modes(self, ignored: frozenset[int]) -> list[Mode]:
        if not self.mode_names:
            return [Mode(ignored)]
        numbers = {name: number for number, name in enumerate(self.mode_names)}
        known = {
            name: self._known(name) for mode in self.mode_names.values() for name in mode.only + mode.ignored
        }
        forbidden = {name: self._known(name) for mode in self.mode_names.values() for name in mode.forbidden}
        every = frozenset(range(len(self.terminals.list)))
        return [
            Mode(
                frozenset(known[name] for name in mode.ignored),
                every - {known[name] for name in mode.only}
                if mode.only
                else frozenset(forbidden[name] for name in mode.forbidden),
                {numbers[asked]: numbers[given] for asked, given in (mode.within or {}).items()},
            )
            for mode in self.mode_names.values()
        ]

    def _known(self, name: str) -> int:
        return (
            self.terminals.named(name)
            if is_terminal(name)
            else self.terminals.anonymous(("string", name, ""))
        )

    def item(self, tree: Tree, arguments: dict[str, Tree]) -> Item:
        kind = tree[0]
        if kind in ("string", "regex", "range"):
            return ("text", ("token", self.terminals.anonymous(tree)))
        if kind == "name":
            return self._name(tree[1], arguments)
        if kind in ("seq", "alt"):
            return (kind, tuple(self.item(part, arguments) for part in tree[1]))
        if kind == "repeat":
            return ("repeat", self.item(tree[1], arguments), tree[2], tree[3])
        return self._call(tree[1], [_fill(argument, arguments) for argument in tree[2]])

    def _name(self, name: str, arguments: dict[str, Tree]) -> Item:
        if name in arguments:
            return self.item(arguments[name], {})
        if name == "_END" and self.mode_names:
            return ("text", ("end",))
        if is_terminal(name):
            return ("text", ("token", self.terminals.named(name)))
        definition = self.source.rules.get(name)
        if definition is None:
            raise GrammarSyntaxError(f"Lark grammar: there is no rule {name!r}")
        if definition.parameters:
            raise GrammarSyntaxError(f"Lark grammar: the template {name!r} needs arguments")
        return self._queue(name, definition.tree)

    def _queue(self, name: str, tree: Tree) -> Item:
        if name not in self.items:
            if len(self.items) >= MAX_RULES:
                raise GrammarTooComplexError(f"the grammar has over {MAX_RULES} rules")
            self.items[name] = ()
            self._work.append((name, tree))
        return ("rule", name)

    def _call(self, name: str, given: list[Tree]) -> Item:
        if self.mode_names and name in ("_block", "_line"):
            return ("text", (name[1:], self.item(given[0], {})))
        if self.mode_names and name == "_in":
            number = list(self.mode_names).index(given[0][1])
            return ("text", ("mode", number, self.item(given[1], {})))
        definition = self.source.rules.get(name)
        if definition is None or len(definition.parameters) != len(given):
            raise GrammarSyntaxError(f"Lark grammar: there is no template {name!r} of {len(given)} arguments")
        filled = _fill(definition.tree, dict(zip(definition.parameters, given, strict=True)))
        key = f"{name}{{{','.join(map(repr, given))}}}"
        if len(key) > 5_000:
            raise GrammarTooComplexError(f"the template {name!r} grows without end")
        return self._queue(key, filled)


def _called_at_once(item: Item) -> Item | None:
    """The item of a mode, or of a line, whose indentation may be none."""
    leaf = item[1]
    return leaf[-1] if leaf[0] in ("mode", "line") else None


def _fill(tree: Tree, arguments: dict[str, Tree]) -> Tree:
    """The tree with a template's parameters replaced."""
    kind = tree[0]
    if kind == "name":
        return arguments.get(tree[1], tree)
    if kind in ("seq", "alt"):
        return (kind, tuple(_fill(part, arguments) for part in tree[1]))
    if kind == "repeat":
        return ("repeat", _fill(tree[1], arguments), tree[2], tree[3])
    if kind == "call":
        return ("call", tree[1], tuple(_fill(part, arguments) for part in tree[2]))
    return tree
