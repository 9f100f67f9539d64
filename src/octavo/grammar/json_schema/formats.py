"""The values of `format` that are enforced, each as a regular expression in the ECMA dialect.

Sources: RFC 3339 (dates), RFC 5321 and 5322 (mail), RFC 1123 (host names), RFC 2673 and 4291 (addresses), RFC
3986 (URIs), RFC 6901 (pointers), RFC 4122 (UUID).  Where a standard leaves a choice, the narrower reading is
taken: what is generated is then valid for every reader.
"""

from __future__ import annotations

from functools import cache

from octavo.grammar.front_ends.regex_syntax import RegexParser, Tree

#: What several formats have in common; `(?&name)` stands for one of them, which is read once.
_PARTS: dict[str, str] = {
    "leap": r"(?:[02468][048]|[13579][26])00|\d\d(?:0[48]|[2468][048]|[13579][26])",
    # Year 0 is not a year of Python's datetime, by which many check.
    "date": (
        r"(?!0000)(?:\d{4}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12]\d|3[01])|(?:0[469]|11)-(?:0[1-9]|[12]\d|30)"
        r"|02-(?:0[1-9]|1\d|2[0-8]))|(?&leap)-02-29)"
    ),
    "time": r"(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d{1,9})?(?:[Zz]|[+-](?:[01]\d|2[0-3]):[0-5]\d)",
    "label": r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?",
    # A third and fourth character "--" is reserved (RFC 5891).
    "host": r"(?!(?:[^.]*\.)*..--)(?=.{1,253}$)(?&label)(?:\.(?&label))*",
    "byte": r"25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d",
    "ipv4": r"(?&byte)(?:\.(?&byte)){3}",
    "h16": r"[0-9A-Fa-f]{1,4}",
    "group": r"(?&h16):",
    "ls32": r"(?&h16):(?&h16)|(?&ipv4)",
    "ipv6": "|".join(
        [r"(?&group){6}(?&ls32)", r"::(?&group){5}(?&ls32)", r"(?&h16)?::(?&group){4}(?&ls32)"]
        + [rf"(?:(?&group){{0,{n}}}(?&h16))?::(?&group){{{4 - n}}}(?&ls32)" for n in range(1, 5)]
        + [r"(?:(?&group){0,5}(?&h16))?::(?&h16)", r"(?:(?&group){0,6}(?&h16))?::"]
    ),
    "pchar": r"[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2}",
    "pchar_no_colon": r"[A-Za-z0-9._~!$&'()*+,;=@-]|%[0-9A-Fa-f]{2}",
    "reg_name": r"(?:[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*",
    "user": r"(?:[A-Za-z0-9._~!$&'()*+,;=:-]|%[0-9A-Fa-f]{2})*",
    "authority": r"(?:(?&user)@)?(?:\[(?&ipv6)\]|(?&reg_name))(?::\d{0,5})?",
    "query": r"(?:\?(?:(?&pchar)|[/?])*)?(?:#(?:(?&pchar)|[/?])*)?",
    "path_abempty": r"(?:/(?&pchar)*)*",
    "path_absolute": r"/(?:(?&pchar)+(?&path_abempty))?",
    "path_rootless": r"(?&pchar)+(?&path_abempty)",
    "uri": (
        r"[A-Za-z][A-Za-z0-9+.-]*:"
        r"(?://(?&authority)(?&path_abempty)|(?&path_absolute)|(?&path_rootless)|)(?&query)"
    ),
    "relative": (
        r"(?://(?&authority)(?&path_abempty)|(?&path_absolute)|(?&pchar_no_colon)+(?&path_abempty)|)(?&query)"
    ),
    "atom": r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+",
    "pointer": r"(?:/(?:[^~/]|~[01])*)*",
    "duration_time": r"T(?:\d+H(?:\d+M(?:\d+S)?)?|\d+M(?:\d+S)?|\d+S)",
    "expression": r"\{[+#./;?&]?[A-Za-z0-9_]+(?::[1-9]\d{0,3}|\*)?(?:,[A-Za-z0-9_]+(?::[1-9]\d{0,3}|\*)?)*\}",
}

FORMATS: dict[str, str] = {
    "date": r"(?&date)",
    "time": r"(?&time)",
    "date-time": r"(?&date)[Tt](?&time)",
    "duration": (
        r"P(?:\d+W|(?:\d+Y(?:\d+M(?:\d+D)?)?|\d+M(?:\d+D)?|\d+D)(?:(?&duration_time))?|(?&duration_time))"
    ),
    "email": r"(?=[^@]{1,64}@)(?&atom)(?:\.(?&atom))*@(?&host)",
    "hostname": r"(?&host)",
    "ipv4": r"(?&ipv4)",
    "ipv6": r"(?&ipv6)",
    "uri": r"(?&uri)",
    "uri-reference": r"(?&uri)|(?&relative)",
    "uri-template": r"(?:[A-Za-z0-9._~!$&()*+,;=:@/?#\[\]-]|%[0-9A-Fa-f]{2}|(?&expression))*",
    "uuid": r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}",
    "json-pointer": r"(?&pointer)",
    "relative-json-pointer": r"(?:0|[1-9]\d*)(?:#|(?&pointer))",
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
    """The regular expression of a format, read once."""
    exact = f"^(?:{FORMATS[name]})$"
    return RegexParser(WIDEST.get(name, exact) if widest else exact, parts=_part).parse()


@cache
def _part(name: str) -> Tree:
    return RegexParser(_PARTS[name], parts=_part).parse()
