"""Grammars made to hang a server: each ends in bounded time, memory and a clear error, or works."""

from __future__ import annotations

import random
import resource
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from benchmarks.hostile_grammar import combinations
from octavo.grammar import (
    Grammar,
    GrammarCompiler,
    GrammarError,
    GrammarMatcher,
    GrammarTooComplexError,
    TokenizerInfo,
    allocate_token_bitmask,
)
from octavo.grammar.engine.automaton import Limits

TOKENS = [bytes([value]) for value in range(256)] + [b'":', b'", "', b"aaaa", b"}}", b"[[", b"true", b""]
INFO = TokenizerInfo(TOKENS, stop_token_ids=[len(TOKENS) - 1])
SECONDS = 20  # on a machine that does other things too; most take less than one


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "integer"}
    for _ in range(depth):
        schema = {"type": "array", "items": schema}
    return schema


def laughs(count: int) -> dict[str, Any]:
    """Each definition holds the one before twice."""
    definitions: dict[str, Any] = {"d0": {"properties": {"x": {"type": "integer"}}}}
    for index in range(1, count):
        reference = {"$ref": f"#/$defs/d{index - 1}"}
        definitions[f"d{index}"] = {"allOf": [reference, reference]}
    return {"$defs": definitions, "$ref": f"#/$defs/d{count - 1}"}


# name -> (what makes it, what the error must say; None where it must work)
CASES: dict[str, tuple[Callable[[], Grammar], str | None]] = {
    "deep values": (lambda: Grammar.from_json_schema(nested(100)), None),
    "too deep values": (lambda: Grammar.from_json_schema(nested(400)), "nests"),
    "deep text": (lambda: Grammar.from_json_schema('{"items":' * 5000 + "true" + "}" * 5000), "not JSON"),
    "brackets": (lambda: Grammar.from_json_schema("[" * 100_000), "not JSON"),
    "allOf of allOf": (lambda: Grammar.from_json_schema(laughs(40)), None),
    "anyOf of anyOf": (lambda: Grammar.from_json_schema(combinations(30)), "multiply|alternatives"),
    "optional a": (lambda: Grammar.from_regex("(a?){20000}a{20000}"), "too deep|more work|states"),
    "nested counters": (
        lambda: Grammar.from_regex("((((a{1,100}b?){1,100}c?){1,100}d?){1,100}e?){1,100}"),
        None,
    ),
    "patterns at once": (
        lambda: Grammar.from_json_schema(
            {"type": "string", "allOf": [{"pattern": "a.{30}$"}, {"not": {"pattern": "c.{29}$"}}]}
        ),
        "decided|more work",
    ),
    "enum of 10,000": (
        lambda: Grammar.from_json_schema({"enum": [f"{i} is a value" for i in range(10_000)]}),
        None,
    ),
    "huge counts": (
        lambda: Grammar.from_json_schema({"minLength": 50_000, "maxLength": 100_000, "type": "string"}),
        None,
    ),
    "regex that does not end": (lambda: Grammar.from_regex("(a"), "does not end"),
    "pattern out of order": (lambda: Grammar.from_json_schema({"pattern": "[z-a]"}), "#/pattern"),
    "deep groups": (lambda: Grammar.from_regex("(" * 5000 + "a" + ")" * 5000), "nests groups"),
    "deep GBNF": (lambda: Grammar.from_gbnf("root ::= " + "(" * 5000 + '"a"' + ")" * 5000), "nests groups"),
    "deep Lark": (lambda: Grammar.from_lark("start: " + "(" * 5000 + '"a"' + ")" * 5000), "nests groups"),
    "left recursion": (lambda: Grammar.from_gbnf('root ::= root "a" | root root | "b"'), None),
    "hidden left recursion": (
        lambda: Grammar.from_gbnf('root ::= x root "a" | "b"\nx ::= "c"?'),
        "calls itself",
    ),
    "endless reference": (lambda: Grammar.from_json_schema({"$ref": "#"}), "refers to itself"),
}


def write_some(grammar: Grammar) -> None:
    """Masks, steps and endings of a random text of at most 40 tokens."""
    matcher, generator = GrammarMatcher(GrammarCompiler(INFO).compile(grammar)), random.Random(0)
    mask = allocate_token_bitmask(1, INFO.vocabulary_size)
    for _ in range(40):
        matcher.closing_bytes()
        matcher.fill_next_token_bitmask(mask)
        bits = np.unpackbits(mask.view(np.uint8), bitorder="little")[: INFO.vocabulary_size]
        assert bits.any()
        assert matcher.accept_token(int(generator.choice(np.flatnonzero(bits))))
        if matcher.is_terminated():
            return


@pytest.mark.parametrize("name", CASES)
def test_it_ends_soon_and_says_why(name: str) -> None:
    make, says = CASES[name]
    begun, before = time.thread_time(), most_memory()
    if says is None:
        write_some(make())
    else:
        with pytest.raises(GrammarError, match=says):
            write_some(make())
    assert time.thread_time() - begun < SECONDS
    assert most_memory() - before < 500 << 20


def most_memory() -> int:
    """Bytes of this process at its height."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def test_work_is_bounded_the_same_way_each_time() -> None:
    """A matcher that was refused is whole: what is cheap still works, and the same step is refused again."""
    limits = Limits(max_work=300_000)
    compiled = GrammarCompiler(INFO, limits).compile(Grammar.from_regex("x|y.*a.{200}"))
    for _ in range(2):
        matcher = GrammarMatcher(compiled)
        assert matcher.accept_bytes(b"x") and matcher.is_completed()
        matcher.reset()
        assert matcher.accept_bytes(b"y")
        with pytest.raises(GrammarTooComplexError, match="more work"):
            for _ in range(300):
                matcher.accept_bytes(b"ab"[:1])
                matcher.closing_bytes()
                matcher.fill_next_token_bitmask(allocate_token_bitmask(1, INFO.vocabulary_size))
    assert compiled.engine.most_work > 300_000  # type: ignore[union-attr]
