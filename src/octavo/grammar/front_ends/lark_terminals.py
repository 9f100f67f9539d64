"""Terminals of Lark grammars -> regexes -> expressions, with what orders them (their width and length)."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from octavo.grammar.errors import GrammarSyntaxError, GrammarUnsupportedError
from octavo.grammar.expressions import UNBOUNDED, Algebra
from octavo.grammar.front_ends.lark_notation import LarkText, Tree
from octavo.grammar.front_ends.regex import RegexCompiler
from octavo.grammar.front_ends.regex_syntax import RegexParser
from octavo.grammar.lexing.lexer import Terminal

# What `%import common` brings: the names are Lark's (common.lark), the patterns our own.
COMMON = {
    "DIGIT": r"[0-9]", "HEXDIGIT": r"[0-9a-fA-F]", "INT": r"[0-9]+", "SIGNED_INT": r"[+-]?[0-9]+",
    "DECIMAL": r"(?:[0-9]+\.[0-9]*|\.[0-9]+)", "_EXP": r"[eE][+-]?[0-9]+",
    "FLOAT": r"(?:[0-9]+[eE][+-]?[0-9]+|(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)",
    "SIGNED_FLOAT": r"[+-]?(?:[0-9]+[eE][+-]?[0-9]+|(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)",
    "NUMBER": r"(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?",
    "SIGNED_NUMBER": r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?",
    "ESCAPED_STRING": r'"(?:[^"\\\n]|\\.)*"',
    "LCASE_LETTER": r"[a-z]", "UCASE_LETTER": r"[A-Z]", "LETTER": r"[a-zA-Z]", "WORD": r"[a-zA-Z]+",
    "CNAME": r"[a-zA-Z_][a-zA-Z0-9_]*", "WS_INLINE": r"[ \t]+", "WS": r"[ \t\f\r\n]+", "CR": r"\r",
    "LF": r"\n", "NEWLINE": r"(?:\r?\n)+", "SH_COMMENT": r"#[^\n]*", "CPP_COMMENT": r"//[^\n]*",
    "C_COMMENT": r"/\*(?:.|\n)*?\*/", "SQL_COMMENT": r"--[^\n]*",
}  # fmt: skip
MAX_PATTERN = 100_000


class Terminals:
    """All terminals that a grammar uses, each numbered once."""

    def __init__(self, source: LarkText, algebra: Algebra, reserved: Mapping[str, Sequence[str]]) -> None:
        self.source = source
        self.reserved = reserved
        self.algebra = algebra
        self.list: list[Terminal] = []
        self._numbers: dict[Any, int] = {}
        self._active: set[str] = set()

    def named(self, name: str) -> int:
        """The number of the terminal of this name."""
        definition = self.source.terminals.get(name)
        if definition is None and name not in self.source.imports:
            raise GrammarSyntaxError(f"Lark grammar: there is no terminal {name!r}")
        if definition is None:
            return self._number(name, COMMON_TREE(self.source.imports[name]), 0)
        return self._number(name, definition.tree, definition.priority)

    def anonymous(self, tree: Tree) -> int:
        """The number of a text or regex inside a rule, or of the named terminal that is just this text."""
        for name, definition in self.source.terminals.items():
            if definition.tree == tree:
                return self.named(name)
        return self._number(tree, tree, 0)

    def _number(self, key: Any, tree: Tree, priority: int) -> int:
        if key not in self._numbers:
            name = key if isinstance(key, str) else repr(tree[1])
            terminal = self._make(name, tree, priority)
            self._numbers[key] = len(self.list)
            self.list.append(terminal)
        return self._numbers[key]

    def _make(self, name: str, tree: Tree, priority: int) -> Terminal:
        seen = {name}
        while tree[0] == "name" and tree[1] in self.source.terminals:
            if tree[1] in seen:
                raise GrammarSyntaxError(f"Lark grammar: the terminal {name} contains itself")
            seen.add(tree[1])
            tree = self.source.terminals[tree[1]].tree
        pattern = self.pattern(tree)
        if tree[0] == "string":
            text = tree[1]
            if not text:
                raise GrammarSyntaxError(f"Lark grammar: the terminal {name} is the empty text")
            expression = (
                self.algebra.literal(text) if not tree[2] else self._compile(name, pattern).expression
            )
            empty = self.algebra.empty
            return Terminal(name, expression, text, priority, len(text), len(pattern), (), True, empty)
        if len(pattern) > MAX_PATTERN:
            raise GrammarUnsupportedError(f"Lark grammar: the pattern of {name} is over {MAX_PATTERN} long")
        flags = tree[2] if tree[0] == "regex" else ""
        words = [self._reserved(word, flags) for word in self.reserved.get(name, ())]
        reserved = self.algebra.either(*words)
        terminal = replace(self._compile(name, pattern), priority=priority, reserved=reserved)
        if self.algebra.nullable(terminal.expression):
            raise GrammarSyntaxError(f"Lark grammar: the terminal {name} matches the empty text")
        if not self.algebra.live(terminal.expression):
            raise GrammarSyntaxError(f"Lark grammar: the terminal {name} matches nothing")
        return terminal

    def _reserved(self, word: str, flags: str) -> int:
        return self._compile(word, self.pattern(("string", word, flags))).expression

    def _compile(self, name: str, pattern: str) -> Terminal:
        parser = RegexParser(pattern, "python")
        tree = parser.parse()
        pure, ahead = not _asserts(tree), tuple[tuple[bool, int], ...]()
        compiler = RegexCompiler(self.algebra, "python")
        while tree[0] == "seq" and tree[1] and tree[1][-1][0] == "look" and tree[1][-1][1]:
            _, _, wanted, inner = tree[1][-1]
            ahead = (*ahead, (wanted, compiler.compile(inner, False)))
            tree = ("seq", tree[1][:-1])
        expression = _Lazy(compiler, parser.lazy).of(tree) if parser.lazy else compiler.compile(tree, False)
        return Terminal(
            name, expression, None, 0, _width(tree), len(pattern), ahead, pure, self.algebra.empty
        )

    def pattern(self, tree: Tree) -> str:
        """One regex for a terminal's tree."""
        kind = tree[0]
        if kind == "string":
            escaped = re.escape(tree[1])
            return f"(?i:{escaped})" if "i" in tree[2] else escaped
        if kind == "regex":
            flags = "".join(flag for flag in tree[2] if flag in "ism")
            if "x" in tree[2]:
                raise GrammarUnsupportedError("Lark grammar: the flag x of a regex is not supported")
            return f"(?{flags}:{tree[1]})" if flags else str(tree[1])
        if kind == "range":
            return f"[{re.escape(tree[1])}-{re.escape(tree[2])}]"
        if kind == "name":
            return self._reference(tree[1])
        if kind == "seq":
            return "".join(self._grouped(part) for part in tree[1])
        if kind == "alt":
            return "(?:" + "|".join(self.pattern(part) for part in tree[1]) + ")"
        if kind == "repeat":
            _, body, least, most = tree
            sign = {(0, UNBOUNDED): "*", (1, UNBOUNDED): "+", (0, 1): "?"}.get((least, most))
            bounds = sign or f"{{{least},{'' if most == UNBOUNDED else most}}}"
            return f"(?:{self.pattern(body)}){bounds}"
        raise GrammarUnsupportedError("Lark grammar: a template inside a terminal is not supported")

    def _grouped(self, tree: Tree) -> str:
        pattern = self.pattern(tree)
        return f"(?:{pattern})" if tree[0] == "regex" and "|" in pattern else pattern

    def _reference(self, name: str) -> str:
        if name in self.source.imports and name not in self.source.terminals:
            return self.pattern(COMMON_TREE(self.source.imports[name]))
        definition = self.source.terminals.get(name)
        if definition is None:
            raise GrammarSyntaxError(f"Lark grammar: a terminal uses {name!r}, which is no terminal")
        if name in self._active:
            raise GrammarSyntaxError(f"Lark grammar: the terminal {name} contains itself")
        self._active.add(name)
        try:
            return f"(?:{self.pattern(definition.tree)})"
        finally:
            self._active.discard(name)


