"""JSON Schema: documents that are accepted and refused, keyword by keyword, and what cannot be enforced."""

from __future__ import annotations

import gc
import itertools
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octavo.grammar import (
    Grammar,
    GrammarCompiler,
    GrammarEmptyError,
    GrammarError,
    GrammarMatcher,
    GrammarTooComplexError,
    GrammarUnsupportedError,
    TokenizerInfo,
)
from octavo.grammar.engine.automaton import DEAD, Automaton
from octavo.grammar.engine.reference import ReferenceRecognizer


def accepts(schema: Any, text: str, **options: Any) -> bool:
    """By the engine and by its slow twin, which must agree."""
    grammar = Grammar.from_json_schema(schema, **options)
    automaton = Automaton(grammar.start)
    state = automaton.start
    for byte in text.encode():
        state = automaton.step(state, byte)
        if state == DEAD:
            break
    twin = ReferenceRecognizer(grammar.start)
    expected = twin.accept_bytes(text.encode()) and twin.complete
    accepted = state != DEAD and bool(automaton.states[state].endings)
    assert accepted == expected
    return accepted


BYTES = TokenizerInfo([*(bytes([value]) for value in range(256)), b""], stop_token_ids=[256])
OBJECT = {"properties": {"a": {"type": "integer"}, "b": {"type": "string"}}, "required": ["b"]}
TREE = {"$ref": "#/$defs/t", "$defs": {"t": {"type": "array", "items": {"$ref": "#/$defs/t"}}}}
SHAPES = {
    "type": "object",
    "properties": {"r": {"type": "number"}, "w": {"type": "number"}},
    "oneOf": [{"required": ["r"]}, {"required": ["w"]}],
}
KINDS = {
    "type": "object",
    "required": ["kind"],
    "allOf": [
        {
            "if": {"properties": {"kind": {"const": f"k{i}"}}},
            "then": {"properties": {"value": {"const": i}}, "required": ["value"]},
        }
        for i in range(14)
    ],
}
CASES: list[tuple[Any, list[Any], list[Any]]] = [
    (
        KINDS,
        [{"kind": "k9", "value": 9}, {"kind": 1}],
        [{"kind": "k9", "value": 8}, {"kind": "k9"}, {"value": 9}],
    ),
    ({"type": "integer"}, [0, -12], [1.5, "1", None]),
    ({"type": ["null", "boolean"]}, [None, True], [0, "null"]),
    ({"enum": [1, "a", [1, {"x": 2}]]}, [1, "a", [1, {"x": 2}]], [2, "b", [1, {"x": 3}], [1]]),
    ({"minimum": 3, "exclusiveMaximum": 10}, [3, 9, 9.99, "x"], [2, 2.999, 10, 11]),
    ({"minimum": -3.5, "maximum": -1}, [-3.5, -1, -2.25], [-3.51, -0.5, 0, 7]),
    ({"type": "number", "multipleOf": 0.01}, [0.01, 19.99, 5], [0.001]),
    ({"type": "integer", "multipleOf": 7, "minimum": 8}, [14, 21], [7, 15]),
    ({"not": {"type": "integer"}}, ["x", 1.5, None], [1, -4]),
    ({"type": "string", "minLength": 2, "maxLength": 3}, ["ab", "abc", "\u00e9\U0001f600"], ["a", "abcd"]),
    ({"type": "string", "pattern": "^a+$", "maxLength": 2}, ["a", "aa"], ["aaa", "b", ""]),
    ({"type": "string", "format": "date"}, ["2024-02-29"], ["2023-02-29", "x", "2024-1-1"]),
    ({"type": "string", "format": "ipv4"}, ["1.2.3.255"], ["1.2.3.256", "1.2.3"]),
    (OBJECT, [{"b": "x"}, {"a": 1, "b": ""}, {"z": 1, "b": ""}], [{}, {"a": "1", "b": ""}, {"b": 1}]),
    ({**OBJECT, "additionalProperties": False}, [{"b": "x"}], [{"b": "x", "z": 1}]),
    ({"patternProperties": {"^x": {"type": "null"}}}, [{"x": None, "y": 1}], [{"x1": 0}]),
    ({"propertyNames": {"maxLength": 1}}, [{"a": 1}, {}], [{"ab": 1}]),
    (
        {
            "properties": {"a": True},
            "anyOf": [{"properties": {"b": {"const": 1}}}, True],
            "unevaluatedProperties": False,
        },
        [{"a": 0, "b": 1}, {}],
        [{"b": 2}, {"a": 0, "c": 1}],
    ),
    (
        {
            "if": {"required": ["a"], "properties": {"a": True}},
            "then": {"properties": {"b": True}},
            "else": {"properties": {"c": True}},
            "unevaluatedProperties": {"type": "null"},
        },
        [{"a": 1, "b": 1, "c": None}, {"c": 1}],
        [{"a": 1, "c": 1}, {"b": 1}],
    ),
    (
        {"prefixItems": [True], "contains": {"type": "string"}, "unevaluatedItems": {"const": 2}},
        [["x"], [0, "x", 2]],
        [[], [0, "x", 3]],
    ),
    (
        {
            "$id": "x:root",
            "$ref": "tree",
            "$defs": {
                "more": {"$dynamicAnchor": "node", "required": ["name"], "$ref": "tree"},
                "tree": {
                    "$id": "tree",
                    "$dynamicAnchor": "node",
                    "properties": {"below": {"items": {"$dynamicRef": "#node"}}},
                },
            },
        },
        [{"below": [{"name": 1}]}, {}],
        [{"below": [{}]}, {"below": [{"name": 1, "below": [{}]}]}],
    ),
    ({"minProperties": 2, "maxProperties": 2}, [{"a": 1, "b": 2}], [{}, {"a": 1}, {"a": 1, "b": 2, "c": 3}]),
    ({"prefixItems": [{"type": "null"}], "items": {"type": "integer"}}, [[], [None, 1]], [[1], [None, None]]),
    ({"minItems": 1, "maxItems": 2}, [[1], [1, 2]], [[], [1, 2, 3]]),
    ({"contains": {"type": "null"}, "maxContains": 1}, [[None], [1, None]], [[], [1], [None, None]]),
    ({"items": {"type": ["string", "integer"]}, "uniqueItems": True}, [["a", 1]], [["a", "a"], [1, 2, 1]]),
    ({"anyOf": [{"type": "null"}, {"type": "array", "maxItems": 0}]}, [None, []], [[1], 1]),
    (SHAPES, [{"r": 1}, {"w": 2}], [{}, {"r": 1, "w": 2}]),
    ({"allOf": [OBJECT, {"required": ["a"]}]}, [{"a": 1, "b": ""}], [{"b": ""}]),
    (
        {"if": {"properties": {"a": {"const": 1}}, "required": ["a"]}, "then": {"required": ["b"]}},
        [{"a": 1, "b": 2}, {"a": 2}, {}],
        [{"a": 1}],
    ),
    ({"dependentRequired": {"a": ["b"]}}, [{"b": 1}, {"a": 1, "b": 1}], [{"a": 1}]),
    ({"not": {"required": ["a"]}}, [{"b": 1}], [3, {"a": 1}, {"b": 1, "a": 2}]),
    (
        {"not": {"additionalProperties": {"type": "null"}}},
        [{"a": 1}, {"a": None, "b": 2}],
        [1, {}, {"a": None}],
    ),
    (TREE, [[], [[], [[]]]], [[1], {}]),
    (
        {"$schema": "http://json-schema.org/draft-04/schema#", "minimum": 3, "exclusiveMinimum": True},
        [4],
        [3],
    ),
]


