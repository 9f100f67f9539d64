"""Languages that come with the package: Lark grammars, with what Lark's notation cannot say."""

from __future__ import annotations

import re
from importlib.resources import files
from typing import Any

from octavo.grammar.errors import GrammarError
from octavo.grammar.front_ends.lark import ModeNames, compile_lark
from octavo.grammar.network import Position

LANGUAGES = ("json", "python", "sql")


def compile_language(name: str, **options: Any) -> tuple[Position, str]:
    """The network of a language, and what it is."""
    if name == "sql":
        return compile_lark(_text("sql.lark"), reserved={"NAME": _SQL_KEYWORDS}), "SQL (SQLite core)"
    if name == "python":
        return _python(**options), "Python"
    raise GrammarError(f"there is no language {name!r}; there are {', '.join(LANGUAGES)}")


def _text(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


# What SQLite cannot take as a name without quotes (sqlite.org/lang_keywords.html), and what our rules need.
_SQL_KEYWORDS = (
    "add all alter and as asc autoincrement begin between by case cast check collate commit constraint "
    "create cross current current_date current_time current_timestamp default deferrable delete desc "
    "distinct do drop else end escape except exists explain false filter foreign from full glob group "
    "having if in index indexed inner insert intersect into is isnull join left like limit match "
    "materialized natural not nothing notnull null nulls of offset on or order outer over partition "
    "primary raise range recursive references regexp replace returning right rollback row rows groups "
    "select set table then to transaction true union unique update using values view virtual when where "
    "window with without generated always"
).split()
_KEYWORDS = (
    "False None True and as assert async await break class continue def del elif else except finally for "
    "from global if import in is lambda nonlocal not or pass raise return try while with yield"
).split()
# In a field of an f-string Python 3.11 takes no backslash, comment, line break or quote of the string's kind.
_IN_FIELD = tuple(
    (
        "STRING EMPTY_DOUBLE EMPTY_SINGLE RAW LONG BYTES RAW_BYTES EMPTY_BYTES_DOUBLE EMPTY_BYTES_SINGLE "
        "DOUBLE_START SINGLE_START LONG_START { lambda := yield"
    ).split()
)


def _python(version: str = "3.12") -> Position:
    if version not in ("3.11", "3.12"):
        raise GrammarError(f"Python's version is 3.11 or 3.12 here, not {version!r}")
    text = _text("python.lark")
    if version == "3.11":  # a rule that only contains itself has no text
        for rule in ("type_alias", "type_parameters"):
            text = re.sub(rf"(?m)^{rule}: .*$", f"{rule}: {rule}", text)
    fields = ("IN_DOUBLE", "IN_SINGLE")
    texts = ("DOUBLE_TEXT", "SINGLE_TEXT", "LONG_TEXT", "SPEC", *(f"!{c}" for c in "rsa"))
    modes = {
        "line": ModeNames(("SPACE", "CONTINUATION"), (*fields, *texts)),
        "brackets": ModeNames(("SPACE", "BREAK", "COMMENT"), (*fields, *texts, "_NEWLINE")),
        "double": ModeNames(only=("DOUBLE_TEXT", '"', "{")),
        "single": ModeNames(only=("SINGLE_TEXT", "'", "{")),
        "long": ModeNames(only=("LONG_TEXT", '"""', "{")),
        "spec": ModeNames(only=("SPEC", "{", "}")),
        "in_double": ModeNames(
            ("SPACE",), (*_IN_FIELD, "IN_SINGLE", "_NEWLINE", *texts[:4]), {"brackets": "in_double"}
        ),
        "in_single": ModeNames(
            ("SPACE",), (*_IN_FIELD, "IN_DOUBLE", "_NEWLINE", *texts[:4]), {"brackets": "in_single"}
        ),
    }
    return compile_lark(text, "file", modes, {"NAME": _KEYWORDS})
