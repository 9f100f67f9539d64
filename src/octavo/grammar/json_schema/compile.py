"""A JSON Schema -> the position before a value that satisfies it, and the report of what was enforced."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from octavo.grammar.errors import (
    GrammarEmptyError,
    GrammarError,
    GrammarTooComplexError,
)
from octavo.grammar.json_schema.document import SchemaDocument
from octavo.grammar.json_schema.formats import FORMATS
from octavo.grammar.json_schema.glance import surely_sound
from octavo.grammar.json_schema.goals import Goals, WholeSchema
from octavo.grammar.json_schema.keywords import ANNOTATIONS, ENFORCED
from octavo.grammar.json_schema.survey import survey
from octavo.grammar.layout import LAYOUTS
from octavo.grammar.network import Position
from octavo.grammar.report import Findings, Report


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
    sound = not resources and surely_sound(schema)
    document = SchemaDocument(schema, resources, named=not sound)
    goals = Goals(document, any_order, layout, strict)
    try:
        if not sound:
            survey(goals)
        start = goals.goal(frozenset({(document.root, True)}))
        satisfiable = goals.satisfiable(start)
    except RecursionError:
        raise GrammarTooComplexError("#: the schema nests too deep") from None
    if not satisfiable:
        raise GrammarEmptyError("#: no value satisfies this schema")
    return WholeSchema(goals, start), Report(find=lambda: _findings(goals))


def _findings(goals: Goals) -> Findings:
    """What each keyword of the schemas that can be reached is to us."""
    places = survey(goals)
    document, found = goals.document, Findings(approximated=dict(goals.formulas.approximated))
    for place in sorted(places, key=lambda place: (len(place), place)):
        schema = document.at(place)
        for keyword in schema if isinstance(schema, dict) else ():
            where = f"{place}/{keyword}"
            why = _why_ignored(schema, keyword, document.draft_at(place))
            if why:
                found.ignored[where] = why
            elif keyword not in ANNOTATIONS and where not in found.approximated:
                found.enforced.append(where)
    return found


def _why_ignored(schema: dict[str, Any], keyword: str, draft: int) -> str:
    legacy = draft <= 7
    if legacy and "$ref" in schema and keyword != "$ref":
        return "beside $ref, which stands alone in this draft"
    if keyword in ("unevaluatedProperties", "unevaluatedItems") and legacy:
        return "is no keyword of this draft"
    if keyword == "dependencies" and not legacy:
        return "is no keyword of this draft"
    if keyword == "format" and schema["format"] not in FORMATS:
        return f"the format {schema['format']!r} is an annotation"
    if keyword not in ENFORCED and keyword not in ANNOTATIONS:
        return "is no keyword of JSON Schema: an annotation"
    return ""