@pytest.mark.parametrize(
    ("schema", "valid", "invalid"), CASES, ids=[json.dumps(case[0])[:40] for case in CASES]
)
def test_accepts_the_valid_and_only_them(schema: Any, valid: list[Any], invalid: list[Any]) -> None:
    for value in valid:
        assert accepts(schema, json.dumps(value), any_order=True), value
        assert accepts(schema, json.dumps(value, ensure_ascii=False, indent=2), any_order=True), value
    for value in invalid:
        assert not accepts(schema, json.dumps(value), any_order=True), value


VALUES: list[Any] = [1, "x", None, {}]
OBJECTS = [
    {name: value for name, value in zip("ab", pair, strict=True) if value != "absent"}
    for pair in itertools.product([*VALUES, "absent"], repeat=2)
]


@st.composite
def schemas_of_values(draw: st.DrawFn, depth: int = 2) -> Any:
    """Which values names may have, combined in every way: what is known of one decides others."""
    listed = st.lists(st.sampled_from(VALUES), min_size=1, max_size=3)
    value = st.one_of(listed.map(lambda values: {"enum": values}), st.just({"type": "object"}), st.booleans())
    if depth == 0:
        schema: dict[str, Any] = {"properties": {draw(st.sampled_from("ab")): draw(value)}}
        return {**schema, "required": ["a"]} if draw(st.booleans()) else schema
    inner = st.lists(schemas_of_values(depth - 1), min_size=2, max_size=3)
    keyword = draw(st.sampled_from(["allOf", "anyOf", "oneOf", "not", "if"]))
    parts = draw(inner)
    if keyword == "not":
        return {"not": parts[0]}
    return {"if": parts[0], "then": parts[1], "else": parts[-1]} if keyword == "if" else {keyword: parts}


