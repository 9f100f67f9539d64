"""A quick look at all that a schema can reach, which most schemas pass: nothing in it can be wrong.

Each keyword is looked at by itself, on the schema as it was given: no formulas and no places are made, which
are the cost of the thorough look (survey.py, the slow twin).  What passes has no mistake, no keyword that
cannot be enforced, no other draft within it and no reference that could mean a name.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any, TypeVar
from urllib.parse import unquote

from octavo.grammar.front_ends.regex_plain import plain_length
from octavo.grammar.json_schema.document import NAMES, draft_of
from octavo.grammar.json_schema.keywords import SAYING, TYPE_NAMES

Place = TypeVar("Place", bound=Hashable)
MAX_DEPTH = 60
MAX_NESTED = 20
MAX_SCHEMAS = 100_000
_SCALARS = frozenset(("string", "number", "integer", "boolean", "null"))
_CONTAINERS = (dict, list)
_LARGE = 1e300


def surely_sound(schema: Any) -> bool:
    """Whether a quick look shows already that the thorough one finds nothing wrong."""
    return isinstance(schema, bool) or (isinstance(schema, dict) and _Glance(schema).all_well())


def has_values(schema: Any, depth: int = 0) -> bool:
    """Whether a look at single keywords shows that some value satisfies a schema; False: it does not show."""
    if not isinstance(schema, dict):
        return schema is True
    said = SAYING.intersection(schema)
    declared = schema.get("type")
    if declared is None:
        return not said
    if isinstance(declared, list):
        return "null" in declared and said.isdisjoint(_OF_EVERY_TYPE)
    if not isinstance(declared, str) or declared not in TYPE_NAMES:
        return False
    if not said:
        return True
    if declared == "object":
        return _has_objects(schema, said, depth)
    if declared == "array":
        return said <= _OF_EMPTY_ARRAYS
    if declared == "string":
        return _has_strings(schema, said)
    if len(said) == 1 and declared in ("number", "integer"):
        (limit,) = (schema[keyword] for keyword in said)
        return not said.isdisjoint(_LIMITS) and _is_number(limit) and -_LARGE < limit < _LARGE
    return False


def lists_scalars(schema: Any) -> bool:
    """Whether a schema lists the values that it allows, and no arrays or objects among them."""
    said = SAYING.intersection(schema) if isinstance(schema, dict) else frozenset()
    if not said or not said <= {"enum", "const"}:
        return False
    values = schema.get("enum", [])
    return isinstance(values, list) and not any(
        isinstance(v, _CONTAINERS) for v in (*values, schema.get("const"))
    )


def _has_objects(schema: dict[str, Any], said: frozenset[str], depth: int) -> bool:
    """Whether there is an object with nothing but the required names."""
    needed = schema.get("required", ())
    if not needed and said <= _OF_EMPTY_OBJECTS:
        return True
    properties = schema.get("properties", {})
    if not said <= _OF_NAMES or depth > MAX_NESTED or not isinstance(properties, dict):
        return False
    others = schema.get("additionalProperties", True)
    return isinstance(needed, list) and all(
        isinstance(name, str) and has_values(properties.get(name, others), depth + 1) for name in needed
    )


def _has_strings(schema: dict[str, Any], said: frozenset[str]) -> bool:
    if said == {"enum"}:
        return isinstance(schema["enum"], list) and any(isinstance(text, str) for text in schema["enum"])
    if said == {"format"}:
        return True
    least, most = schema.get("minLength", 0), schema.get("maxLength", _LARGE)
    if not _is_number(least) or not _is_number(most):
        return False
    if said <= {"minLength", "maxLength"}:
        return bool(0 <= least <= min(most, 1_000_000))
    if said <= {"pattern", "maxLength"} and isinstance(schema["pattern"], str):
        length = plain_length(schema["pattern"])
        return length is not None and length <= most
    return False


class _DoubtError(Exception):
    """Something is not of the common kind."""


class _Glance:
    def __init__(self, root: dict[str, Any]) -> None:
        self.root = root
        self.draft = draft_of(root, 2020)
        self.below: list[Any] = []  # schemas yet to be looked at
        self.beside: list[Any] = []  # those among them that speak of the value that is looked at now
        self.denied: list[Any] = []  # those among them that must perhaps not hold
        self.unique = False  # whether some uniqueItems asks
        self.open = False  # whether some of them asks of arrays or objects where a scalar would do
        self.merged = False  # whether one value may have to satisfy several schemas
        self.named = False  # whether something below the root has a name, which references could mean
        self.targets: dict[str, Any] = {}  # of references

    def all_well(self) -> bool:
        identity = self.root.get("id" if self.draft <= 4 else "$id", "")
        if not isinstance(identity, str) or identity.startswith("#"):
            return False
        try:
            self._walk([self.root])
            if (self.open and self.merged) or (self.named and self.targets):
                return False
            if self.unique and self.denied:
                # What uniqueItems says cannot be denied.
                denied, self.unique = self.denied, False
                self._walk(denied)
                return not self.unique
        except _DoubtError:
            return False
        return True

    def _walk(self, level: list[Any]) -> None:
        """Looks at schemas and at what is below them, level by level."""
        seen: set[int] = set()
        same: dict[int, list[int]] = {}
        for _ in range(MAX_DEPTH):
            self.below = []
            for schema in level:
                if schema is True or schema is False or id(schema) in seen:
                    continue
                if not isinstance(schema, dict):
                    raise _DoubtError
                seen.add(id(schema))
                self._look(schema)
                if self.beside:
                    same[id(schema)] = [id(other) for other in self.beside]
                    self.below += self.beside
                    self.beside = []
            level = self.below
            if not level:
                break
            if len(seen) > MAX_SCHEMAS:
                raise _DoubtError
        else:
            raise _DoubtError
        if circular(same):
            raise _DoubtError

    def _look(self, schema: dict[str, Any]) -> None:
        if schema is not self.root and not NAMES.isdisjoint(schema):
            self._name(schema)
        if "$ref" in schema:
            self.beside.append(self._target(schema["$ref"]))
            if self.draft <= 7:
                return
            self.merged |= len(SAYING.intersection(schema)) > 1 or "type" in schema
        for keyword, value in schema.items():
            if keyword in _LOOKS:
                _LOOKS[keyword](self, value)
        if schema.get("uniqueItems") is True:
            self.unique = True
            if schema.get("maxItems") not in (0, 1) and not self._scalar(schema.get("items")):
                # An array that cannot be enforced is an error only where no scalar will do.
                if not isinstance(schema.get("type"), list) or not has_values(schema):
                    raise _DoubtError
                self.open = True

    def _name(self, schema: dict[str, Any]) -> None:
        if draft_of(schema, self.draft) != self.draft:
            raise _DoubtError
        self.named |= any(isinstance(schema.get(name), str) for name in NAMES - {"$schema"})

    def _target(self, reference: Any) -> Any:
        if not isinstance(reference, str) or not reference.isprintable():
            raise _DoubtError
        if reference not in self.targets:
            self.targets[reference] = self._follow(reference)
        return self.targets[reference]

    def _follow(self, reference: str) -> Any:
        target: Any = self.root
        if reference != "#" and not reference.startswith("#/"):
            raise _DoubtError
        for token in unquote(reference[1:]).split("/")[1:]:
            key: str | int = token.replace("~1", "/").replace("~0", "~")
            if isinstance(target, list) and token.isdecimal():
                key = int(token)
            elif not isinstance(target, dict):
                raise _DoubtError
            elif target is not self.root and not NAMES.isdisjoint(target):
                self._name(target)
            try:
                target = target[key]
            except (KeyError, IndexError):
                raise _DoubtError from None
        return target

    def _scalar(self, schema: Any) -> bool:
        """Whether only null, booleans, numbers or strings satisfy a schema, if all are of the common kind."""
        if isinstance(schema, dict) and "$ref" in schema:
            schema = self._target(schema["$ref"])
            if isinstance(schema, dict) and "$ref" in schema:
                return False
        if not isinstance(schema, dict):
            return schema is False
        if "enum" in schema:
            return lists_scalars({"enum": schema["enum"]})
        declared = schema.get("type")
        names = declared if isinstance(declared, list) else [declared]
        return all(isinstance(name, str) and name in _SCALARS for name in names)

    # What single keywords say.

    def schema(self, value: Any) -> None:
        self.below.append(value)

    def perhaps_schema(self, value: Any) -> None:
        if isinstance(value, dict):
            self.below.append(value)
        elif isinstance(value, list):
            self.below += value

    def schemas(self, value: Any) -> None:
        if not isinstance(value, list):
            raise _DoubtError
        self.below += value

    def schemas_by_name(self, value: Any) -> None:
        if not isinstance(value, dict):
            raise _DoubtError
        self.below += value.values()

    def patterns(self, value: Any) -> None:
        self.merged = True
        self.schemas_by_name(value)
        for pattern in value:
            self.pattern(pattern)

    def pattern(self, value: Any) -> None:
        if not isinstance(value, str) or plain_length(value) is None:
            raise _DoubtError

    def same(self, value: Any) -> None:
        self.merged = True
        self.beside.append(value)

    def all_same(self, value: Any) -> None:
        if not isinstance(value, list):
            raise _DoubtError
        self.merged = True
        self.beside += value

    def one_same(self, value: Any) -> None:
        self.all_same(value)
        self.denied += value

    def denied_same(self, value: Any) -> None:
        self.merged |= not lists_scalars(value)
        self.beside.append(value)
        self.denied.append(value)

    def contained(self, value: Any) -> None:
        self.merged = True
        self.below.append(value)
        self.denied.append(value)

    def dependencies(self, value: Any) -> None:
        if not isinstance(value, dict):
            raise _DoubtError
        self.merged = True
        self.beside += [needed for needed in value.values() if not isinstance(needed, list | str)]

    def dependent_names(self, value: Any) -> None:
        if not isinstance(value, dict) or not all(isinstance(needed, list) for needed in value.values()):
            raise _DoubtError

    def dependent_schemas(self, value: Any) -> None:
        if not isinstance(value, dict):
            raise _DoubtError
        self.merged = True
        self.beside += value.values()

    def type_names(self, value: Any) -> None:
        for name in value if isinstance(value, list) else (value,):
            if not isinstance(name, str) or name not in TYPE_NAMES:
                raise _DoubtError

    def values(self, value: Any) -> None:
        if not isinstance(value, list):
            raise _DoubtError
        self.value(value)

    def value(self, value: Any) -> None:
        parts = [value]
        for _ in range(MAX_DEPTH):
            # Whole numbers written with a point change how others may be written.
            if any(isinstance(part, float) and part.is_integer() for part in parts):
                raise _DoubtError
            parts = [item for part in parts if isinstance(part, _CONTAINERS) for item in _members(part)]
            if not parts:
                return
        raise _DoubtError

    def count(self, value: Any) -> None:
        if type(value) is not int or value < 0:
            raise _DoubtError

    def bound(self, value: Any) -> None:
        if not isinstance(value, int | float) or not -_LARGE < value < _LARGE:
            raise _DoubtError

    def step(self, value: Any) -> None:
        # Of at most 6 digits, which is as many as a remainder may have.
        if type(value) is int:
            if not 0 < value < 1_000_000:
                raise _DoubtError
        elif type(value) is not float or value <= 0 or len(repr(value)) > 7 or "e" in repr(value):
            raise _DoubtError

    def doubt(self, value: Any) -> None:
        raise _DoubtError


def circular(beside: Mapping[Place, Iterable[Place]]) -> list[Place]:
    """Those from which some way leads to a circle."""
    left = dict(beside)
    while ends := [place for place, others in left.items() if left.keys().isdisjoint(others)]:
        for place in ends:
            del left[place]
    return list(left)


def _members(value: Any) -> Any:
    return value.values() if isinstance(value, dict) else value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


#: What may be said of strings and numbers too where null is among the types.
_OF_EVERY_TYPE = frozenset("enum const not allOf anyOf oneOf if $ref $dynamicRef $recursiveRef".split())
_OF_EMPTY_ARRAYS = frozenset("items maxItems uniqueItems additionalItems".split())
_OF_NAMES = frozenset("properties required additionalProperties".split())
_OF_EMPTY_OBJECTS = _OF_NAMES | {"patternProperties", "propertyNames", "maxProperties"}
_LIMITS = frozenset("minimum maximum".split())
_LOOKS: dict[str, Callable[[_Glance, Any], None]] = {
    **dict.fromkeys(("additionalProperties", "propertyNames"), _Glance.schema),
    **dict.fromkeys(("items", "additionalItems"), _Glance.perhaps_schema),
    **dict.fromkeys(("allOf", "anyOf"), _Glance.all_same),
    **dict.fromkeys(("then", "else"), _Glance.same),
    **dict.fromkeys(("not", "if"), _Glance.denied_same),
    **dict.fromkeys(("minLength", "maxLength", "minItems", "maxItems"), _Glance.count),
    **dict.fromkeys(("minProperties", "maxProperties", "minContains", "maxContains"), _Glance.count),
    **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"), _Glance.bound),
    **dict.fromkeys(("unevaluatedProperties", "unevaluatedItems"), _Glance.doubt),
    **dict.fromkeys(("$dynamicRef", "$recursiveRef"), _Glance.doubt),
    "multipleOf": _Glance.step,
    "properties": _Glance.schemas_by_name,
    "patternProperties": _Glance.patterns,
    "prefixItems": _Glance.schemas,
    "contains": _Glance.contained,
    "oneOf": _Glance.one_same,
    "dependencies": _Glance.dependencies,
    "dependentRequired": _Glance.dependent_names,
    "dependentSchemas": _Glance.dependent_schemas,
    "type": _Glance.type_names,
    "enum": _Glance.values,
    "const": _Glance.value,
    "pattern": _Glance.pattern,
}
