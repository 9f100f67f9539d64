"""The values of `format` that are enforced, each as a regular expression in the ECMA dialect.

Sources: RFC 3339 (dates), RFC 5321 and 5322 (mail), RFC 1123 (host names), RFC 2673 and 4291 (addresses), RFC
3986 (URIs), RFC 6901 (pointers), RFC 4122 (UUID).  Where a standard leaves a choice, the narrower reading is
taken: what is generated is then valid for every reader.
"""

from __future__ import annotations

from functools import cache

from octavo.grammar.front_ends.regex_syntax import RegexParser, Tree

_LEAP = r"(?:(?:[02468][048]|[13579][26])00|\d\d(?:0[48]|[2468][048]|[13579][26]))"
_DATE = (
    r"(?:\d{4}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12]\d|3[01])|(?:0[469]|11)-(?:0[1-9]|[12]\d|30)"
    rf"|02-(?:0[1-9]|1\d|2[0-8]))|{_LEAP}-02-29)"
)
# Year 0 is not a year of Python's datetime, by which many check.
_DATE = rf"(?!0000){_DATE}"
_TIME = r"(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d{1,9})?(?:[Zz]|[+-](?:[01]\d|2[0-3]):[0-5]\d)"
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
# A third and fourth character "--" is reserved (RFC 5891).
_HOST = rf"(?!(?:[^.]*\.)*..--)(?=.{{1,253}}$){_LABEL}(?:\.{_LABEL})*"
_BYTE = r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
_IPV4 = rf"{_BYTE}(?:\.{_BYTE}){{3}}"
_H16 = r"[0-9A-Fa-f]{1,4}"
_LS32 = rf"(?:{_H16}:{_H16}|{_IPV4})"
_IPV6 = "(?:" + "|".join(
    [rf"(?:{_H16}:){{6}}{_LS32}", rf"::(?:{_H16}:){{5}}{_LS32}"]
    + [rf"(?:{_H16})?::(?:{_H16}:){{4}}{_LS32}"]
    + [rf"(?:(?:{_H16}:){{0,{n}}}{_H16})?::(?:{_H16}:){{{4 - n}}}{_LS32}" for n in range(1, 5)]
    + [rf"(?:(?:{_H16}:){{0,5}}{_H16})?::{_H16}", rf"(?:(?:{_H16}:){{0,6}}{_H16})?::"]
) + ")"  # fmt: skip
_PCHAR = r"(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})"
_PCHAR_NO_COLON = r"(?:[A-Za-z0-9._~!$&'()*+,;=@-]|%[0-9A-Fa-f]{2})"
_REG_NAME = r"(?:[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*"
_USER = r"(?:[A-Za-z0-9._~!$&'()*+,;=:-]|%[0-9A-Fa-f]{2})*"
_AUTHORITY = rf"(?:{_USER}@)?(?:\[{_IPV6}\]|{_REG_NAME})(?::\d{{0,5}})?"
_QUERY = rf"(?:\?(?:{_PCHAR}|[/?])*)?(?:#(?:{_PCHAR}|[/?])*)?"
_PATH_ABEMPTY = rf"(?:/{_PCHAR}*)*"
_PATH_ABSOLUTE = rf"/(?:{_PCHAR}+(?:/{_PCHAR}*)*)?"
_PATH_ROOTLESS = rf"{_PCHAR}+(?:/{_PCHAR}*)*"
_URI = (
    rf"[A-Za-z][A-Za-z0-9+.-]*:(?://{_AUTHORITY}{_PATH_ABEMPTY}|{_PATH_ABSOLUTE}|{_PATH_ROOTLESS}|){_QUERY}"
)
_RELATIVE = rf"(?://{_AUTHORITY}{_PATH_ABEMPTY}|{_PATH_ABSOLUTE}|{_PCHAR_NO_COLON}+(?:/{_PCHAR}*)*|){_QUERY}"
_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_EMAIL = rf"(?=[^@]{{1,64}}@){_ATOM}(?:\.{_ATOM})*@{_HOST}"
_POINTER = r"(?:/(?:[^~/]|~[01])*)*"
_DURATION_TIME = r"T(?:\d+H(?:\d+M(?:\d+S)?)?|\d+M(?:\d+S)?|\d+S)"
_DURATION = rf"P(?:\d+W|(?:\d+Y(?:\d+M(?:\d+D)?)?|\d+M(?:\d+D)?|\d+D)(?:{_DURATION_TIME})?|{_DURATION_TIME})"

_EXPRESSION = r"\{[+#./;?&]?[A-Za-z0-9_]+(?::[1-9]\d{0,3}|\*)?(?:,[A-Za-z0-9_]+(?::[1-9]\d{0,3}|\*)?)*\}"
_TEMPLATE = rf"(?:[A-Za-z0-9._~!$&()*+,;=:@/?#\[\]-]|%[0-9A-Fa-f]{{2}}|{_EXPRESSION})*"

FORMATS: dict[str, str] = {
    "date": _DATE,
    "time": _TIME,
    "date-time": rf"{_DATE}[Tt]{_TIME}",
    "duration": _DURATION,
    "email": _EMAIL,
    "hostname": _HOST,
    "ipv4": _IPV4,
    "ipv6": _IPV6,
    "uri": _URI,
    "uri-reference": rf"(?:{_URI}|{_RELATIVE})",
    "uri-template": _TEMPLATE,
    "uuid": r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}",
    "json-pointer": _POINTER,
    "relative-json-pointer": rf"(?:0|[1-9]\d*)(?:#|{_POINTER})",
}

#: What every reading of the standard requires: its complement is what surely lacks the format.
WIDEST: dict[str, str] = {
    "email": r".@.",
    "hostname": r"^[^ ]+$",
    "uri": r"^[A-Za-z][A-Za-z0-9+.-]*:",
    "uri-reference": r"",
    "uri-template": r"",
    "time": r"^\d\d:\d\d",
    "date-time": r"^\d{4}-\d\d-\d\d",
    "duration": r"^P",
    "date": r"^\d{4}-\d\d-\d\d$",
    "uuid": r"^[0-9A-Fa-f-]+$",
    "ipv6": r":",
}


@cache
def format_tree(name: str, widest: bool = False) -> Tree:
    """The regular expression of a format, read once; equal parts of it are one tree, compiled once."""
    exact = f"^(?:{FORMATS[name]})$"
    return _shared(RegexParser(WIDEST.get(name, exact) if widest else exact).parse(), {})


def _shared(tree: Tree, known: dict[Tree, Tree]) -> Tree:
    parts = [_shared(p, known) if isinstance(p, tuple) and p and isinstance(p[0], str) else p for p in tree]
    key = tuple(id(p) if isinstance(p, tuple) and p and isinstance(p[0], str) else p for p in parts)
    if isinstance(parts[-1], list):
        parts[-1] = [_shared(p, known) for p in parts[-1]]
        key = (*key[:-1], *map(id, parts[-1]))
    return known.setdefault(key, tuple(parts))
