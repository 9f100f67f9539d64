"""Classes of characters by the letters that regexes give them, per dialect."""

from __future__ import annotations

import unicodedata
from functools import cache

from octavo.grammar.expressions import Interval, invert_intervals, merge_intervals

DIGITS: tuple[Interval, ...] = ((48, 57),)
WORD: tuple[Interval, ...] = ((48, 57), (65, 90), (95, 95), (97, 122))
# ECMA-262 white space and line terminators.
ECMA_SPACE: tuple[Interval, ...] = (
    (9, 13), (32, 32), (0xA0, 0xA0), (0x1680, 0x1680), (0x2000, 0x200A), (0x2028, 0x2029), (0x202F, 0x202F),
    (0x205F, 0x205F), (0x3000, 0x3000), (0xFEFF, 0xFEFF),
)  # fmt: skip
ECMA_LINE_ENDS: tuple[Interval, ...] = ((10, 10), (13, 13), (0x2028, 0x2029))
PYTHON_LINE_ENDS: tuple[Interval, ...] = ((10, 10),)

_LONG_NAMES = {
    "letter": "L", "uppercase_letter": "Lu", "lowercase_letter": "Ll", "titlecase_letter": "Lt",
    "modifier_letter": "Lm", "other_letter": "Lo", "mark": "M", "number": "N", "decimal_number": "Nd",
    "letter_number": "Nl", "other_number": "No", "punctuation": "P", "symbol": "S", "separator": "Z",
    "space_separator": "Zs", "other": "C", "control": "Cc", "format": "Cf", "digit": "Nd", "punct": "P",
}  # fmt: skip
_CATEGORIES = frozenset(
    "L Lu Ll Lt Lm Lo M Mn Mc Me N Nd Nl No P Pc Pd Ps Pe Pi Pf Po S Sm Sc Sk So".split()
    + "Z Zs Zl Zp C Cc Cf Co Cn".split()
)


def _where(test) -> tuple[Interval, ...]:  # type: ignore[no-untyped-def]
    return merge_intervals((code, code) for code in range(0x110000) if test(chr(code)))


@cache
def unicode_category(name: str) -> tuple[Interval, ...] | None:
    """The characters of a general category such as L, Lu or Letter; None where there is none of that name."""
    name = name.removeprefix("General_Category=").removeprefix("gc=")
    short = _LONG_NAMES.get(name.lower(), name)
    if short == "ASCII":
        return ((0, 0x7F),)
    if short in ("Any",):
        return ((0, 0x10FFFF),)
    if short in ("Alphabetic", "Alpha"):
        return _where(str.isalpha)
    if short not in _CATEGORIES:
        return None
    return _where(lambda c: unicodedata.category(c).startswith(short))


@cache
def named_class(letter: str, dialect: str) -> tuple[Interval, ...]:
    """The characters of \\d, \\w, \\s; of their complements for the capital letters."""
    if letter.isupper():
        return invert_intervals(named_class(letter.lower(), dialect))
    if dialect == "ecma":
        return {"d": DIGITS, "w": WORD, "s": ECMA_SPACE}[letter]
    if letter == "d":
        return _where(str.isdecimal)
    if letter == "s":
        return _where(str.isspace)
    return _where(lambda c: c.isalnum() or c == "_")


def line_ends(dialect: str) -> tuple[Interval, ...]:
    return ECMA_LINE_ENDS if dialect == "ecma" else PYTHON_LINE_ENDS


def ignore_case(intervals: tuple[Interval, ...]) -> tuple[Interval, ...]:
    """The characters and those that differ from them only in case."""
    if sum(high - low + 1 for low, high in intervals) > 100_000:
        return intervals
    result = list(intervals)
    for low, high in intervals:
        for code in range(low, high + 1):
            for other in (chr(code).lower(), chr(code).upper(), chr(code).swapcase()):
                if len(other) == 1:
                    result.append((ord(other), ord(other)))
    return merge_intervals(result)
