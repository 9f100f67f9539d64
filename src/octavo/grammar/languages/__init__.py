"""Languages that come with the package: Lark grammars, with what Lark's notation cannot say."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from octavo.grammar.errors import GrammarError
from octavo.grammar.front_ends.lark import ModeNames, compile_lark
from octavo.grammar.network import Position

LANGUAGES = ("json", "python", "sql")


def compile_language(name: str, **options: Any) -> tuple[Position, str]:
    """The network of a language, and what it is."""
    if name == "sql":
        return compile_lark(_text("sql.lark")), "SQL (SQLite core)"
    if name == "python":
        return _python(**options), "Python"
    raise GrammarError(f"there is no language {name!r}; there are {', '.join(LANGUAGES)}")


def _text(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _python(start: str = "file") -> Position:
    raise NotImplementedError