def satisfies(value: Any, schema: Any) -> bool:
    """As the standard says, for the keywords of `schemas_of_values`."""
    if isinstance(schema, bool):
        return schema
    members = value if isinstance(value, dict) else {}
    results = {
        "enum": lambda: any(type(value) is type(other) and value == other for other in schema["enum"]),
        "type": lambda: isinstance(value, dict),
        "required": lambda: not isinstance(value, dict) or all(name in value for name in schema["required"]),
        "properties": lambda: all(
            satisfies(members[name], other) for name, other in schema["properties"].items() if name in members
        ),
        "allOf": lambda: all(satisfies(value, other) for other in schema["allOf"]),
        "anyOf": lambda: any(satisfies(value, other) for other in schema["anyOf"]),
        "oneOf": lambda: sum(satisfies(value, other) for other in schema["oneOf"]) == 1,
        "not": lambda: not satisfies(value, schema["not"]),
        "if": lambda: satisfies(value, schema["then" if satisfies(value, schema["if"]) else "else"]),
    }
    return all(results[keyword]() for keyword in schema if keyword not in ("then", "else"))


@settings(max_examples=150, deadline=None)
@given(schemas_of_values())
def test_cases_are_told_apart_as_the_standard_does(schema: Any) -> None:
    for value in OBJECTS:
        try:
            accepted = accepts(schema, json.dumps(value), any_order=True)
        except GrammarEmptyError:
            accepted = False
        assert accepted == satisfies(value, schema), value


def test_properties_come_in_the_schemas_order_unless_told_otherwise() -> None:
    assert not accepts(OBJECT, '{"b": "x", "a": 1}')
    assert accepts(OBJECT, '{"b": "x", "a": 1}', any_order=True)


def test_white_space_is_bounded() -> None:
    assert accepts({}, '{"a": [1, 2]}') and accepts({}, '{"a":[1,2]}')
    assert not accepts({}, '{"a":  1}')
    assert not accepts({}, '{"a": 1}', layout="compact")


# What is unevaluated depends on which of eight subschemas hold: 256 ways.
MANY_WAYS = {
    "anyOf": [{"properties": {f"a{i}": {"type": "integer"}}} for i in range(8)],
    "unevaluatedProperties": False,
}


