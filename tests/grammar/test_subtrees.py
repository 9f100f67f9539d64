"""Subtrees of a vocabulary taken whole, against trying every token: loops, counted classes, strings."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable

import numpy as np
import pytest

from octavo.grammar import Grammar, GrammarCompiler, GrammarMatcher, TokenizerInfo, allocate_token_bitmask
from octavo.grammar.engine.reference import ReferenceRecognizer
from octavo.grammar.tokens import bitmask_to_bools

WORDS = ["".join(text) for size in range(1, 6) for text in itertools.product("ab", repeat=size)]
ENDS = ["", ".", "1", "\u00e9", '"', '":', '", "', "@a"]
TOKENS = [
    *(word + end for word in WORDS for end in ENDS),
    *('{"' + word for word in WORDS),
    *(
        begin + word + end
        for begin in ("\u00e9", "\u4e2d", "\u2190")
        for word in WORDS[:14]
        for end in ("", '"', "\u00e9", "\\n")
    ),
    *map(chr, range(0x2000, 0x2018)),  # of one first byte, the last of them no spaces
    *'[]{}":,.1@\u00e9\n',
]
PIECES = [b"\xe4", b"\xb8", b"\xad", b"a\xe4\xb8", b'\xad"', b"\\", b'\\"', b"\\u00", b"a\xff"]
BYTES = [*(token.encode() for token in TOKENS), *PIECES]
INFO = TokenizerInfo([*BYTES, b""], stop_token_ids=[len(BYTES)])


def values(schema: object) -> Callable[[], Grammar]:
    return lambda: Grammar.from_json_schema({"type": "array", "items": schema}, any_order=True)


GRAMMARS: dict[str, Callable[[], Grammar]] = {
    "counted class": lambda: Grammar.from_regex("[ab]{1,9}[.1]?"),
    "two classes": lambda: Grammar.from_regex("(a[ab]{2}b[ab.]{0,3}){2,5}"),
    "class of all but one": lambda: Grammar.from_regex("(?=[^1]{0,7}$)[ab.\u00e9]*@?a*"),
    "bounded string": values({"type": "string", "maxLength": 7}),
    "pattern and length": values({"type": "string", "pattern": "^[ab]*1?$", "minLength": 2, "maxLength": 8}),
    "mail": values({"type": "string", "format": "email"}),
    "keys of a pattern": values(
        {"type": "object", "patternProperties": {"^[ab]{1,6}$": {"const": 1}}, "additionalProperties": False}
    ),
    "keys of a line, and others": values(
        {
            "type": "object",
            "patternProperties": {"^[ab].*$": {"const": 1}},
            "additionalProperties": {"const": 2},
        }
    ),
    "keys of two patterns": values(
        {
            "type": "object",
            "patternProperties": {"^a.*$": {"const": 1}, "b$": {}},
            "additionalProperties": False,
        }
    ),
    "found anywhere": values({"type": "string", "pattern": "ab{2}"}),
    "two found anywhere": values({"type": "string", "allOf": [{"pattern": "a[b\u00e9]"}, {"pattern": "ba"}]}),
    "found, but not too late": values({"type": "string", "pattern": "bab", "maxLength": 6}),
    "never found": values({"type": "string", "not": {"pattern": "ab"}}),
    "as long as said": values({"type": "string", "minLength": 5, "maxLength": 5}),
    "not too short": values({"type": "string", "minLength": 4, "maxLength": 400}),
    "other than some": values({"type": "string", "not": {"enum": ["ab", "abba", "\u00e9"]}}),
    "long, or with a sign": values({"anyOf": [{"pattern": "@"}, {"minLength": 9}], "type": "string"}),
    "words": values({"type": "string", "pattern": "^(\\S+\\s){0,3}\\S+$", "maxLength": 50}),
    "a line": values({"type": "string", "pattern": "^.{2,}$"}),
    "no A": values({"type": "string", "pattern": "^[^a\u4e2d]*$"}),
    "keys in which something is found": values(
        {"type": "object", "patternProperties": {"a.b": {"const": 1}, "\u00e9": {"const": "a"}}}
    ),
    "long keys": values({"type": "object", "propertyNames": {"minLength": 3}, "minProperties": 1}),
    "names and others": values(
        {"type": "object", "properties": {"abba": {"const": 1}, "ab": {"const": "a"}}, "required": ["ab"]}
    ),
}


SPACES = ["", " ", "\n", "\n  ", "\n \t", "  ", "\t", "\n\n", "\r\n", "\n" + 70 * " "]
SPACED = [
    *(before + mark + after for before in SPACES for mark in ["", *'[]{}":,1a'] for after in SPACES[:5]),
    *(
        before + text
        for before in SPACES[:5]
        for text in ('"a"', '"ab', "],", '},\n "', "[[", '":{', '": "', "[]", "11")
    ),
]
SPACED_INFO = TokenizerInfo([*(text.encode() for text in dict.fromkeys(SPACED)), b""], stop_token_ids=[])
LAYOUTS = ("flexible", "line", "compact")


@pytest.mark.parametrize("any_order", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_masks_with_white_space_are_what_trying_every_token_gives(layout: str, any_order: bool) -> None:
    schema = {
        "type": ["object", "array", "integer"],
        "properties": {"a": {"$ref": "#"}, "ab": {"enum": ["a", 1, [1]]}},
        "items": {"$ref": "#"},
        "required": ["a"],
        "maxItems": 3,
    }
    grammar = Grammar.from_json_schema(schema, layout=layout, any_order=any_order)
    follow_masks(grammar, SPACED_INFO, random.Random(layout), texts=8, steps=12)


@pytest.mark.parametrize("kind", GRAMMARS)
def test_masks_are_what_trying_every_token_gives(kind: str) -> None:
    follow_masks(GRAMMARS[kind](), INFO, random.Random(kind), texts=6, steps=7)


def follow_masks(
    grammar: Grammar, info: TokenizerInfo, generator: random.Random, texts: int, steps: int
) -> None:
    compiled = GrammarCompiler(info).compile(grammar)
    mask = allocate_token_bitmask(1, info.vocabulary_size)
    for _ in range(texts):
        matcher, twin = GrammarMatcher(compiled), ReferenceRecognizer(grammar.start)
        for _ in range(steps):
            matcher.fill_next_token_bitmask(mask)
            allowed = bitmask_to_bools(mask, info.vocabulary_size)
            expected = [bool(data) and twin.allows(data) for data in info.token_bytes]
            if info.stop_token_ids:
                expected[-1] = twin.complete
            different = np.flatnonzero(allowed != np.array(expected))
            assert not different.size, [info.token_bytes[token] for token in different[:5]]
            ways = np.flatnonzero(allowed[: len(info.token_bytes) - 1]).tolist()
            if not ways:
                break
            token = generator.choice(ways)
            assert matcher.accept_token(token) and twin.accept_bytes(info.token_bytes[token])
