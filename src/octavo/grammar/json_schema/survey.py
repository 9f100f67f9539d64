"""The thorough look at a schema before any text: every mistake in it, and all that cannot be enforced."""

from __future__ import annotations

from typing import Any

from octavo.grammar.errors import GrammarUnsupportedError
from octavo.grammar.json_schema.glance import circular
from octavo.grammar.json_schema.goals import Goals
from octavo.grammar.json_schema.keywords import only_a_type


def survey(goals: Goals) -> set[str]:
    """Places of all schemas that can be reached; what is wrong or not enforceable is said before any text."""
    document, seen, work = goals.document, {goals.document.root}, [goals.document.root]
    beside: dict[str, list[str]] = {}  # by place, those that speak of the same value
    while work:
        place = work.pop()
        schema = document.at(place)
        if only_a_type(schema):
            continue
        possible = goals.formulas.declared_kinds(place)
        if isinstance(schema, dict):
            if "pattern" in schema or "patternProperties" in schema:
                _check_patterns(goals, place, schema)
            if "number" in possible and not _OF_NUMBERS.isdisjoint(schema):
                goals.scalars.number(frozenset({(place, True)}))
        for kind in _kinds(schema, possible):
            same: list[str] = []
            below: list[str] = []
            places_in(goals.formulas.of(place, kind), same, below)
            if same:
                beside[place] = same
            for other in (*same, *below):
                if other not in seen:
                    seen.add(other)
                    work.append(other)
    _check_cycles(goals, beside)
    _check_unique(goals, seen, beside)
    return seen


def _check_cycles(goals: Goals, beside: dict[str, list[str]]) -> None:
    """A schema that refers to itself without any value between says nothing, and is found by reading it."""
    for place in circular(beside):
        for kind in goals.formulas.declared_kinds(place) - {"array", "object"}:
            goals.scalars.of(frozenset({(place, True)}), kind)


def _check_unique(goals: Goals, places: set[str], beside: dict[str, list[str]]) -> None:
    """Whether uniqueItems can be enforced wherever it is asked for.

    Where a schema by itself says no, the others that hold with it may help: then every goal is looked at.
    """
    asking = [place for place in places if _asks_unique(goals.document.at(place))]
    if not asking:
        return
    try:
        for place in {*asking, *beside}:
            if "array" in goals.formulas.declared_kinds(place):
                goals.arrays(goals.goal(frozenset({(place, True)})))
    except GrammarUnsupportedError:
        goals.look_at_all(goals.goal(frozenset({(goals.document.root, True)})))


def _asks_unique(schema: Any) -> bool:
    return isinstance(schema, dict) and schema.get("uniqueItems") is True


_OF_NUMBERS = frozenset(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"))
_OF_STRINGS = frozenset(("minLength", "maxLength", "pattern", "format"))


def _kinds(schema: Any, possible: frozenset[str]) -> list[str]:
    """The types, of those possible, whose formulas together name every subschema and show every mistake.

    What is not about numbers or strings is in the formulas of arrays and objects too, or of any other type.
    """
    kinds: list[str] = [kind for kind in ("array", "object") if kind in possible]
    if isinstance(schema, dict):
        kinds += ["number"] if "number" in possible and not _OF_NUMBERS.isdisjoint(schema) else []
        kinds += ["string"] if "string" in possible and not _OF_STRINGS.isdisjoint(schema) else []
    return kinds or sorted(possible)[:1]


def _check_patterns(goals: Goals, place: str, schema: dict[str, Any]) -> None:
    if goals.document.draft_at(place) <= 7 and "$ref" in schema:
        return
    if isinstance(schema.get("pattern"), str):
        goals.scalars.pattern(schema["pattern"], f"{place}/pattern")
    if isinstance(schema.get("patternProperties"), dict):
        for pattern in schema["patternProperties"]:
            goals.scalars.pattern(pattern, f"{place}/patternProperties")


def places_in(formula: Any, same: list[str], below: list[str]) -> None:
    """Adds the subschemas that a formula speaks of: of the same value, and of values in it."""
    if isinstance(formula, bool):
        return
    name = formula[0]
    if name in ("and", "or"):
        for part in formula[1]:
            places_in(part, same, below)
    elif name == "not":
        places_in(formula[1], same, below)
    elif name == "one":
        same += formula[1]
    elif name == "place":
        same.append(formula[1])
    elif name == "keys":
        below.append(formula[1])
    elif name == "values":
        below.append(formula[2])
    elif name in ("items", "contains"):
        below.append(formula[3])
