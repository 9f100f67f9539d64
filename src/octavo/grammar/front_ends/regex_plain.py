"""Regular expressions of a plain kind, which surely compile and match some text: known in microseconds.

Plain are ASCII characters, classes, short escapes, groups, alternatives and counts, with `^` at most first
and `$` at most last (or, without groups, at the ends of each alternative).  What is not plain may well be
right: `compile_regex`, the slow twin, decides then.
"""

from __future__ import annotations

import re
from functools import lru_cache

MAX_LENGTH = 1000
MAX_GROUPS = 20  # one in the other

_SIGN = r"""(?:[nrtfv.\\/^$*+?()\[\]{}|:"'@#%&=<>,;!~_ -]|x[0-7][0-9a-f])"""
_RANGE = r"(?:[^\\\[\]^-]-[^\\\[\]^-]|\\x[0-7][0-9a-f]-\\x[0-7][0-9a-f])"


def _members(letters: str) -> str:
    """Of a class, a dash only where no range can be meant; `letters` are those of the classes with names."""
    member = rf"{_RANGE}-?|\\[{letters}]-?|\\{_SIGN}(?!-[^\]])|[^\\\[\]^-]"
    return rf"-?(?:{member})(?:{member}|\^)*-?"


# What a class leaves out is never everything: no capital letters are among it.
_ATOM = re.compile(rf"\\(?:[dDwWsS]|{_SIGN})|\[(?:({_members('dDwWsS')})|\^({_members('dws')}))\]")
_COUNT = r"(?:(?:[*+?]|\{\d{1,4}(?:,(?:\d{1,4})?)?\})\??)?"
_FLAT = rf"\^?(?:[^\\\[\](){{}}*+?|^$]{_COUNT})*\$?"
_GROUPED = rf"\^?(?:[^\\\[\]({{}}*+?|^$]{_COUNT}|\((?:\?:)?|\|)*\$?"
_SKELETON = re.compile(rf"{_FLAT}(?:\|{_FLAT})*|{_GROUPED}")
_COUNTS = re.compile(r"\{(\d+),?(\d*)\}")
_RANGES = re.compile(r"\\x(..)-\\x(..)|\\.|([^\\])-([^\\])|.", re.DOTALL)
_NO_GROUPS = re.compile(r"[^()]+")
_NO_LENGTH = re.compile(r"\{[^}]*\}|\(\?:|[()^$|*+?]")


def plain_length(pattern: str) -> int | None:
    """None where a pattern is not plain; otherwise some text of at most so many characters matches it.

    A plain pattern has no error in `compile_regex(..., "ecma", search=True)`.
    """
    return _length(pattern) if len(pattern) <= MAX_LENGTH and pattern.isascii() else None


@lru_cache(maxsize=1024)
def _length(pattern: str) -> int | None:
    skeleton = _ATOM.sub("x", pattern)  # what is no atom leaves its backslash or bracket behind
    if not _SKELETON.fullmatch(skeleton):
        return None
    if "(" in skeleton or ")" in skeleton:
        brackets = _NO_GROUPS.sub("", skeleton)
        for _ in range(MAX_GROUPS):
            brackets = brackets.replace("()", "")
        if brackets:
            return None
    if "-" in pattern and not _rising(pattern):
        return None
    length, times = len(_NO_LENGTH.sub("", skeleton)), 1
    if "{" in skeleton:
        for least, most in _COUNTS.findall(skeleton):
            if most and int(most) < int(least):
                return None
            times *= max(int(least), 1)
    return length * times


def _rising(pattern: str) -> bool:
    """Whether the ranges in its classes are in order."""
    return all(
        first <= last and low <= high
        for members, left_out in _ATOM.findall(pattern)
        for first, last, low, high in _RANGES.findall(members or left_out)
    )
