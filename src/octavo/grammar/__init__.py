"""Text within a grammar: JSON Schema, regular expressions, GBNF, Python types -> masks over a vocabulary.

    info = TokenizerInfo(token_bytes, stop_token_ids=[0])
    compiled = GrammarCompiler(info).compile(Grammar.from_json_schema({"type": "integer"}))
    matcher = GrammarMatcher(compiled)
    matcher.fill_next_token_bitmask(mask)

The package stands alone: it needs numpy and nothing else of octavo but the base of its errors.
"""

from octavo.grammar.compiler import CompiledGrammar, Grammar, GrammarCompiler
from octavo.grammar.engine.automaton import Limits
from octavo.grammar.errors import (
    GrammarEmptyError,
    GrammarError,
    GrammarStateError,
    GrammarSyntaxError,
    GrammarTooComplexError,
    GrammarUnsupportedError,
)
from octavo.grammar.matcher import GrammarMatcher
from octavo.grammar.report import Report
from octavo.grammar.tokens import TokenizerInfo, allocate_token_bitmask

__all__ = [
    "CompiledGrammar",
    "Grammar",
    "GrammarCompiler",
    "GrammarEmptyError",
    "GrammarError",
    "GrammarMatcher",
    "GrammarStateError",
    "GrammarSyntaxError",
    "GrammarTooComplexError",
    "GrammarUnsupportedError",
    "Limits",
    "Report",
    "TokenizerInfo",
    "allocate_token_bitmask",
]
