"""unevaluatedProperties and unevaluatedItems: what the applicators beside them have looked at already.

Which keys (or items) are evaluated depends on which subschemas hold of the value: those of `anyOf` that do,
the branch of `if` that applies, and so on (JSON Schema 2020-12, Core, sections 10.2 and 11).  More of them
holding only evaluates more, which only allows more.  So a value is valid exactly if some choice of subschemas
holds of it and what this choice leaves over satisfies the keyword: a disjunction over choices, in which no
subschema need be denied but an `if` whose `else` counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from octavo.grammar.errors import GrammarSyntaxError, GrammarUnsupportedError
from octavo.grammar.json_schema.document import SchemaDocument

Formula = Any
MAX_CHOICES = 64


@dataclass(frozen=True, slots=True)
class Choice:
    """What must hold for this choice, and what it evaluates: of objects names and patterns, of arrays as many
    first items and those that some `contains` counts; `everything` is all of either."""

    holding: frozenset[Formula] = frozenset()
    names: frozenset[str] = frozenset()
    patterns: frozenset[str] = frozenset()
    items: int = 0
    contained: frozenset[str] = frozenset()
    everything: bool = False

    def __and__(self, other: Choice) -> Choice:
        return Choice(
            self.holding | other.holding,
            self.names | other.names,
            self.patterns | other.patterns,
            max(self.items, other.items),
            self.contained | other.contained,
            self.everything or other.everything,
        )

    def covers(self, other: Choice) -> bool:
        """Whether every value that the other choice admits is admitted by this one."""
        if not self.holding <= other.holding:
            return False
        if self.everything or other.everything:
            return self.everything
        return (
            other.names <= self.names
            and other.patterns <= self.patterns
            and other.items <= self.items
            and other.contained <= self.contained
        )


NOTHING = Choice()
EVERYTHING = Choice(everything=True)


class Unevaluated:
    def __init__(self, document: SchemaDocument) -> None:
        self.document = document

    def formula(self, place: str, keyword: str) -> Formula:
        return self.properties(place) if keyword == "unevaluatedProperties" else self.items(place)

    def properties(self, place: str) -> Formula:
        below = self.document.child(place, "unevaluatedProperties")
        if self.document.at(below) is True:
            return True
        options: list[Formula] = []
        for choice in self._choices(place, "unevaluatedProperties", (), own=False):
            parts = sorted(choice.holding, key=repr)
            if not choice.everything:
                parts.append(("values", ("rest", choice.names, choice.patterns), below))
            options.append(("and", parts))
        return ("or", options)

    def items(self, place: str) -> Formula:
        document = self.document
        below = document.child(place, "unevaluatedItems")
        if document.at(below) is True:
            return True
        options: list[Formula] = []
        for choice in self._choices(place, "unevaluatedItems", (), own=False):
            parts = sorted(choice.holding, key=repr)
            if not choice.everything:
                rest = below
                if choice.contained:
                    if not all(document.same_resource(place, other) for other in choice.contained):
                        raise GrammarUnsupportedError(
                            f"{place}/unevaluatedItems: a `contains` of another document counts here"
                        )
                    either = [document.at(below), *(document.at(p) for p in sorted(choice.contained))]
                    rest = document.add({"anyOf": either}, place)
                parts.append(("items", choice.items, None, rest))
            options.append(("and", parts))
        return ("or", options)

    def _choices(self, place: str, keyword: str, active: tuple[str, ...], own: bool = True) -> list[Choice]:
        """What the schema at `place`, if it holds, may have evaluated; `own`: the keyword itself included."""
        if place in active:
            raise GrammarSyntaxError(f"{place}: the schema refers to itself without any value between")
        active = (*active, place)
        document, schema = self.document, self.document.at(place)
        if not isinstance(schema, dict):
            return [NOTHING]
        if document.draft_at(place) <= 7 and isinstance(schema.get("$ref"), str):
            return self._choices(document.resolve(place, schema["$ref"]), keyword, active)
        if own and keyword in schema and document.draft_at(place) > 7:
            return [EVERYTHING]
        evaluated = self._keys if keyword == "unevaluatedProperties" else self._items
        found = [evaluated(place, schema)]

        def inside(other: str) -> list[Choice]:
            return self._choices(other, keyword, active)

        for other in self._always(place, schema):
            found = self._pairs(place, keyword, found, inside(other))
        for options in self._perhaps(place, schema, keyword, inside):
            found = self._pairs(place, keyword, found, options)
        return found

    def _perhaps(
        self, place: str, schema: dict[str, Any], keyword: str, inside: Callable[[str], list[Choice]]
    ) -> Iterator[list[Choice]]:
        """Of each group of subschemas that may or may not hold, what it may have evaluated."""
        document = self.document

        def held(*keys: str | int) -> list[Choice]:
            other = document.child(place, *keys)
            holding = Choice(frozenset({("place", other)}))
            return [holding & choice for choice in inside(other)]

        for index in range(len(_list(schema, "anyOf"))):
            yield [NOTHING, *held("anyOf", index)]
        if _list(schema, "oneOf"):
            yield [choice for index in range(len(schema["oneOf"])) for choice in held("oneOf", index)]
        if "if" in schema:
            yes, no = held("if"), [NOTHING]
            if "then" in schema:
                yes = self._pairs(place, keyword, yes, inside(document.child(place, "then")))
            if "else" in schema:
                denied = Choice(frozenset({("not", ("place", document.child(place, "if")))}))
                no += [denied & choice for choice in inside(document.child(place, "else"))]
            yield [*yes, *no]
        # Of an array no key can be there: then these subschemas have nothing to say.
        dependent = schema.get("dependentSchemas")
        if keyword == "unevaluatedProperties" and isinstance(dependent, dict):
            for name in dependent:
                present = Choice(frozenset({("required", name)}))
                other = document.child(place, "dependentSchemas", name)
                yield [NOTHING, *(present & choice for choice in inside(other))]

    def _always(self, place: str, schema: dict[str, Any]) -> list[str]:
        """The subschemas that hold wherever the schema itself holds."""
        document = self.document
        result = [document.child(place, "allOf", index) for index in range(len(_list(schema, "allOf")))]
        for keyword in ("$ref", "$recursiveRef"):
            if isinstance(schema.get(keyword), str):
                result.append(document.resolve(place, schema[keyword]))
        if isinstance(schema.get("$dynamicRef"), str):
            result.append(document.resolve_dynamic(place, schema["$dynamicRef"]))
        return result

    def _pairs(self, place: str, keyword: str, left: list[Choice], right: list[Choice]) -> list[Choice]:
        """Both, in every combination that no other covers."""
        result: list[Choice] = []
        for choice in (one & other for one in left for other in right):
            if any(known.covers(choice) for known in result):
                continue
            result = [known for known in result if not choice.covers(known)]
            result.append(choice)
            if len(result) > MAX_CHOICES:
                raise GrammarUnsupportedError(
                    f"{place}/{keyword}: over {MAX_CHOICES} combinations of the subschemas beside it"
                )
        return result

    def _keys(self, place: str, schema: dict[str, Any]) -> Choice:
        if "additionalProperties" in schema:
            return EVERYTHING
        names, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
        return Choice(
            names=frozenset(names if isinstance(names, dict) else ()),
            patterns=frozenset(patterns if isinstance(patterns, dict) else ()),
        )

    def _items(self, place: str, schema: dict[str, Any]) -> Choice:
        rest = "additionalItems" if isinstance(schema.get("items"), list) else "items"
        if isinstance(schema.get(rest), dict | bool):
            return EVERYTHING
        prefix = schema.get("prefixItems", schema.get("items"))
        contained = frozenset[str]()
        # Only since 2020-12 do items that `contains` counts count as evaluated.
        if "contains" in schema and self.document.draft_at(place) >= 2020:
            contained = frozenset({self.document.child(place, "contains")})
        return Choice(items=len(prefix) if isinstance(prefix, list) else 0, contained=contained)


def _list(schema: dict[str, Any], keyword: str) -> list[Any]:
    value = schema.get(keyword)
    return value if isinstance(value, list) else []
