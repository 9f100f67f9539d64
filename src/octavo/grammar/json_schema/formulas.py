"""Schemas -> logical formulas over the constraints of one type of value.

A formula is True, False, ("and", formulas), ("or", formulas), ("not", formula), ("one", places),
("place", place) or an atom: (name, arguments...).  Keywords of other types say nothing about a value and are
left out, as the standard says.
"""

from __future__ import annotations

from typing import Any

from octavo.grammar.errors import GrammarSyntaxError, GrammarUnsupportedError
from octavo.grammar.json_schema.document import SchemaDocument
from octavo.grammar.json_schema.formats import FORMATS
from octavo.grammar.json_schema.keywords import EVERY_TYPE, LOGIC, TYPE_NAMES, only_a_type
from octavo.grammar.json_schema.unevaluated import Unevaluated

Formula = Any

_ATOMS: dict[str, frozenset[str]] = {kind: frozenset() for kind in ("null", "false", "true")} | {
    "number": frozenset("minimum maximum exclusiveMinimum exclusiveMaximum multipleOf".split()),
    "string": frozenset("minLength maxLength pattern format".split()),
    "array": frozenset(
        """items prefixItems additionalItems minItems maxItems uniqueItems contains minContains maxContains
        unevaluatedItems""".split()
    ),
    "object": frozenset(
        """properties required additionalProperties patternProperties propertyNames minProperties
        maxProperties dependencies dependentRequired dependentSchemas unevaluatedProperties""".split()
    ),
}


