"""Masks against trying every token; what holds for any grammar: rollback, fork, forced bytes, endings."""

from __future__ import annotations

import dataclasses
import enum
import json
import random
from typing import Any, Literal, TypedDict

import numpy as np
import pytest

from octavo.grammar import (
    Grammar,
    GrammarCompiler,
    GrammarMatcher,
    GrammarStateError,
    TokenizerInfo,
    allocate_token_bitmask,
)
from octavo.grammar.engine.reference import ReferenceRecognizer

WORDS = [
    '{"',
    '":',
    '": ',
    '", "',
    '"}',
    "name",
    "na",
    "12",
    '",',
    '"]',
    "true",
    'age": ',
    "ab",
    "abc",
    "}}",
    ", ",
]
TOKENS = (
    [bytes([value]) for value in range(256)]
    + [word.encode() for word in WORDS]
    + ["\u00e9".encode(), b"ab", b""]
)
END = len(TOKENS) - 1
INFO = TokenizerInfo(TOKENS, stop_token_ids=[END], vocabulary_size=len(TOKENS) + 9)

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 5}, "age": {"type": "integer", "minimum": 3},
        "x": {"$ref": "#"},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}  # fmt: skip
SUMS = 'root ::= expr\nexpr ::= expr "+" term | term\nterm ::= "(" expr ")" | [0-9]{1,3}'
GRAMMARS = {
    "person": Grammar.from_json_schema(PERSON),
    "unordered": Grammar.from_json_schema(PERSON, any_order=True),
    "json": Grammar.builtin_json(),
    "unique": Grammar.from_json_schema(
        {"items": {"enum": ["ab", "abc", 12]}, "uniqueItems": True, "type": "array"}
    ),
    "either": Grammar.from_json_schema({"anyOf": [{"required": ["name"]}, {"items": {"type": "string"}}]}),
    "sums": Grammar.from_gbnf(SUMS),
    "choices": Grammar.from_choices(["abc", "ab", "\u00e9"]),
    "regex": Grammar.from_regex("(ab|a)*c+(?!b)"),
}


def allowed_by_mask(matcher: GrammarMatcher) -> list[bool]:
    mask = allocate_token_bitmask(2, INFO.vocabulary_size)
    matcher.fill_next_token_bitmask(mask, 1)
    return [
        bool(bit) for bit in np.unpackbits(mask[1].view(np.uint8), bitorder="little")[: INFO.vocabulary_size]
    ]


@pytest.mark.parametrize("name", GRAMMARS)
def test_masks_are_what_trying_every_token_gives(name: str) -> None:
    compiled = GrammarCompiler(INFO).compile(GRAMMARS[name])
    slow = GrammarCompiler(INFO, engine="python").compile(GRAMMARS[name])
    for seed in range(6):
        generator, matcher, slower = random.Random(seed), GrammarMatcher(compiled), GrammarMatcher(slow)
        twin = ReferenceRecognizer(GRAMMARS[name].start)
        for _ in range(20):
            allowed = allowed_by_mask(matcher)
            assert allowed == allowed_by_mask(slower)
            assert matcher.forced_bytes() == slower.forced_bytes()
            assert matcher.forced_tokens("exact") == slower.forced_tokens("exact")
            assert matcher.is_terminated() == slower.is_terminated()
            assert allowed[END] == matcher.is_completed() == twin.complete
            for token, data in enumerate(TOKENS[:END]):
                assert allowed[token] == matcher.is_token_allowed(token) == twin.allows(data), (token, data)
            assert not any(allowed[END + 1 :])
            token = generator.choice([token for token, good in enumerate(allowed) if good])
            assert matcher.accept_token(token) and slower.accept_token(token)
            if token == END:
                assert matcher.is_terminated() and not any(allowed_by_mask(matcher))
                break
            assert twin.accept_bytes(TOKENS[token])


@pytest.mark.parametrize("engine", ["native", "python"])
@pytest.mark.parametrize("name", GRAMMARS)
def test_every_state_can_be_closed(name: str, engine: str) -> None:
    compiled = GrammarCompiler(INFO, engine=engine).compile(GRAMMARS[name])
    for seed in range(6):
        generator, matcher = random.Random(seed), GrammarMatcher(compiled)
        for _ in range(25):
            closing = matcher.closing_bytes()
            assert closing is not None
            copy = matcher.fork()
            assert not closing or copy.accept_bytes(closing)
            assert copy.is_completed()
            matcher.accept_token(
                generator.choice([t for t, good in enumerate(allowed_by_mask(matcher)) if good])
            )
            if matcher.is_terminated():
                break


