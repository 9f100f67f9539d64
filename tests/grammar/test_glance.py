"""A glance at a schema beside the thorough look, its slow twin: a glance may doubt, but is never wrong."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.maskbench import DATA, schemas
from octavo.grammar import (
    Grammar,
    GrammarCompiler,
    GrammarError,
    GrammarMatcher,
    GrammarUnsupportedError,
    TokenizerInfo,
)
from octavo.grammar.expressions import Algebra
from octavo.grammar.front_ends.regex import compile_regex
from octavo.grammar.front_ends.regex_plain import plain_length
from octavo.grammar.json_schema.document import SchemaDocument
from octavo.grammar.json_schema.glance import has_values, surely_sound
from octavo.grammar.json_schema.goals import Goals
from octavo.grammar.json_schema.survey import survey

INFO = TokenizerInfo([*(bytes([value]) for value in range(256)), b""], stop_token_ids=[256])
UNIQUE_OBJECTS = {"type": "array", "items": {"type": "object"}, "uniqueItems": True}
UNIQUE_TEXTS = {"type": "array", "items": {"type": "string"}, "uniqueItems": True}
OF_EACH_KEYWORD: dict[str, list[Any]] = {
    "type": ["string", "object", ["null", "array"], "strin", 5, ["x"], [{}]],
    "enum": [["a", 1], [[1], {"a": 2}], "ab", [1.0]],
    "const": ["a", 2.0],
    "properties": [{"a": {"type": "null"}}, {"a": 5}, []],
    "required": [["a"], True, []],
    "patternProperties": [{"^a": {}}, {"[": {}}, {"(?<=a)": {}}, 3],
    "additionalProperties": [False, {"type": "string"}, "x"],
    "propertyNames": [{"maxLength": 3}, 1],
    "minProperties": [1, -1, "1"],
    "items": [{"type": "string"}, [True, False], 7],
    "prefixItems": [[{"minimum": 2}], {}, [5]],
    "minItems": [2, 1.5],
    "maxItems": [3, True],
    "uniqueItems": [True, False],
    "contains": [{"const": 1}, 9],
    "pattern": ["^a+$", "a{2,1}", "\\1", "^(a|b)$|c", 5],
    "maxLength": [5, None],
    "format": ["date", "no such format", 4],
    "minimum": [3, "3", 1e308],
    "multipleOf": [2, 0, 0.01, 12345678],
    "not": [{"type": "object"}, UNIQUE_TEXTS, 5],
    "allOf": [[{"minimum": 1}], {}, [{"$ref": "#"}]],
    "anyOf": [[{"type": "string"}, {"type": "null"}], [0]],
    "oneOf": [[{"required": ["a"]}, {"type": "null"}], "x"],
    "if": [{"required": ["a"]}, 1],
    "then": [{"required": ["b"]}, 1],
    "$ref": ["#", "#/$defs/d", "#/nowhere", "other.json", 5],
    "$defs": [{"d": {"type": "string"}}, {"d": {"$id": "named", "pattern": "("}}],
    "$id": ["http://example.org/x", "#x", 5],
    "$schema": ["http://json-schema.org/draft-07/schema#", "http://json-schema.org/draft-04/schema#"],
    "dependencies": [{"a": ["b"]}, {"a": {"type": "object"}}, {"a": 5}],
    "dependentRequired": [{"a": ["b"]}, {"a": 5}],
    "dependentSchemas": [{"a": {"minProperties": 2}}, 5],
    "unevaluatedProperties": [False, True],
}


def thorough(schema: Any) -> GrammarError | None:
    """The mistake that the thorough look finds."""
    try:
        survey(Goals(SchemaDocument(schema)))
    except GrammarError as error:
        return error
    return None


@st.composite
def any_schemas(draw: st.DrawFn, depth: int = 2) -> Any:
    """Keywords, each well or badly used, with schemas below."""
    chosen = draw(st.lists(st.sampled_from(list(OF_EACH_KEYWORD)), max_size=3, unique=True))
    schema = {keyword: draw(st.sampled_from(OF_EACH_KEYWORD[keyword])) for keyword in chosen}
    if depth and draw(st.booleans()):
        schema["properties"] = {"b": draw(any_schemas(depth - 1))}
    if depth and draw(st.booleans()):
        schema[draw(st.sampled_from(["allOf", "anyOf"]))] = [draw(any_schemas(depth - 1))]
    return schema


@settings(max_examples=600, deadline=None)
@given(any_schemas())
def test_what_passes_a_glance_passes_the_thorough_look(schema: Any) -> None:
    if surely_sound(schema):
        assert thorough(schema) is None


@pytest.mark.skipif(not DATA.exists(), reason="the test data is absent: OCTAVO_SHARED names its folder")
def test_nearly_all_real_schemas_pass_and_rightly() -> None:
    passed = total = 0
    for case in schemas(1):
        total += 1
        if surely_sound(case["schema"]):
            passed += 1
            assert thorough(case["schema"]) is None, case["name"]
    assert passed > 0.97 * total


@pytest.mark.parametrize(
    ("schema", "where"),
    [
        ({"properties": {"a": {"items": {"pattern": "["}}}}, "#/properties/a/items/pattern"),
        ({"properties": {"a": {"$ref": "#/nowhere"}}}, "#/properties/a/\\$ref"),
        ({"properties": {"a": {"$ref": "other.json"}}}, "#/properties/a/\\$ref"),
        ({"properties": {"a": {"anyOf": [{"type": "strin"}]}}}, "#/properties/a/anyOf/0/type"),
        ({"properties": {"a": {"minLength": -1}}}, "#/properties/a/minLength"),
        ({"properties": {"a": {"allOf": [{"$ref": "#/properties/a"}]}}}, "refers to itself"),
        ({"type": "object", "required": ["a"], "properties": {"a": UNIQUE_OBJECTS}}, "uniqueItems"),
    ],
)
def test_mistakes_far_below_are_still_said_before_any_text(schema: Any, where: str) -> None:
    assert not surely_sound(schema)
    with pytest.raises(GrammarError, match=where):
        Grammar.from_json_schema(schema)


def test_unique_objects_are_an_error_only_where_no_scalar_will_do() -> None:
    perhaps = {"properties": {"a": {**UNIQUE_OBJECTS, "type": ["array", "null"]}}, "required": ["a"]}
    assert surely_sound(perhaps)
    Grammar.from_json_schema(perhaps)
    forced = {"allOf": [perhaps, {"properties": {"a": {"type": "array"}}}], "type": "object"}
    assert not surely_sound(forced)
    with pytest.raises(GrammarUnsupportedError, match="uniqueItems"):
        Grammar.from_json_schema(forced)


@settings(max_examples=400, deadline=None)
@given(any_schemas())
def test_schemas_that_have_values_at_a_glance_have_them(schema: Any) -> None:
    if not has_values(schema) or not surely_sound(schema):
        return
    matcher = GrammarMatcher(GrammarCompiler(INFO).compile(Grammar.from_json_schema(schema)))
    text = matcher.closing_bytes()
    assert text is not None
    json.loads(text)


@settings(max_examples=1500, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            [
                *"ab-^$.|()[]{},*+?\\23",
                "[a-c]",
                "[^\\d-]",
                "{1,3}",
                "{2}",
                "(?:",
                "\\d",
                "\\.",
                "\\x1f",
                "[\\x01-\\x1f]",
            ]
        ),
        max_size=9,
    ).map("".join)
)
def test_plain_patterns_compile_and_match_a_short_text(pattern: str) -> None:
    length = plain_length(pattern)
    if length is None:
        return
    algebra = Algebra()
    expression = compile_regex(algebra, pattern, "ecma", search=True)
    assert algebra.live(algebra.both(expression, algebra.repeat(algebra.any_character, 0, length)))


@pytest.mark.parametrize(
    "pattern", ["[z-a]", "a{3,2}", "(a", "a)", "[^\\D\\d]", "[^-z-a]", "x**", "(?=a)", "\\1", "[a"]
)
def test_what_is_wrong_or_empty_is_not_plain(pattern: str) -> None:
    assert plain_length(pattern) is None


def test_patterns_of_every_day_are_plain() -> None:
    assert plain_length(r"^[a-zA-Z0-9_.+-]+@[a-zA-Z0-9-]+\.[a-zA-Z0-9-.]+$") == 5
    assert plain_length(r"^(?:\d{3}-)?\d{4}$|^none$") is None
    assert plain_length(r'^[^\\/:\*\?"<>\|\x01-\x1f]{1,32}$') == 1