@pytest.mark.parametrize(
    ("schema", "error", "says"),
    [
        (
            {"properties": {"a": MANY_WAYS}},
            GrammarUnsupportedError,
            "#/properties/a/uneval",
        ),
        ({"$dynamicRef": "#a"}, GrammarUnsupportedError, "no anchor 'a'"),
        ({"pattern": "(a)\\1"}, GrammarUnsupportedError, "#/pattern"),
        ({"$ref": "#/nowhere"}, GrammarError, "nowhere"),
        ({"$ref": "other.json"}, GrammarUnsupportedError, "other.json"),
        ({"$ref": "#"}, GrammarError, "itself"),
        ({"type": "strin"}, GrammarError, "strin"),
        (False, GrammarEmptyError, "no value"),
        ({"type": "integer", "minimum": 3, "maximum": 2}, GrammarEmptyError, "no value"),
        ("{", GrammarError, "not JSON"),
    ],
)
def test_what_cannot_be_enforced_is_named(schema: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        Grammar.from_json_schema(schema)


def test_the_report_tells_what_was_left_out() -> None:
    schema = {"type": ["string", "object"], "format": "colour", "x-note": 1, **MANY_WAYS}
    report = Grammar.from_json_schema(schema, strict=False).report
    assert "#/type" in report.enforced
    assert "#/format" in report.ignored and "#/x-note" in report.ignored
    assert "#/unevaluatedProperties" in report.approximated and not report.exact
    assert "#/unevaluatedProperties" not in report.enforced


def nested(depth: int) -> Any:
    schema: Any = {"type": "null"}
    for _ in range(depth):
        schema = {"type": "array", "items": schema}
    return schema


def choices(count: int) -> Any:
    return {"allOf": [{"anyOf": [{"required": [f"a{i}"]}, {"required": [f"b{i}"]}]} for i in range(count)]}


@pytest.mark.parametrize("schema", [nested(5000), choices(30)], ids=["deep", "alternatives"])
def test_hostile_schemas_end_in_an_error(schema: Any) -> None:
    with pytest.raises(GrammarTooComplexError):
        Automaton(Grammar.from_json_schema(schema).start)


def test_large_schemas_are_no_trouble() -> None:
    assert accepts({"enum": [f"value{i}" for i in range(10_000)]}, '"value9999"')
    assert accepts({"type": "string", "maxLength": 100_000}, '"' + "x" * 500 + '"')


def test_nothing_of_a_schema_waits_for_a_garbage_collection() -> None:
    schema = {"properties": {"a": {"pattern": "^a+$", "not": {"const": "aa"}}, "b": {"items": {"$ref": "#"}}}}
    gc.collect()
    gc.disable()
    try:
        matcher = GrammarMatcher(GrammarCompiler(BYTES).compile(Grammar.from_json_schema(schema)))
        assert matcher.accept_bytes(b'{"a": "aaa", "b": [{}]}')
        del matcher
        assert gc.collect() == 0
    finally:
        gc.enable()


def test_one_key_for_all_that_is_claimed() -> None:
    """Claims are counted together: no key may take the place of the one that must meet them all."""
    claims = [{"not": {"propertyNames": {"not": {"pattern": pattern}}}} for pattern in ("a1", "b2", "2a")]
    schema = {
        "type": "object",
        "allOf": [*claims, {"propertyNames": {"pattern": "^....$"}}, {"maxProperties": 1}],
    }
    assert accepts(schema, '{"b2a1":null}', any_order=True)
    assert not accepts(schema, '{"4Mih":null}', any_order=True)
    compiled = GrammarCompiler(BYTES).compile(Grammar.from_json_schema(schema, any_order=True))
    matcher = GrammarMatcher(compiled)
    assert matcher.accept_bytes(b'{"')
    assert matcher.forced_bytes() == b'b2a1":'  # white space aside there is one key
    assert not GrammarMatcher(compiled).accept_bytes(b'{"4')