def test_rollback_is_replay_and_forks_are_independent() -> None:
    compiled = GrammarCompiler(INFO).compile(GRAMMARS["person"])
    matcher = GrammarMatcher(compiled)
    texts = [b'{"', b"name", b'":', b'"ab', b'",']
    states = [matcher.state]
    for text in texts:
        assert matcher.accept_bytes(text)
        states.append(matcher.state)
    assert not matcher.accept_bytes(b"?") and matcher.state == states[-1]
    fork = matcher.fork()
    matcher.rollback(3)
    assert matcher.state == states[2] and fork.state == states[5]
    assert matcher.accept_bytes(b"".join(texts[2:])) and matcher.state == fork.state
    matcher.reset()
    assert matcher.state == states[0]
    with pytest.raises(GrammarStateError, match="steps to undo"):
        matcher.rollback()


def test_equal_futures_are_one_state() -> None:
    matcher = GrammarMatcher(GrammarCompiler(INFO).compile(GRAMMARS["json"]))
    assert matcher.accept_bytes(b'["a')
    state = matcher.state
    assert matcher.accept_bytes(b'bc", "xyz')
    assert matcher.state == state


def test_masks_outlive_a_tiny_budget() -> None:
    small = GrammarCompiler(INFO, mask_bytes=64).compile(GRAMMARS["json"])
    large = GrammarCompiler(INFO).compile(GRAMMARS["json"])
    one, other = GrammarMatcher(small), GrammarMatcher(large)
    for data in (b"{", b'"a', b'": ', b"[", b"1", b"]", b"}"):
        assert one.accept_bytes(data) and other.accept_bytes(data)
        assert allowed_by_mask(one) == allowed_by_mask(other)
    assert small.engine.mask_bytes < large.engine.mask_bytes


def test_forced_bytes_and_tokens() -> None:
    matcher = GrammarMatcher(
        GrammarCompiler(INFO).compile(Grammar.from_json_schema(PERSON, layout="compact"))
    )
    assert matcher.forced_bytes() == b'{"name":"'
    assert matcher.forced_tokens("off") == []

    def encode(data: bytes) -> list[int]:
        assert data == b'{"name":"'
        return [TOKENS.index(piece) for piece in (b'{"', b"name", b'":', b'"')]

    # Nothing is longer than the last quote and allowed but tokens that begin with it: it is held back.
    assert [TOKENS[token] for token in matcher.forced_tokens("canonical", encode)] == [b'{"', b"name", b'":']
    only = GrammarMatcher(
        GrammarCompiler(TokenizerInfo([b"a", b"b", b""], stop_token_ids=[2])).compile(
            Grammar.from_choices(["aab", "aaa"])
        )
    )
    assert only.forced_tokens("exact") == [0, 0]
    with pytest.raises(GrammarStateError, match="modes"):
        matcher.forced_tokens("sometimes")


class Colour(enum.Enum):
    RED = "red"


@dataclasses.dataclass
class Leaf:
    name: str
    colour: Colour = Colour.RED
    below: list[Leaf] | None = None


class Options(TypedDict):
    level: Literal[1, 2]


def call(city: str, days: int = 3) -> None: ...


@pytest.mark.parametrize(
    ("annotation", "good", "bad"),
    [
        (Leaf, {"name": "x", "colour": "red", "below": [{"name": "y"}]}, {"name": "x", "colour": "blue"}),
        (Options, {"level": 2}, {"level": 3}),
        (call, {"city": "x"}, {"days": 3}),
        (dict[str, int], {"a": 1}, {"a": "1"}),
        (tuple[int, str], [1, "a"], [1]),
    ],
)
def test_python_types(annotation: Any, good: Any, bad: Any) -> None:
    compiled = GrammarCompiler(INFO).compile(Grammar.from_types(annotation))
    matcher = GrammarMatcher(compiled)
    assert matcher.accept_bytes(json.dumps(good).encode()) and matcher.is_completed()
    matcher.reset()
    assert not (matcher.accept_bytes(json.dumps(bad).encode()) and matcher.is_completed())
