"""Regular expressions as people write them -> a tree.  Dialects: "ecma" (JSON Schema's pattern) and "python".

A tree is a tuple: ("set", intervals), ("seq", trees), ("alt", trees), ("repeat", tree, least, most),
("start",), ("end",), ("word", inside?) and ("look", ahead?, wanted?, tree).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from octavo.grammar.errors import GrammarSyntaxError, GrammarTooComplexError, GrammarUnsupportedError
from octavo.grammar.expressions import UNBOUNDED, Interval, invert_intervals, merge_intervals
from octavo.grammar.front_ends.characters import ignore_case, line_ends, named_class, unicode_category

Tree = tuple[Any, ...]
MAX_DEPTH = 100
MAX_LENGTH = 100_000

_BOUNDS = {"*": (0, UNBOUNDED), "+": (1, UNBOUNDED), "?": (0, 1)}
_CONTROLS = {"n": 10, "r": 13, "t": 9, "f": 12, "v": 11, "0": 0, "a": 7}


class RegexParser:
    """One pass over the pattern, by recursive descent of bounded depth.

    `parts` gives the trees that `(?&name)` stands for, which is an error otherwise.
    """

    def __init__(
        self,
        pattern: str,
        dialect: str = "ecma",
        flags: str = "",
        parts: Callable[[str], Tree] | None = None,
    ) -> None:
        if dialect not in ("ecma", "python"):
            raise GrammarSyntaxError(f'the regex dialect is "ecma" or "python", not {dialect!r}')
        if len(pattern) > MAX_LENGTH:
            raise GrammarTooComplexError(f"a regex has {len(pattern)} characters; the limit is {MAX_LENGTH}")
        self.pattern = pattern
        self.dialect = dialect
        self.parts = parts
        self.at = 0
        self.depth = 0
        self.ignore_case = "i" in flags
        self.dot_all = "s" in flags
        self.lazy: list[Tree] = []  # the repeats that asked for the shortest match

    def parse(self) -> Tree:
        while self.pattern.startswith("(?", self.at):
            end = self.pattern.find(")", self.at)
            flags = self.pattern[self.at + 2 : end] if end > 0 else ""
            if not flags or not set(flags) <= set("isuax"):
                break
            if "x" in flags:
                raise GrammarUnsupportedError(self._where("the verbose flag (?x) is not supported"))
            self.ignore_case |= "i" in flags
            self.dot_all |= "s" in flags
            self.at = end + 1
        tree = self._alternatives()
        if self.at < len(self.pattern):
            raise GrammarSyntaxError(self._where("unmatched )"))
        return tree

    def _where(self, what: str) -> str:
        return f"{what}, at character {self.at} of the regex {self.pattern[:80]!r}"

    def _peek(self) -> str:
        return self.pattern[self.at : self.at + 1]

    def _take(self, text: str) -> bool:
        if self.pattern.startswith(text, self.at):
            self.at += len(text)
            return True
        return False

    def _alternatives(self) -> Tree:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise GrammarTooComplexError(f"a regex nests groups over {MAX_DEPTH} deep")
        options = [self._sequence()]
        while self._take("|"):
            options.append(self._sequence())
        self.depth -= 1
        return options[0] if len(options) == 1 else ("alt", options)

    def _sequence(self) -> Tree:
        items: list[Tree] = []
        while self.at < len(self.pattern) and self._peek() not in "|)":
            items.append(self._quantified(self._atom()))
        return items[0] if len(items) == 1 else ("seq", items)

    def _quantified(self, tree: Tree) -> Tree:
        while bounds := self._bounds():
            if tree[0] in ("start", "end", "word"):
                raise GrammarSyntaxError(self._where("nothing to repeat"))
            tree = ("repeat", tree, *bounds)
            if self._take("?"):
                self.lazy.append(tree)
            elif self._peek() == "+":
                raise GrammarUnsupportedError(self._where("possessive quantifiers are not supported"))
        return tree

    def _bounds(self) -> tuple[int, int] | None:
        sign = self._peek()
        if sign in _BOUNDS:
            self.at += 1
            return _BOUNDS[sign]
        if sign != "{":
            return None
        end = self.pattern.find("}", self.at)
        low, comma, high = self.pattern[self.at + 1 : max(end, 0)].partition(",")
        if end < 0 or not (low.isdecimal() or (comma and not low and self.dialect == "python")):
            return None
        if high and not high.isdecimal():
            return None
        self.at = end + 1
        least = int(low or 0)
        most = least if not comma else int(high) if high else UNBOUNDED
        if most not in (UNBOUNDED,) and most < least:
            raise GrammarSyntaxError(self._where(f"the bounds {{{least},{most}}} are out of order"))
        if max(least, most) > 1_000_000:
            raise GrammarTooComplexError(self._where("a repeat count is over 1,000,000"))
        return least, most

    def _atom(self) -> Tree:
        character = self._peek()
        self.at += 1
        if character not in "([.^$\\*+?":
            return self._set(((ord(character), ord(character)),))
        if character == "(":
            return self._group()
        if character == "[":
            return self._set(self._class())
        if character == ".":
            return ("set", ((0, 0x10FFFF),) if self.dot_all else invert_intervals(line_ends(self.dialect)))
        if character == "^":
            return ("start",)
        if character == "$":
            return ("end",)
        if character == "\\":
            return self._escape()
        self.at -= 1
        raise GrammarSyntaxError(self._where("nothing to repeat"))

    def _set(self, intervals: tuple[Interval, ...]) -> Tree:
        return ("set", ignore_case(intervals) if self.ignore_case else intervals)

    def _group(self) -> Tree:
        tree: Tree
        if not self._take("?"):
            tree = self._alternatives()
        elif self._take("="):
            tree = ("look", True, True, self._alternatives())
        elif self._take("!"):
            tree = ("look", True, False, self._alternatives())
        elif self._take("<="):
            tree = ("look", False, True, self._alternatives())
        elif self._take("<!"):
            tree = ("look", False, False, self._alternatives())
        elif self._take("<") or self._take("P<"):
            self.at = self.pattern.find(">", self.at) + 1
            if self.at == 0:
                raise GrammarSyntaxError(self._where("a group's name does not end"))
            tree = self._alternatives()
        elif self._take(":"):
            tree = self._alternatives()
        else:
            tree = self._flagged_group()
        if not self._take(")"):
            raise GrammarSyntaxError(self._where("a group does not end"))
        return tree

    def _flagged_group(self) -> Tree:
        if self.parts and self._take("&"):
            start, self.at = self.at, self.pattern.index(")", self.at)
            return self.parts(self.pattern[start : self.at])
        colon = self.pattern.find(":", self.at)
        flags = self.pattern[self.at : max(colon, 0)]
        on, minus, off = flags.partition("-")
        if not (on or off) or not set(on + off) <= set("isu") or (minus and not off):
            raise GrammarUnsupportedError(self._where("this kind of group is not supported"))
        saved = self.ignore_case, self.dot_all
        self.ignore_case = ("i" in on or self.ignore_case) and "i" not in off
        self.dot_all = ("s" in on or self.dot_all) and "s" not in off
        self.at = colon + 1
        tree = self._alternatives()
        self.ignore_case, self.dot_all = saved
        return tree

    def _escape(self) -> Tree:
        character = self._peek()
        if character in "bB" and character:
            self.at += 1
            return ("word", character == "b")
        if self.dialect == "python" and character in "AZz" and character:
            self.at += 1
            return ("start",) if character == "A" else ("end",)
        if character.isdecimal() and character != "0":
            raise GrammarUnsupportedError(self._where("backreferences are not regular and not supported"))
        if character == "k" and self.pattern.startswith("k<", self.at):
            raise GrammarUnsupportedError(self._where("backreferences are not regular and not supported"))
        return self._set(self._escaped_set())

    def _escaped_set(self) -> tuple[Interval, ...]:  # noqa: C901 - one branch for each kind
        """After a backslash: a class or a single character."""
        character = self._peek()
        if not character:
            raise GrammarSyntaxError(self._where("a backslash ends the pattern"))
        self.at += 1
        if character in "dDwWsS":
            return named_class(character, self.dialect)
        if character in "pP":
            return self._property(character == "P")
        code = _CONTROLS.get(character, ord(character))
        if character == "x":
            code = self._hex(2)
        elif character == "u":
            code = self._braced() if self._peek() == "{" else self._hex(4)
            if 0xD800 <= code <= 0xDBFF and self._take("\\u"):
                code = 0x10000 + ((code - 0xD800) << 10) + (self._hex(4) - 0xDC00)
        elif character == "U" and self.dialect == "python":
            code = self._hex(8)
        elif character == "c" and self._peek().isalpha():
            code = ord(self._peek()) % 32
            self.at += 1
        elif character == "a" and self.dialect == "ecma":
            code = ord("a")
        elif character.isalpha() and character not in _CONTROLS and character.isascii():
            raise GrammarSyntaxError(self._where(f"\\{character} is not an escape"))
        return ((code, code),)

    def _hex(self, digits: int) -> int:
        text = self.pattern[self.at : self.at + digits]
        try:
            value = int(text, 16) if len(text) == digits and text.isalnum() else -1
        except ValueError:
            value = -1
        if not 0 <= value <= 0x10FFFF:
            raise GrammarSyntaxError(self._where(f"{digits} hex digits of a character were expected"))
        self.at += digits
        return value

    def _braced(self) -> int:
        end = self.pattern.find("}", self.at)
        text = self.pattern[self.at + 1 : max(end, 0)]
        if not text or len(text) > 6 or any(c not in "0123456789abcdefABCDEF" for c in text):
            raise GrammarSyntaxError(self._where("a code point in braces was expected"))
        self.at = end + 1
        return min(int(text, 16), 0x10FFFF)

    def _property(self, inverted: bool) -> tuple[Interval, ...]:
        name = self._peek()
        if name == "{":
            end = self.pattern.find("}", self.at)
            name = self.pattern[self.at + 1 : max(end, 0)]
            self.at = end
        self.at += 1
        intervals = unicode_category(name)
        if intervals is None:
            raise GrammarUnsupportedError(self._where(f"the Unicode property {name!r} is not supported"))
        return invert_intervals(intervals) if inverted else intervals

    def _class(self) -> tuple[Interval, ...]:
        inverted = self._take("^")
        members: list[Interval] = []
        first = True
        while self._peek() != "]" or (first and self.dialect == "python"):
            first = False
            if not self._peek():
                raise GrammarSyntaxError(self._where("a character class does not end"))
            low = self._member()
            if len(low) == 1 and low[0][0] == low[0][1] and self._peek() == "-":
                following = self.pattern[self.at + 1 : self.at + 2]
                if following and following != "]":
                    self.at += 1
                    high = self._member()
                    if len(high) != 1 or high[0][0] != high[0][1]:
                        members += [*low, (45, 45), *high]
                        continue
                    if high[0][1] < low[0][0]:
                        raise GrammarSyntaxError(self._where("a range of characters is out of order"))
                    low = ((low[0][0], high[0][1]),)
            members += low
        self.at += 1
        if self.ignore_case:
            members = list(ignore_case(merge_intervals(members)))
        return invert_intervals(members) if inverted else merge_intervals(members)

    def _member(self) -> tuple[Interval, ...]:
        character = self._peek()
        self.at += 1
        if character != "\\":
            return ((ord(character), ord(character)),)
        if self._take("b"):
            return ((8, 8),)
        if self._take("-"):
            return ((45, 45),)
        return self._escaped_set()
