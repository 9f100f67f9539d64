"""The front door: grammars of every kind, and what compiling them for a vocabulary gives."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import astuple
from functools import wraps
from typing import Any, TypeVar, cast

from octavo import _native
from octavo.grammar.engine.automaton import Limits
from octavo.grammar.engine.python_engine import PythonEngine
from octavo.grammar.errors import GrammarEmptyError, GrammarError, GrammarSyntaxError
from octavo.grammar.expressions import Algebra
from octavo.grammar.front_ends.gbnf import compile_gbnf
from octavo.grammar.front_ends.lark import compile_lark
from octavo.grammar.front_ends.python_types import schema_of
from octavo.grammar.front_ends.regex import compile_regex
from octavo.grammar.front_ends.tagged import Beginning, tagged
from octavo.grammar.json_schema.compile import compile_schema
from octavo.grammar.languages import LANGUAGES, compile_language
from octavo.grammar.literals import LiteralTrie
from octavo.grammar.network import Position
from octavo.grammar.report import Report
from octavo.grammar.text_positions import PlainText, StringText
from octavo.grammar.tokens import TokenizerInfo

# Work of a front end at most, in steps of native/grammar/work.h: a second or two.
MAX_COMPILE_WORK = 100_000_000

Made = TypeVar("Made", bound=Callable[..., Any])


def bounded(make: Made) -> Made:
    """A front end that ends in GrammarTooComplexError where it needs more work than MAX_COMPILE_WORK."""

    @wraps(make)
    def limited(*arguments: Any, **options: Any) -> Any:
        with _native.GrammarAllowance(MAX_COMPILE_WORK):
            return make(*arguments, **options)

    return cast(Made, limited)


class Grammar:
    """A set of texts, not yet tied to a vocabulary."""

    def __init__(self, start: Position, report: Report, description: str) -> None:
        self.start = start
        self.report = report
        self.description = description

    def __repr__(self) -> str:
        return f"Grammar({self.description})"

    @classmethod
    @bounded
    def from_json_schema(
        cls,
        schema: str | bool | Mapping[str, Any],
        *,
        strict: bool = True,
        any_order: bool = False,
        layout: str = "flexible",
        resources: Mapping[str, Any] | None = None,
    ) -> Grammar:
        """JSON that satisfies a schema, given as text or as what json.loads makes of it.  Most of it is read
        when a text first comes there: it must not be changed while the grammar is in use.

        `strict`: a keyword that cannot be enforced exactly is an error that names it; otherwise it is in the
        report. `any_order`: properties in any order, not only in the schema's.  `layout`: "flexible"
        (compact, spaced or indented), "line" (no line breaks) or "compact".  `resources`: other
        schemas by URI; nothing is fetched.
        """
        if isinstance(schema, str):
            try:
                schema = json.loads(schema)
            except (ValueError, RecursionError) as error:
                raise GrammarSyntaxError(f"the JSON Schema is not JSON: {error}") from None
        start, report = compile_schema(
            schema, strict=strict, any_order=any_order, layout=layout, resources=resources
        )
        return cls(start, report, "JSON Schema")

    @classmethod
    def builtin_json(cls, layout: str = "flexible") -> Grammar:
        """Any JSON value."""
        return cls.from_json_schema(True, layout=layout)

    @classmethod
    @bounded
    def from_regex(cls, pattern: str, dialect: str = "python", search: bool = False) -> Grammar:
        """The texts that match in full, or with `search` those in which the pattern occurs."""
        algebra = Algebra()
        expression = compile_regex(algebra, pattern, dialect, search)
        if not algebra.live(expression):
            raise GrammarEmptyError(f"no text matches the regex {pattern[:80]!r}")
        return cls(PlainText(algebra, expression), Report([f"regex ({dialect})"]), "regex")

    @classmethod
    @bounded
    def from_choices(cls, choices: Iterable[str]) -> Grammar:
        """One of some texts, as they are."""
        texts = list(choices)
        if not texts:
            raise GrammarEmptyError("there is nothing to choose from")
        algebra = Algebra()
        start = PlainText(algebra, algebra.leaf(LiteralTrie.build(texts)))
        return cls(start, Report(["choices"]), "choices")

    @classmethod
    @bounded
    def from_gbnf(cls, text: str, root: str = "root") -> Grammar:
        """llama.cpp's grammar notation."""
        return cls(compile_gbnf(text, root), Report(["GBNF"]), "GBNF")

    @classmethod
    @bounded
    def from_lark(cls, text: str, start: str = "start") -> Grammar:
        """Lark's notation, with its lexer: see lexing/lexer.py."""
        return cls(compile_lark(text, start), Report(["Lark"]), "Lark")

    @classmethod
    def from_text(cls, text: str) -> Grammar:
        """GBNF (with ::=), Lark (with a rule `start:`), or the name of a language that comes along."""
        if text in LANGUAGES:
            return cls.builtin(text)
        if "::=" in text:
            return cls.from_gbnf(text)
        if re.search(r"^\s*[?!]?start\b[^:]*:", text, re.MULTILINE):
            return cls.from_lark(text)
        raise GrammarSyntaxError(
            "the text is neither GBNF (with ::=) nor Lark (with a rule start:), and names no language "
            f"({', '.join(LANGUAGES)}); for others call Grammar.from_regex, from_choices or from_json_schema"
        )

    @classmethod
    def tagged(cls, trigger: str, inner: Grammar, end: str = "") -> Grammar:
        """Free text in which each `trigger` is followed by a text of `inner` and then by `end`: tool calls,
        fenced code.  Behind that free text goes on."""
        return cls(tagged(trigger, inner.start, end), inner.report, f"text with {inner.description}")

    def beginning(self, data: bytes) -> Grammar:
        """These bytes, then a text of this grammar: token healing gives the bytes of the tokens that it took
        back from the prompt's end."""
        return Grammar(Beginning(data, self.start), self.report, self.description)

    @classmethod
    def builtin(cls, language: str, **options: Any) -> Grammar:
        """A language that comes with the package: "json", "python" or "sql"."""
        if language == "json":
            return cls.builtin_json(**options)
        start, what = compile_language(language, **options)
        return cls(start, Report([what]), what)

    @classmethod
    def from_types(cls, annotation: Any, **options: Any) -> Grammar:
        """JSON for a pydantic model, dataclass, TypedDict, Enum, Literal, annotation or call's arguments."""
        return cls.from_json_schema(schema_of(annotation), **options)


