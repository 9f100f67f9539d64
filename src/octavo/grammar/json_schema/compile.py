"""A JSON Schema -> the position before a value that satisfies it, and the report of what was enforced."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from octavo.grammar.errors import (
    GrammarEmptyError,
    GrammarError,
    GrammarTooComplexError,
    GrammarUnsupportedError,
)
from octavo.grammar.json_schema.document import SchemaDocument
from octavo.grammar.json_schema.formats import FORMATS
from octavo.grammar.json_schema.formulas import ANNOTATIONS, ENFORCED
from octavo.grammar.json_schema.goals import Goals, WholeSchema
from octavo.grammar.layout import LAYOUTS
from octavo.grammar.network import Position
from octavo.grammar.report import Report


def compile_schema(
    schema: Any,
    *,
    strict: bool = True,
    any_order: bool = False,
    layout: str = "flexible",
    resources: Mapping[str, Any] | None = None,
) -> tuple[Position, Report]:
    """`resources` maps URIs to the schemas that references to other documents mean; nothing is fetched."""
    if layout not in LAYOUTS:
        raise GrammarError(f"layout is one of {', '.join(LAYOUTS)}, not {layout!r}")
    document = SchemaDocument(schema, resources)
    goals = Goals(document, any_order, layout, strict)
    report = Report()
    try:
        _survey(goals, report)
        start = goals.goal(frozenset({(document.root, True)}))
        satisfiable = goals.satisfiable(start)
    except RecursionError:
        raise GrammarTooComplexError("#: the schema nests too deep") from None
    if not satisfiable:
        raise GrammarEmptyError("#: no value satisfies this schema")
    return WholeSchema(goals, start), report


def _survey(goals: Goals, report: Report) -> None:
    """Reads every schema that can be reached, so that what is wrong or not enforceable is said before any
    text.
    """
    document, seen, work = goals.document, {goals.document.root}, [goals.document.root]
    beside: dict[str, list[str]] = {}  # by place, those that speak of the same value
    while work:
        place = work.pop()
        schema, possible = document.at(place), goals.formulas.kinds(place)
        if isinstance(schema, dict):
            _check_keywords(goals, place, schema, report)
            if "number" in possible and not _OF_NUMBERS.isdisjoint(schema):
                goals.scalars.number(frozenset({(place, True)}))
        for kind in _kinds(schema, possible):
            same, below = places_in(goals.formulas.of(place, kind))
            if same:
                beside[place] = same
            for other in (*same, *below):
                if other not in seen:
                    seen.add(other)
                    work.append(other)
    _check_cycles(goals, beside)
    _check_unique(goals, seen, beside)
    for where, why in goals.formulas.approximated.items():
        report.enforced = [known for known in report.enforced if known != where]
        report.approximated[where] = why


def _check_cycles(goals: Goals, beside: dict[str, list[str]]) -> None:
    """A schema that refers to itself without any value between says nothing, and is found by reading it."""
    beside = dict(beside)
    ends = [place for place, others in beside.items() if beside.keys().isdisjoint(others)]
    while ends:
        for place in ends:
            del beside[place]
        ends = [place for place, others in beside.items() if beside.keys().isdisjoint(others)]
    for place in beside:
        for kind in goals.formulas.kinds(place) - {"array", "object"}:
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
            if "array" in goals.formulas.kinds(place):
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


def _check_keywords(goals: Goals, place: str, schema: dict[str, Any], report: Report) -> None:  # noqa: C901 - one branch for each kind
    legacy = goals.document.draft_at(place) <= 7
    for keyword in schema:
        where = f"{place}/{keyword}"
        if legacy and "$ref" in schema and keyword != "$ref":
            report.ignored[where] = "beside $ref, which stands alone in this draft"
        elif keyword in ("unevaluatedProperties", "unevaluatedItems") and goals.document.draft_at(place) <= 7:
            report.ignored[where] = "is no keyword of this draft"
        elif keyword == "format":
            known = schema["format"] in FORMATS
            if known:
                report.enforced.append(where)
            else:
                report.ignored[where] = f"the format {schema['format']!r} is an annotation"
        elif keyword == "pattern" and isinstance(schema[keyword], str):
            goals.scalars.pattern(schema[keyword], where)
            report.enforced.append(where)
        elif keyword == "patternProperties" and isinstance(schema[keyword], dict):
            for pattern in schema[keyword]:
                goals.scalars.pattern(pattern, where)
            report.enforced.append(where)
        elif keyword == "dependencies" and not legacy:
            report.ignored[where] = "is no keyword of this draft"
        elif keyword in ENFORCED:
            report.enforced.append(where)
        elif keyword not in ANNOTATIONS:
            report.ignored[where] = "is no keyword of JSON Schema: an annotation"


def places_in(formula: Any) -> tuple[list[str], list[str]]:
    """The subschemas that a formula speaks of: of the same value, and of values in it."""
    if isinstance(formula, bool):
        return [], []
    name = formula[0]
    if name in ("and", "or"):
        parts = [places_in(part) for part in formula[1]]
        return [place for same, _ in parts for place in same], [
            place for _, below in parts for place in below
        ]
    if name == "not":
        return places_in(formula[1])
    if name == "one":
        return list(formula[1]), []
    if name == "place":
        return [formula[1]], []
    if name == "keys":
        return [], [formula[1]]
    if name == "values":
        return [], [formula[2]]
    return [], [formula[3]] if name in ("items", "contains") else []
