"""Lark's notation -> trees of names, texts and regexes (Lark documentation, "Grammar Reference").

A tree is a tuple: ("name", name), ("string", text, flags), ("regex", pattern, flags), ("range", low, high),
("call", template, arguments), ("seq", trees), ("alt", trees) and ("repeat", tree, least, most).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from octavo.grammar.errors import GrammarSyntaxError, GrammarTooComplexError, GrammarUnsupportedError
from octavo.grammar.expressions import UNBOUNDED

Tree = tuple[Any, ...]
MAX_DEPTH = 100
MAX_LENGTH = 4 << 20
MAX_COUNT = 1_000_000

_TOKENS = re.compile(
    r"""(?P<blank>[ \t\f\r]+|(?://|\#)[^\n]*|\\[ \t]*\r?\n)
    |(?P<newline>\n)
    |(?P<string>"(?:[^"\\\n]|\\.)*"i?)
    |(?P<regex>/(?!/)(?:[^/\\\n]|\\.)+/[imslux]*)
    |(?P<name>!?\??_?[A-Za-z][A-Za-z0-9_]*|_+[A-Za-z0-9][A-Za-z0-9_]*|\?_?[a-z]\w*)
    |(?P<number>[+-]?\d+)
    |(?P<sign>->|\.\.|%[a-z]+|[:|()\[\]{}*+?~.,])""",
    re.VERBOSE,
)
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "f": "\f", "v": "\v", "a": "\a", "b": "\b", "0": "\0"}


@dataclass
class Definition:
    tree: Tree
    priority: int = 0
    parameters: tuple[str, ...] = ()
    line: int = 0


@dataclass
class LarkText:
    rules: dict[str, Definition] = field(default_factory=dict)
    terminals: dict[str, Definition] = field(default_factory=dict)
    ignored: list[Tree] = field(default_factory=list)
    imports: dict[str, str] = field(default_factory=dict)  # name here -> name in common
    declared: set[str] = field(default_factory=set)


def unescape(text: str) -> str:
    def one(match: re.Match[str]) -> str:
        body = match.group(1)
        if body[0] in "xuU" and len(body) > 1:
            return chr(min(int(body[1:], 16), 0x10FFFF))
        return _ESCAPES.get(body, body if body in "\\\"'/" else "\\" + body)

    return re.sub(r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|.)", one, text, flags=re.DOTALL)


class LarkParser:
    """One pass, by recursive descent of bounded depth."""

    def __init__(self, text: str) -> None:
        if len(text) > MAX_LENGTH:
            raise GrammarTooComplexError(f"the grammar has {len(text)} characters; the limit is {MAX_LENGTH}")
        self.tokens: list[tuple[str, str, int]] = []
        self.at = self.depth = 0
        self.result = LarkText()
        self._cut(text)

    def _cut(self, text: str) -> None:
        place, line = 0, 1
        while place < len(text):
            match = _TOKENS.match(text, place)
            if match is None:
                found = text[place : place + 20].split("\n")[0]
                raise GrammarSyntaxError(f"Lark grammar, line {line}: {found!r} is not understood")
            kind = str(match.lastgroup)
            if kind != "blank":
                self.tokens.append((kind, match.group(), line))
            line += match.group().count("\n")
            place = match.end()
        self.tokens += [("newline", "\n", line), ("end", "", line)]

    def _error(self, what: str) -> GrammarSyntaxError:
        return GrammarSyntaxError(f"Lark grammar, line {self.tokens[self.at][2]}: {what}")

    def _peek(self) -> str:
        return self.tokens[self.at][1]

    def _kind(self) -> str:
        return self.tokens[self.at][0]

    def _next(self, kind: str | None = None, what: str = "") -> str:
        if kind is not None and self._kind() != kind:
            raise self._error(f"{what or kind} was expected, not {self._peek()!r}")
        self.at += 1
        return self.tokens[self.at - 1][1]

    def _take(self, sign: str) -> bool:
        if self._kind() == "sign" and self._peek() == sign:
            self.at += 1
            return True
        return False

    def _expect(self, sign: str) -> None:
        if not self._take(sign):
            raise self._error(f"{sign!r} was expected, not {self._peek()!r}")

    def parse(self) -> LarkText:
        while self._kind() != "end":
            if self._kind() == "newline":
                self.at += 1
            elif self._peek().startswith("%"):
                self._directive()
            else:
                self._definition()
        return self.result

    def _directive(self) -> None:
        kind = self._next()
        if kind == "%ignore":
            self.result.ignored.append(self._alternatives())
        elif kind == "%import":
            self._import()
        elif kind == "%declare":
            while self._kind() == "name":
                self.result.declared.add(self._next())
        else:
            raise GrammarUnsupportedError(
                f"Lark grammar, line {self.tokens[self.at][2]}: {kind} is not supported"
            )
        self._end_of_line()

    def _end_of_line(self) -> None:
        self._next("newline", "the end of the line")

    def _import(self) -> None:
        relative = self._take(".")
        path = [self._next("name", "a module")]
        names: list[str] = []
        while self._take("."):
            path.append(self._next("name", "a name"))
        if self._take("("):
            names.append(self._next("name", "a name"))
            while self._take(","):
                names.append(self._next("name", "a name"))
            self._expect(")")
        else:
            names, path = [path[-1]], path[:-1]
        if relative or path != ["common"]:
            where = "." * relative + ".".join(path)
            raise GrammarUnsupportedError(
                f"Lark grammar: %import from {where!r} is not supported; only from common"
            )
        alias = self._next("name", "a name") if self._take("->") else ""
        for name in names:
            self.result.imports[alias or name] = name

    def _definition(self) -> None:
        line = self.tokens[self.at][2]
        name = self._next("name", "the name of a rule or terminal").lstrip("!?")
        parameters: list[str] = []
        if self._take("{"):
            parameters.append(self._next("name", "a parameter"))
            while self._take(","):
                parameters.append(self._next("name", "a parameter"))
            self._expect("}")
        priority = int(self._next("number", "a priority")) if self._take(".") else 0
        self._expect(":")
        definition = Definition(self._alternatives(), priority, tuple(parameters), line)
        self._end_of_line()
        table = self.result.terminals if is_terminal(name) else self.result.rules
        if name in table:
            raise GrammarSyntaxError(f"Lark grammar, line {line}: {name!r} is given twice")
        table[name] = definition

    def _bar(self) -> bool:
        """Takes a |, on this line or at the beginning of the next that has anything."""
        ahead = self.at
        while self.tokens[ahead][0] == "newline":
            ahead += 1
        if self.tokens[ahead][:2] == ("sign", "|"):
            self.at = ahead + 1
            return True
        return False

    def _skip_lines(self) -> None:
        if self.depth > 1:  # in brackets a line may end anywhere
            while self._kind() == "newline":
                self.at += 1

    def _alternatives(self) -> Tree:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise GrammarTooComplexError(f"a rule nests groups over {MAX_DEPTH} deep")
        options = [self._sequence()]  # empty where a | comes first, as Lark has it
        while self._bar():
            options.append(self._sequence())
        self._skip_lines()
        self.depth -= 1
        return options[0] if len(options) == 1 else ("alt", tuple(options))

    def _sequence(self) -> Tree:
        items: list[Tree] = []
        self._skip_lines()
        while self._kind() in ("string", "regex", "name") or self._peek() in ("(", "["):
            items.append(self._repeated(self._atom()))
            self._skip_lines()
        if self._take("->"):
            self._next("name", "an alias")
        return items[0] if len(items) == 1 else ("seq", tuple(items))

    def _repeated(self, tree: Tree) -> Tree:
        bounds = {"*": (0, UNBOUNDED), "+": (1, UNBOUNDED), "?": (0, 1)}
        if self._kind() == "sign" and self._peek() in bounds:
            return ("repeat", tree, *bounds[self._next()])
        if self._take("~"):
            least = int(self._next("number", "a count"))
            most = int(self._next("number", "a count")) if self._take("..") else least
        elif self._peek() == "{":
            self.at += 1
            least = 0 if self._peek() == "," else int(self._next("number", "a count"))
            most = least
            if self._take(","):
                most = int(self._next()) if self._kind() == "number" else UNBOUNDED
            self._expect("}")
        else:
            return tree
        if max(least, most) > MAX_COUNT:
            raise GrammarTooComplexError(f"a repeat count in the grammar is over {MAX_COUNT:,}")
        if least < 0 or (most != UNBOUNDED and most < least):
            raise self._error(f"the bounds {least}..{most} are out of order")
        return ("repeat", tree, least, most)

    def _atom(self) -> Tree:
        if self._take("("):
            tree = self._alternatives()
            self._expect(")")
            return tree
        if self._take("["):
            tree = self._alternatives()
            self._expect("]")
            return ("repeat", tree, 0, 1)
        kind, text = self._kind(), self._next()
        if kind == "string":
            body, flags = (text[1:-2], "i") if text.endswith("i") else (text[1:-1], "")
            literal = unescape(body)
            if self._take(".."):
                high = unescape(self._next("string", "a character")[1:-1])
                if len(literal) != 1 or len(high) != 1 or high < literal:
                    raise self._error("a range needs two single characters in order")
                return ("range", literal, high)
            return ("string", literal, flags)
        if kind == "regex":
            pattern, _, flags = text[1:].rpartition("/")
            return ("regex", pattern.replace("\\/", "/"), flags)
        if (
            self._peek() == "{"
            and self.tokens[self.at + 1][0] != "number"
            and self.tokens[self.at + 1][1] != ","
        ):
            self.at += 1
            arguments = [self._alternatives()]
            while self._take(","):
                arguments.append(self._alternatives())
            self._expect("}")
            return ("call", text, tuple(arguments))
        return ("name", text)


def is_terminal(name: str) -> bool:
    return name.lstrip("_")[:1].isupper()
