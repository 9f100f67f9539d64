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
    *'[]{}":,.1@\u00e9',
]
INFO = TokenizerInfo([*(token.encode() for token in TOKENS), b""], stop_token_ids=[len(TOKENS)])


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
    "names and others": values(
        {"type": "object", "properties": {"abba": {"const": 1}, "ab": {"const": "a"}}, "required": ["ab"]}
    ),
}


@pytest.mark.parametrize("kind", GRAMMARS)
def test_masks_are_what_trying_every_token_gives(kind: str) -> None:
    grammar, generator = GRAMMARS[kind](), random.Random(kind)
    compiled = GrammarCompiler(INFO).compile(grammar)
    mask = allocate_token_bitmask(1, INFO.vocabulary_size)
    for _ in range(6):
        matcher, twin = GrammarMatcher(compiled), ReferenceRecognizer(grammar.start)
        for _ in range(7):
            matcher.fill_next_token_bitmask(mask)
            allowed = bitmask_to_bools(mask, INFO.vocabulary_size)
            expected = [bool(data) and twin.allows(data) for data in INFO.token_bytes]
            expected[-1] = twin.complete
            assert np.array_equal(allowed, expected), kind
            ways = np.flatnonzero(allowed[:-1]).tolist()
            if not ways:
                break
            token = generator.choice(ways)
            assert matcher.accept_token(token) and twin.accept_bytes(INFO.token_bytes[token])