ENGINES = ("native", "python")


class CompiledGrammar:
    """A grammar with a vocabulary: the states and masks found so far, shared by all its matchers."""

    def __init__(
        self, grammar: Grammar, info: TokenizerInfo, engine: _native.GrammarEngine | PythonEngine
    ) -> None:
        self.info = info
        self.report = grammar.report
        self.engine = engine


class GrammarCompiler:
    """Compiles grammars for one vocabulary.

    `mask_bytes` bounds what one grammar's masks take, and again what grammars share.  The engine "python" is
    the native one's slow twin.
    """

    def __init__(
        self,
        tokenizer_info: TokenizerInfo,
        limits: Limits | None = None,
        mask_bytes: int = 64 << 20,
        engine: str = "native",
    ) -> None:
        if engine not in ENGINES:
            raise GrammarError(f"engine is one of {', '.join(ENGINES)}, not {engine!r}")
        self.info = tokenizer_info
        self.limits = limits or Limits()
        self.mask_bytes = mask_bytes
        self.engine = engine
        self.shared = _native.GrammarCache(mask_bytes)
        if engine == "native":
            self._learn_strings()

    def _learn_strings(self) -> None:
        """What a string without conditions allows is a part of most masks: found before the first grammar."""
        strings = self.compile(Grammar.from_json_schema({"type": "string"}))
        assert isinstance(strings.engine, _native.GrammarEngine)
        matcher = _native.GrammarMatcher(strings.engine)
        if matcher.accept_bytes(b'"'):
            matcher.allowed_count()

    def compile(self, grammar: Grammar) -> CompiledGrammar:
        if self.engine == "python":
            slow = PythonEngine(grammar.start, self.info, self.limits, self.mask_bytes)
            return CompiledGrammar(grammar, self.info, slow)
        fast = _native.GrammarEngine(
            grammar.start,
            self.info.native,
            self.shared,
            astuple(self.limits),
            self.mask_bytes,
            (PlainText, StringText),
        )
        return CompiledGrammar(grammar, self.info, fast)

    def compile_json_schema(self, schema: str | bool | Mapping[str, Any], **options: Any) -> CompiledGrammar:
        return self.compile(Grammar.from_json_schema(schema, **options))

    def compile_regex(self, pattern: str) -> CompiledGrammar:
        return self.compile(Grammar.from_regex(pattern))


Encode = Callable[[bytes], list[int]]