class Formulas:
    """The formula of each place for each type, made once."""

    def __init__(self, document: SchemaDocument, strict: bool = True) -> None:
        self.document = document
        self.strict = strict
        self.approximated: dict[str, str] = {}  # where not strict: what is left out, and why
        self._unevaluated = Unevaluated(document)
        self._made: dict[tuple[str, str], Formula] = {}
        self._kinds: dict[str, frozenset[str]] = {}

    def of(self, place: str, kind: str) -> Formula:
        key = (place, kind)
        if key not in self._made:
            self._made[key] = self._formula(place, kind)
        return self._made[key]

    def kinds(self, place: str) -> frozenset[str]:
        """Some types, of which every value that satisfies the schema has one."""
        found = self._kinds.get(place)
        if found is None:
            self._kinds[place] = EVERY_TYPE  # for those that lead back here
            found = self._kinds[place] = self._possible_kinds(place)
        return found

    def _possible_kinds(self, place: str) -> frozenset[str]:
        schema, document, found = self.document.at(place), self.document, self.declared_kinds(place)
        if not isinstance(schema, dict) or LOGIC.isdisjoint(schema):
            return found
        if isinstance(schema.get("$ref"), str):
            found &= self.kinds(document.resolve(place, schema["$ref"]))
            if document.draft_at(place) <= 7:
                return found
        for keyword in ("anyOf", "oneOf"):
            if isinstance(schema.get(keyword), list):
                members = [document.child(place, keyword, index) for index in range(len(schema[keyword]))]
                found &= frozenset().union(*map(self.kinds, members))
        return found

    def kinds_without(self, place: str) -> frozenset[str]:
        """Some types, of which every value that does not satisfy the schema has one."""
        schema = self.document.at(place)
        if schema is True or (only_a_type(schema) and "type" not in schema):
            return frozenset()
        if only_a_type(schema) and schema["type"] != "integer":
            return EVERY_TYPE - TYPE_NAMES[schema["type"]]
        return EVERY_TYPE

    def declared_kinds(self, place: str) -> frozenset[str]:
        """The types that `type` leaves: for any other the formula is False, and need not be made."""
        schema = self.document.at(place)
        if schema is False:
            return frozenset()
        declared = schema.get("type") if isinstance(schema, dict) else None
        if declared is None or ("$ref" in schema and self.document.draft_at(place) <= 7):
            return EVERY_TYPE
        if isinstance(declared, str):
            return TYPE_NAMES.get(declared, EVERY_TYPE)
        names = declared if isinstance(declared, list) else [declared]
        if not all(isinstance(name, str) and name in TYPE_NAMES for name in names):
            return EVERY_TYPE
        return frozenset(kind for name in names for kind in TYPE_NAMES[name])

    def _formula(self, place: str, kind: str) -> Formula:
        schema = self.document.at(place)
        if isinstance(schema, bool):
            return schema
        if not isinstance(schema, dict):
            raise GrammarSyntaxError(
                f"{place}: a schema is an object or a boolean, not {type(schema).__name__}"
            )
        if "$ref" in schema and self.document.draft_at(place) <= 7:
            return ("place", self._reference(place, schema))
        parts: list[Formula] = [self._type(place, schema, kind)]
        if "enum" in schema or "const" in schema:
            parts += self._values(place, schema, kind)
        if False in parts:
            return False
        if not LOGIC.isdisjoint(schema):
            parts += self._logic(place, schema)
        if not _ATOMS[kind].isdisjoint(schema):
            parts += self._atoms(place, schema, kind)
        return ("and", [part for part in parts if part is not True])

    def _atoms(self, place: str, schema: dict[str, Any], kind: str) -> list[Formula]:
        # No table of methods: it would refer back to what has it, and memory would wait for a collection.
        if kind == "number":
            return number_atoms(place, schema)
        if kind == "string":
            return string_atoms(place, schema)
        return self._array(place, schema) if kind == "array" else self._object(place, schema)

    def _reference(self, place: str, schema: dict[str, Any]) -> str:
        if not isinstance(schema["$ref"], str):
            raise GrammarSyntaxError(f"{place}/$ref: a reference is a string")
        return self.document.resolve(place, schema["$ref"])

    def _type(self, place: str, schema: dict[str, Any], kind: str) -> Formula:
        declared = schema.get("type")
        if declared is None:
            return True
        names = declared if isinstance(declared, list) else [declared]
        options: list[Formula] = []
        for index, name in enumerate(names):
            if isinstance(name, dict) and self.document.draft_at(place) <= 4:
                options.append(("place", self.document.child(place, "type", index)))
            elif name == "any" and self.document.draft_at(place) <= 4:
                return True
            elif not isinstance(name, str) or name not in TYPE_NAMES:
                raise GrammarSyntaxError(f"{place}/type: {name!r} is not a type")
            elif kind in TYPE_NAMES[name]:
                if name != "integer":
                    return True
                options.append(("integer", self.document.draft_at(place) > 4))
        return ("or", options) if options else False

    def _values(self, place: str, schema: dict[str, Any], kind: str) -> list[Formula]:
        result: list[Formula] = []
        if "enum" in schema:
            values = schema["enum"]
            if not isinstance(values, list):
                raise GrammarSyntaxError(f"{place}/enum: a list of values was expected")
            result.append(self._one_of_values(place, [v for v in values if kind_of(v) == kind], kind))
        if "const" in schema:
            value = schema["const"]
            result.append(self._one_of_values(place, [value] if kind_of(value) == kind else [], kind))
        return result

    def _one_of_values(self, place: str, values: list[Any], kind: str) -> Formula:
        if not values:
            return False
        if kind in ("null", "true", "false"):
            return True
        if kind == "string":
            return ("texts", tuple(dict.fromkeys(values)))
        if kind == "number":
            return ("numbers", tuple(values))
        return ("or", [("place", self.document.add(exact_schema(value), place)) for value in values])

    def _logic(self, place: str, schema: dict[str, Any]) -> list[Formula]:
        document = self.document
        result: list[Formula] = []
        if "$ref" in schema:
            result.append(("place", self._reference(place, schema)))
        if "$dynamicRef" in schema:
            result.append(("place", document.resolve_dynamic(place, schema["$dynamicRef"])))
        if "$recursiveRef" in schema:
            result.append(("place", document.resolve(place, schema["$recursiveRef"])))
        for keyword, name in (("allOf", "and"), ("anyOf", "or"), ("oneOf", "one")):
            if keyword in schema:
                if not isinstance(schema[keyword], list):
                    raise GrammarSyntaxError(f"{place}/{keyword}: a list of schemas was expected")
                places = [document.child(place, keyword, index) for index in range(len(schema[keyword]))]
                if name == "one":
                    result.append(("one", places))
                else:
                    result.append((name, [("place", p) for p in places]))
        if "not" in schema:
            result.append(("not", ("place", document.child(place, "not"))))
        if "if" in schema and ("then" in schema or "else" in schema):
            condition = ("place", document.child(place, "if"))
            then = ("place", document.child(place, "then")) if "then" in schema else True
            other = ("place", document.child(place, "else")) if "else" in schema else True
            yes, no = ("and", [condition, then]), ("and", [("not", condition), other])
            result.append(("or", [yes, no]))
        return result

    def _array(self, place: str, schema: dict[str, Any]) -> list[Formula]:
        document = self.document
        result: list[Formula] = []
        prefix = (
            "prefixItems"
            if "prefixItems" in schema
            else "items"
            if isinstance(schema.get("items"), list)
            else ""
        )
        count = len(schema[prefix]) if prefix else 0
        for index in range(count):
            result.append(("items", index, index + 1, document.child(place, prefix, index)))
        rest = "additionalItems" if prefix == "items" else "items"
        if isinstance(schema.get(rest), dict | bool):
            result.append(("items", count, None, document.child(place, rest)))
        least, most = schema.get("minItems", 0), schema.get("maxItems")
        if least or most is not None:
            result.append(("count", *bounds(place, "Items", least, most)))
        if "contains" in schema:
            low, high = schema.get("minContains", 1), schema.get("maxContains")
            contained = (
                "contains",
                0,
                None,
                document.child(place, "contains"),
                *bounds(place, "Contains", low, high),
            )
            result.append(contained)
        if schema.get("uniqueItems") is True:
            result.append(("unique",))
        if "unevaluatedItems" in schema and document.draft_at(place) > 7:
            result.append(self._left_over(place, "unevaluatedItems"))
        return result

    def _object(self, place: str, schema: dict[str, Any]) -> list[Formula]:
        document = self.document
        result: list[Formula] = []
        names = mapping(place, schema, "properties")
        patterns = mapping(place, schema, "patternProperties")
        for name in names:
            result.append(("values", ("name", name), document.child(place, "properties", name)))
        for pattern in patterns:
            result.append(
                ("values", ("pattern", pattern), document.child(place, "patternProperties", pattern))
            )
        if "additionalProperties" in schema:
            rest = ("rest", frozenset(names), frozenset(patterns))
            result.append(("values", rest, document.child(place, "additionalProperties")))
        if "propertyNames" in schema:
            result.append(("keys", document.child(place, "propertyNames")))
        required = schema.get("required", [])
        if isinstance(required, list):
            result += [("required", str(name)) for name in required]
        least, most = schema.get("minProperties", 0), schema.get("maxProperties")
        if least or most is not None:
            result.append(("count", *bounds(place, "Properties", least, most)))
        if "unevaluatedProperties" in schema and document.draft_at(place) > 7:
            result.append(self._left_over(place, "unevaluatedProperties"))
        return result + self._dependencies(place, schema)

    def _left_over(self, place: str, keyword: str) -> Formula:
        try:
            return self._unevaluated.formula(place, keyword)
        except GrammarUnsupportedError as error:
            if self.strict:
                raise
            self.approximated[f"{place}/{keyword}"] = str(error)
            return True

    def _dependencies(self, place: str, schema: dict[str, Any]) -> list[Formula]:
        document = self.document
        result: list[Formula] = []
        for name, needed in mapping(place, schema, "dependentRequired").items():
            result.append(_implies(name, ("and", [("required", other) for other in needed])))
        for name in mapping(place, schema, "dependentSchemas"):
            result.append(_implies(name, ("place", document.child(place, "dependentSchemas", name))))
        if self.document.draft_at(place) <= 7:
            for name, needed in mapping(place, schema, "dependencies").items():
                if isinstance(needed, list):
                    result.append(_implies(name, ("and", [("required", other) for other in needed])))
                elif isinstance(needed, str):
                    result.append(_implies(name, ("required", needed)))
                else:
                    result.append(_implies(name, ("place", document.child(place, "dependencies", name))))
        return result


