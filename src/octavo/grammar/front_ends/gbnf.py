"""GBNF, llama.cpp's grammar notation -> a recursive network; parts without rule names are one automaton."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from octavo.grammar.errors import GrammarEmptyError, GrammarSyntaxError, GrammarTooComplexError
from octavo.grammar.expressions import UNBOUNDED, Algebra, Interval, invert_intervals
from octavo.grammar.front_ends.left_recursion import remove_left_recursion, trim
from octavo.grammar.network import Position, Return, Silent
from octavo.grammar.text_positions import PlainText

# ("text", expression), ("rule", name), ("seq", items), ("alt", items), ("repeat", item, least, most)
Item = tuple[Any, ...]
MAX_RULES = 50_000
MAX_DEPTH = 100
_SPACE = " \t\r\n"
_ESCAPES = {"n": 10, "r": 13, "t": 9, "\\": 92, '"': 34, "[": 91, "]": 93, "-": 45, "^": 94, "/": 47}


@dataclass(eq=False)
class Rules:
    """Named rules over one algebra; positions refer to them by identity."""

    algebra: Algebra = field(default_factory=Algebra)
    items: dict[str, Item] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Sequence_(Silent):  # noqa: N801 - the bare name is typing's
    """Items still to be read in a rule."""

    rules: Rules
    items: tuple[Item, ...]

    def ending(self) -> int | None:
        return None if self.items else 0

    def calls(self) -> Sequence[tuple[Position, Return | None]]:
        if not self.items:
            return ()
        first, rest = self.items[0], self.items[1:]
        after = Rest(self.rules, rest) if rest else None
        kind = first[0]
        if kind == "text":
            return [(PlainText(self.rules.algebra, first[1]), after)]
        if kind == "rule":
            return [(Sequence_(self.rules, (self.rules.items[first[1]],)), after)]
        if kind == "seq":
            return [(Sequence_(self.rules, (*first[1], *rest)), None)]
        if kind == "alt":
            return [(Sequence_(self.rules, (option, *rest)), None) for option in first[1]]
        _, body, least, most = first
        result: list[tuple[Position, Return | None]] = []
        if least == 0:
            result.append((Sequence_(self.rules, rest), None))
        if most == 1:
            result.append((Sequence_(self.rules, (body, *rest)), None))
        elif most != 0:
            again = ("repeat", body, max(least - 1, 0), most if most == UNBOUNDED else most - 1)
            result.append((Sequence_(self.rules, (body, again, *rest)), None))
        return result


@dataclass(frozen=True, slots=True)
class Rest:
    rules: Rules
    items: tuple[Item, ...]

    def resume(self, label: int) -> Position | None:
        return Sequence_(self.rules, self.items)


class GbnfParser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.depth = 0
        self.rules = Rules()
        self.references: dict[str, int] = {}

    def parse(self) -> Rules:
        self._skip()
        while self.at < len(self.text):
            name = self._name()
            self._skip()
            if not self.text.startswith("::=", self.at):
                raise self._error(f'"::=" was expected after {name!r}')
            self.at += 3
            if name in self.rules.items:
                raise self._error(f"the rule {name!r} is given twice")
            if len(self.rules.items) >= MAX_RULES:
                raise GrammarTooComplexError(f"the grammar has over {MAX_RULES} rules")
            self.rules.items[name] = self._alternatives()
            self._skip()
        for name, where in self.references.items():
            if name not in self.rules.items:
                self.at = where
                raise self._error(f"there is no rule {name!r}")
        return self.rules

    def _error(self, what: str) -> GrammarSyntaxError:
        line = self.text.count("\n", 0, self.at) + 1
        return GrammarSyntaxError(f"GBNF, line {line}: {what}")

    def _skip(self) -> None:
        while self.at < len(self.text):
            if self.text[self.at] in _SPACE:
                self.at += 1
            elif self.text[self.at] == "#":
                end = self.text.find("\n", self.at)
                self.at = len(self.text) if end < 0 else end
            else:
                return

    def _name(self) -> str:
        start = self.at
        while self.at < len(self.text) and (self.text[self.at].isalnum() or self.text[self.at] in "-_"):
            self.at += 1
        if start == self.at:
            raise self._error(f"a rule's name was expected, not {self.text[self.at : self.at + 10]!r}")
        return self.text[start : self.at]

    def _alternatives(self) -> Item:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise GrammarTooComplexError(f"a rule nests groups over {MAX_DEPTH} deep")
        options = [self._sequence()]
        while self.at < len(self.text) and self.text[self.at] == "|":
            self.at += 1
            options.append(self._sequence())
        self.depth -= 1
        if all(option[0] == "text" for option in options):
            return ("text", self.rules.algebra.either(*(option[1] for option in options)))
        return ("alt", tuple(options))

    def _sequence(self) -> Item:
        items: list[Item] = []
        algebra = self.rules.algebra
        while True:
            self._skip()
            if self.at >= len(self.text) or self.text[self.at] in "|)" or self._at_rule():
                break
            item = self._repeated(self._element())
            if items and items[-1][0] == item[0] == "text":
                items[-1] = ("text", algebra.concat(items[-1][1], item[1]))
            else:
                items.append(item)
        if not items:
            return ("text", algebra.epsilon)
        return items[0] if len(items) == 1 else ("seq", tuple(items))

    def _at_rule(self) -> bool:
        """Whether the next rule begins here: a name and "::="."""
        saved = self.at
        try:
            self._name()
            while self.at < len(self.text) and self.text[self.at] in " \t":
                self.at += 1
            return self.text.startswith("::=", self.at)
        except GrammarSyntaxError:
            return False
        finally:
            self.at = saved

    def _element(self) -> Item:
        character = self.text[self.at]
        algebra = self.rules.algebra
        if character == '"':
            self.at += 1
            codes = []
            while self._peek() != '"':
                codes.append(self._character())
            self.at += 1
            return ("text", algebra.concat(*(algebra.characters([(code, code)]) for code in codes)))
        if character == "[":
            return ("text", algebra.characters(self._class()))
        if character == ".":
            self.at += 1
            return ("text", algebra.any_character)
        if character == "(":
            self.at += 1
            item = self._alternatives()
            if self._peek() != ")":
                raise self._error("a group does not end")
            self.at += 1
            return item
        where = self.at
        name = self._name()
        self.references.setdefault(name, where)
        return ("rule", name)

    def _peek(self) -> str:
        if self.at >= len(self.text):
            raise self._error("the grammar ends too early")
        return self.text[self.at]

    def _character(self) -> int:
        character = self._peek()
        self.at += 1
        if character != "\\":
            return ord(character)
        escape = self._peek()
        self.at += 1
        digits = {"x": 2, "u": 4, "U": 8}.get(escape)
        if digits:
            text = self.text[self.at : self.at + digits]
            self.at += digits
            try:
                return min(int(text, 16), 0x10FFFF)
            except ValueError:
                raise self._error(f"{text!r} are not {digits} hex digits") from None
        if escape not in _ESCAPES:
            raise self._error(f"\\{escape} is not an escape")
        return _ESCAPES[escape]

    def _class(self) -> tuple[Interval, ...]:
        self.at += 1
        inverted = self._peek() == "^"
        self.at += inverted
        members: list[Interval] = []
        while self._peek() != "]":
            low = high = self._character()
            if self._peek() == "-" and self.text[self.at + 1 : self.at + 2] not in ("]", ""):
                self.at += 1
                high = self._character()
                if high < low:
                    raise self._error("a range of characters is out of order")
            members.append((low, high))
        self.at += 1
        return invert_intervals(members) if inverted else tuple(members)

    def _repeated(self, item: Item) -> Item:
        while self.at < len(self.text) and self.text[self.at] in "*+?{":
            sign = self.text[self.at]
            self.at += 1
            bounds = {"*": (0, UNBOUNDED), "+": (1, UNBOUNDED), "?": (0, 1)}.get(sign) or self._bounds()
            if item[0] == "text":
                item = ("text", self.rules.algebra.repeat(item[1], *bounds))
            else:
                item = ("repeat", item, *bounds)
        return item

    def _bounds(self) -> tuple[int, int]:
        end = self.text.find("}", self.at)
        low, comma, high = (part.strip() for part in self.text[self.at : max(end, 0)].partition(","))
        if end < 0 or not low.isdecimal() or (high and not high.isdecimal()):
            raise self._error("{m}, {m,} or {m,n} was expected")
        self.at = end + 1
        least = int(low)
        most = least if not comma else int(high) if high else UNBOUNDED
        if max(least, most) > 1_000_000:
            raise GrammarTooComplexError("a repeat count in the grammar is over 1,000,000")
        if most != UNBOUNDED and most < least:
            raise self._error(f"the bounds {{{least},{most}}} are out of order")
        return least, most


def compile_gbnf(text: str, root: str = "root") -> Position:
    rules = GbnfParser(text).parse()
    if root not in rules.items:
        raise GrammarSyntaxError(
            f"the grammar has no rule {root!r}; it has {', '.join(list(rules.items)[:20])}"
        )
    productive = trim(rules.items, lambda item: rules.algebra.live(item[1]))
    if root not in productive:
        raise GrammarEmptyError(f"no text can ever complete the rule {root!r}")
    rules.items = remove_left_recursion(productive, root, lambda item: rules.algebra.nullable(item[1]))
    return Sequence_(rules, (("rule", root),))
