"""The keywords of JSON Schema by what they say, and the types of JSON as they are told apart here."""

from __future__ import annotations

from typing import Any

TYPES = ("null", "false", "true", "number", "string", "array", "object")
TYPE_NAMES = {
    "null": frozenset({"null"}),
    "boolean": frozenset({"false", "true"}),
    "number": frozenset({"number"}),
    "integer": frozenset({"number"}),
    "string": frozenset({"string"}),
    "array": frozenset({"array"}),
    "object": frozenset({"object"}),
}
EVERY_TYPE = frozenset(TYPES)

#: Keywords that say nothing about which values are valid.
ANNOTATIONS = frozenset(
    """
    $schema $id id $comment $anchor $dynamicAnchor $recursiveAnchor $vocabulary $defs definitions title
    description default examples example deprecated readOnly writeOnly contentMediaType contentEncoding
    contentSchema
    """.split()
)
ENFORCED = frozenset(
    """
    type enum const not allOf anyOf oneOf if then else $ref $dynamicRef $recursiveRef properties
    required additionalProperties patternProperties propertyNames minProperties maxProperties
    dependencies dependentRequired dependentSchemas items prefixItems additionalItems minItems maxItems
    uniqueItems contains minContains maxContains minLength maxLength pattern format minimum maximum
    exclusiveMinimum exclusiveMaximum multipleOf unevaluatedProperties unevaluatedItems
    """.split()
)
#: Keywords that combine schemas.
LOGIC = frozenset("allOf anyOf oneOf not if $ref $dynamicRef $recursiveRef".split())
#: The keywords that speak of one type only.
#: Those that say something beside `type`.
SAYING = ENFORCED - {"type"}


def only_a_type(schema: Any) -> bool:
    """Whether there is nothing but perhaps a type, which is one: no mistake, no other schema, and values."""
    if not isinstance(schema, dict) or not SAYING.isdisjoint(schema):
        return False
    declared = schema.get("type", "string")
    return isinstance(declared, str) and declared in TYPE_NAMES
