"""What a caller means by `grammar=`, compiled for one model's vocabulary.

Text meets tokens here: `octavo.grammar` knows bytes and any vocabulary, `decoding` knows ids.
"""

from __future__ import annotations

import inspect
import re
import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from octavo.decoding.constraint import ForcedMode, GrammarConstraint
    from octavo.grammar import CompiledGrammar, Grammar, GrammarCompiler
    from octavo.text.tokenizer import Tokenizer

# Compiled grammars that a model remembers: the states and masks found for one serve its next generation.
REMEMBERED = 32


def as_grammar(meaning: Any) -> Grammar:
    """A grammar from whatever describes one.

    A Grammar; a JSON Schema (mapping or boolean); a compiled regular expression (`re.compile`); a text of
    GBNF or Lark; the name of a language ("json", "python", "sql"); a list of choices; a pydantic model,
    dataclass, TypedDict, Literal, Enum or any other annotation; a function, for its arguments.  Raises
    GrammarError where it cannot be enforced.
    """
    from octavo.grammar import Grammar

    if isinstance(meaning, Grammar):
        return meaning
    if isinstance(meaning, (bool, Mapping)):
        return Grammar.from_json_schema(meaning)
    if isinstance(meaning, re.Pattern):
        return Grammar.from_regex(meaning.pattern)
    if isinstance(meaning, str):
        return Grammar.from_text(meaning)
    if isinstance(meaning, (list, tuple)) and all(isinstance(choice, str) for choice in meaning):
        return Grammar.from_choices(meaning)
    return Grammar.from_types(meaning)


class StructuredOutput:
    """Grammars of one model, compiled when they are first used and remembered; safe from several threads."""

    def __init__(self, tokenizer: Tokenizer, vocabulary_size: int) -> None:
        self._tokenizer = tokenizer
        self._vocabulary_size = vocabulary_size
        self._lock = threading.Lock()
        self._compiler: GrammarCompiler | None = None
        self._compiled: OrderedDict[object, CompiledGrammar] = OrderedDict()

    def constraint(self, meaning: Any, max_tokens: int, forced: ForcedMode) -> GrammarConstraint:
        """A new text within a grammar.  Raises GrammarError."""
        from octavo.decoding.constraint import GrammarConstraint
        from octavo.grammar import GrammarMatcher

        return GrammarConstraint(GrammarMatcher(self.compile(meaning)), self._encode, max_tokens, forced)

    def compile(self, meaning: Any) -> CompiledGrammar:
        """The grammar for this vocabulary; the same meaning gives the same object while it is remembered."""
        key = _key(meaning)
        with self._lock:
            if key in self._compiled:
                self._compiled.move_to_end(key)
                return self._compiled[key]
        compiled = self._make_compiler().compile(as_grammar(meaning))
        with self._lock:
            self._compiled[key] = compiled
            while len(self._compiled) > REMEMBERED:
                self._compiled.popitem(last=False)
        return compiled

    def _make_compiler(self) -> GrammarCompiler:
        from octavo.grammar import GrammarCompiler, TokenizerInfo

        with self._lock:
            if self._compiler is None:
                info = TokenizerInfo(
                    [self._tokenizer.token_bytes(token) for token in range(self._vocabulary_size)],
                    stop_token_ids=self._tokenizer.end_ids,
                )
                self._compiler = GrammarCompiler(info)
            return self._compiler

    def _encode(self, data: bytes) -> list[int]:
        """Ids that spell the bytes as the tokenizer would; fewer where the bytes end within a character."""
        text = data.decode("utf-8", "ignore")
        if not data.startswith(text.encode()):
            return []
        tokens = self._tokenizer.encode(text, add_special=False)
        spelled = b"".join(map(self._tokenizer.token_bytes, tokens))
        return (
            tokens if data.startswith(spelled) else []
        )  # some tokenizers begin a text with a space of their own


def _key(meaning: Any) -> object:
    """What tells meanings apart: their contents for schemas and texts, else the object itself."""
    if isinstance(meaning, (bool, Mapping)):
        import json

        return ("schema", json.dumps(meaning, sort_keys=False, default=str))
    if isinstance(meaning, (str, re.Pattern)) or inspect.isclass(meaning):
        return meaning
    if isinstance(meaning, (list, tuple)):
        return ("choices", tuple(map(str, meaning)))
    return ("object", id(meaning), meaning) if meaning.__hash__ else ("object", id(meaning))