def _implies(name: str, formula: Formula) -> Formula:
    return ("or", [("not", ("required", name)), formula])


def mapping(place: str, schema: dict[str, Any], keyword: str) -> dict[str, Any]:
    value = schema.get(keyword, {})
    if not isinstance(value, dict):
        raise GrammarSyntaxError(f"{place}/{keyword}: an object was expected")
    return value


def bounds(place: str, what: str, least: Any, most: Any) -> tuple[int, int | None]:
    for name, value in (("min", least), ("max", most)):
        if value is not None and (isinstance(value, bool) or value != int(value) or value < 0):
            raise GrammarSyntaxError(
                f"{place}/{name}{what}: a whole number from 0 was expected, not {value!r}"
            )
    return int(least), None if most is None else int(most)


def number_atoms(place: str, schema: dict[str, Any]) -> list[Formula]:
    result: list[Formula] = []
    for keyword, strict, allowed in (
        ("minimum", "exclusiveMinimum", frozenset({0, 1})),
        ("maximum", "exclusiveMaximum", frozenset({0, -1})),
    ):
        limit, exclusive = schema.get(keyword), schema.get(strict)
        for name, value in ((keyword, limit), (strict, exclusive)):
            if value is not None and not isinstance(value, int | float):
                raise GrammarSyntaxError(f"{place}/{name}: a number was expected, not {value!r}")
        if limit is not None:
            result.append(("compare", limit, allowed - {0} if exclusive is True else allowed))
        if exclusive is not None and not isinstance(exclusive, bool):
            result.append(("compare", exclusive, allowed - {0}))
    if "multipleOf" in schema:
        step = schema["multipleOf"]
        if not isinstance(step, int | float) or isinstance(step, bool) or step <= 0:
            raise GrammarSyntaxError(f"{place}/multipleOf: a number over 0 was expected, not {step!r}")
        result.append(("multiple", step))
    return result


def string_atoms(place: str, schema: dict[str, Any]) -> list[Formula]:
    result: list[Formula] = []
    least, most = schema.get("minLength", 0), schema.get("maxLength")
    if least or most is not None:
        result.append(("length", *bounds(place, "Length", least, most)))
    if "pattern" in schema:
        if not isinstance(schema["pattern"], str):
            raise GrammarSyntaxError(f"{place}/pattern: a string was expected")
        result.append(("pattern", schema["pattern"], place + "/pattern"))
    if isinstance(schema.get("format"), str) and schema["format"] in FORMATS:
        result.append(("format", schema["format"]))
    return result


def kind_of(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, str):
        return "string"
    return "array" if isinstance(value, list) else "object"


def exact_schema(value: Any) -> Any:
    """The schema that only this value satisfies, for arrays and objects of any depth."""
    if isinstance(value, list):
        items = [exact_schema(item) for item in value]
        return {"type": "array", "prefixItems": items, "items": False, "minItems": len(items)}
    if isinstance(value, dict):
        properties = {key: exact_schema(item) for key, item in value.items()}
        return {
            "type": "object",
            "properties": properties,
            "required": list(value),
            "additionalProperties": False,
        }
    return {"const": value}