def COMMON_TREE(name: str) -> Tree:  # noqa: N802 - beside COMMON
    if name not in COMMON:
        raise GrammarSyntaxError(f"Lark grammar: common has no {name!r}; it has {', '.join(COMMON)}")
    return ("regex", COMMON[name], "")


class _Lazy:
    """A regex with lazy repeats, which end as early as what follows them allows: the row up to the next
    greedy part of open length is a text of which no beginning matches too."""

    def __init__(self, compiler: RegexCompiler, lazy: list[Any]) -> None:
        self.compiler = compiler
        self.algebra = compiler.algebra
        self._lazy = {id(tree) for tree in lazy}

    def inside(self, tree: Any) -> bool:
        if id(tree) in self._lazy:
            return True
        parts = tree[1] if tree[0] in ("seq", "alt") else [tree[1]] if tree[0] == "repeat" else []
        return any(map(self.inside, parts))

    def of(self, tree: Any) -> int:
        if not self.inside(tree):
            return self.compiler.compile(tree, False)
        if tree[0] == "alt":
            return self.algebra.either(*(self.of(part) for part in tree[1]))
        if tree[0] == "repeat":
            return self.algebra.repeat(self.of(tree[1]), tree[2], tree[3])
        return self._row(list(tree[1]))

    def _row(self, parts: list[Any]) -> int:
        """A row of parts, cut behind the first lazy one and what of fixed length follows it."""
        algebra = self.algebra
        first = next((i for i, part in enumerate(parts) if self.inside(part)), None)
        if first is None or any(_asserts(part) for part in parts):
            whole = self.compiler.compile(("seq", parts), False)
            return whole if first is None else self._shortest(whole)
        end = first + 1
        while end < len(parts) and not self.inside(parts[end]) and _fixed(parts[end]):
            end += 1
        before = self.compiler.compile(("seq", parts[:first]), False)
        after = self.compiler.compile(("seq", parts[first + 1 : end]), False)
        head = self._shortest(algebra.concat(before, self.of(parts[first]), after))
        return algebra.concat(head, self._row(parts[end:])) if end < len(parts) else head

    def _shortest(self, expression: int) -> int:
        algebra = self.algebra
        longer = algebra.concat(expression, algebra.any_character, algebra.anything)
        return algebra.both(expression, algebra.negate(longer))


def _asserts(tree: Any) -> bool:
    if tree[0] in ("start", "end", "word", "look"):
        return True
    return any(
        map(_asserts, tree[1] if tree[0] in ("seq", "alt") else [tree[1]] if tree[0] == "repeat" else [])
    )


def _fixed(tree: Any) -> bool:
    """Whether all matches have one length."""
    if tree[0] == "repeat":
        return tree[2] == tree[3] and _fixed(tree[1])
    if tree[0] == "alt":
        return len({_width(part) for part in tree[1]}) == 1 and all(map(_fixed, tree[1]))
    return tree[0] != "seq" or all(map(_fixed, tree[1]))


def _width(tree: Any) -> float:
    """The most characters that a regex can match."""
    kind = tree[0]
    if kind == "set":
        return 1
    if kind == "seq":
        return sum(_width(part) for part in tree[1])
    if kind == "alt":
        return max(_width(part) for part in tree[1])
    if kind == "repeat":
        inner = _width(tree[1])
        return 0 if inner == 0 else math.inf if tree[3] == UNBOUNDED else inner * tree[3]
    return 0
