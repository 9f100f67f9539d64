"""A JSON Schema document and its resources: where every subschema is, and what a reference means there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote, urldefrag, urljoin

from octavo.grammar.errors import GrammarSyntaxError, GrammarTooComplexError, GrammarUnsupportedError

Schema = Any  # a dict or a bool
MAX_NODES = 500_000
MAX_DEPTH = 256
_DRAFTS = (
    ("draft-03", 3),
    ("draft-04", 4),
    ("draft-06", 6),
    ("draft-07", 7),
    ("2019-09", 2019),
    ("2020-12", 2020),
)
_LITERAL_KEYWORDS = ("enum", "const", "default", "examples", "example")


class SchemaDocument:
    """Subschemas by place: a place is the name of a resource and a JSON pointer in it, such as
    "#/properties/a".
    """

    def __init__(self, schema: Schema, resources: Mapping[str, Schema] | None = None) -> None:
        self._at: dict[str, Schema] = {}
        self._base: dict[str, str] = {}
        self._draft: dict[str, int] = {}
        self._named: dict[str, str] = {}  # absolute URI, perhaps with an anchor -> place
        self._anchored: dict[str, dict[str, str]] = {}  # resource -> its dynamic anchors -> places
        #: By place, the resources entered on the way to it, outermost first: the dynamic scope.
        self._scope: dict[str, tuple[str, ...]] = {}
        self._entered: dict[tuple[str, tuple[str, ...]], str] = {}  # copies for other scopes
        self._copies: set[str] = set()
        self._resolved: dict[tuple[str, str], str] = {}  # base and reference -> place
        self._synthetic = 0
        self.draft = draft_of(schema, 2020)
        self.root = "#"
        for uri, other in (resources or {}).items():
            if isinstance(other, dict | bool):
                self._index(uri + "#", other, uri, draft_of(other, self.draft))
                self._named.setdefault(uri, uri + "#")
        self._index("#", schema, "", self.draft)
        self._named[""] = "#"
        anchors = [anchor for known in self._anchored.values() for anchor in known]
        #: Whether the meaning of a dynamic reference depends on the way to it.
        self._contested = len(anchors) > len(set(anchors))

    def at(self, place: str) -> Schema:
        return self._at[place]

    def draft_at(self, place: str) -> int:
        return self._draft.get(place, self.draft)

    def same_resource(self, place: str, other: str) -> bool:
        """Whether references in both mean the same."""
        return self._base[place] == self._base[other]

    def child(self, place: str, *keys: str | int) -> str:
        """The place of a subschema below another; it need not be in the usual places for schemas."""
        value = self._at[place]
        for key in keys:
            value = value[key]
            below = f"{place}/{str(key).replace('~', '~0').replace('/', '~1')}"
            if below not in self._at:
                self._index(below, value, self._base[place], self.draft_at(place), self._scope[place])
            place = below
        return place

    def add(self, schema: Schema, near: str) -> str:
        """A schema that we made ourselves, for a keyword of the schema `near`."""
        self._synthetic += 1
        place = f"{near}~{self._synthetic}"
        self._at[place] = schema
        self._base[place] = self._base[near]
        self._draft[place], self._scope[place] = self.draft_at(near), self._scope[near]
        if near in self._copies:
            self._copies.add(place)
        return place

    def _index(
        self,
        start: str,
        schema: Schema,
        base: str,
        draft: int,
        scope: tuple[str, ...] = (),
        copied: bool = False,
    ) -> None:
        work: list[tuple[str, Any, str, int, int, bool, tuple[str, ...]]]
        work = [(start, schema, base, 0, draft, True, scope)]
        copied = copied or start.rpartition("/")[0] in self._copies
        while work:
            place, value, base, depth, draft, is_schema, scope = work.pop()
            if depth > MAX_DEPTH:
                raise GrammarTooComplexError(f"the schema nests over {MAX_DEPTH} deep, at {place[:200]}")
            if len(self._at) > MAX_NODES:
                raise GrammarTooComplexError(f"the schema has over {MAX_NODES} parts")
            if isinstance(value, dict):
                if is_schema:
                    base, draft = self._name(place, value, base, draft, copied)
                children = [
                    (key, item) for key, item in value.items() if isinstance(item, dict | list | bool)
                ]
            elif isinstance(value, list):
                children = [(str(index), item) for index, item in enumerate(value)]
            else:
                children = []
            scope = scope if base in scope else (*scope, base)
            self._at[place], self._base[place], self._draft[place] = value, base, draft
            self._scope[place] = scope
            if copied:
                self._copies.add(place)
            for key, item in children:
                if (
                    is_schema
                    and key in _LITERAL_KEYWORDS
                    and isinstance(value, dict)
                    and not isinstance(item, bool)
                ):
                    continue
                below = f"{place}/{key.replace('~', '~0').replace('/', '~1')}"
                holds_schemas = not (is_schema and isinstance(value, dict) and key in _MAPS)
                work.append((below, item, base, depth + 1, draft, holds_schemas, scope))

    def _name(
        self, place: str, schema: dict[str, Any], base: str, draft: int, copied: bool
    ) -> tuple[str, int]:
        """The base and the draft of a schema; its names are noted, unless it is a copy."""
        if isinstance(schema.get("$schema"), str):
            draft = draft_of(schema, draft)
        identity = schema.get("id" if draft <= 4 else "$id")
        if isinstance(identity, str) and not (draft <= 7 and "$ref" in schema):
            if identity.startswith("#") and draft <= 7:
                if not copied:
                    self._named.setdefault(join(base, identity), place)
            else:
                base = urldefrag(join(base, identity))[0]
                if not copied:
                    self._named.setdefault(base, place)
        if copied:
            return base, draft
        for keyword in ("$anchor", "$dynamicAnchor"):
            anchor = schema.get(keyword)
            if isinstance(anchor, str):
                self._named.setdefault(f"{base}#{anchor}", place)
                if keyword == "$dynamicAnchor":
                    self._anchored.setdefault(base, {}).setdefault(anchor, place)
        return base, draft

    def resolve(self, place: str, reference: str) -> str:
        """The place that `reference`, written in the schema at `place`, means."""
        return self._enter(place, self._target(place, reference))

    def _target(self, place: str, reference: str) -> str:
        key = (self._base[place], reference)
        if key not in self._resolved:
            self._resolved[key] = self._resolve(place, reference)
        return self._resolved[key]

    def _resolve(self, place: str, reference: str) -> str:
        absolute = join(self._base[place], reference)
        uri, fragment = urldefrag(absolute)
        if not fragment and uri in self._named:
            return self._named[uri]
        exact = self._named.get(f"{uri}#{fragment}")
        if exact is not None:
            return exact
        if uri not in self._named:
            raise GrammarUnsupportedError(
                f"{place}/$ref: {reference!r} is not in the schema, and other documents are not fetched; "
                "give it in `resources`"
            )
        try:
            return self._follow(place, reference, self._named[uri], fragment)
        except GrammarSyntaxError:
            # Many schemas of draft 4 mean the whole document although an inner "id" says otherwise.
            if not reference.startswith("#/") or self._named[uri] == self.root:
                raise
            return self._follow(place, reference, self.root, fragment)

    def _follow(self, place: str, reference: str, target: str, fragment: str) -> str:
        if fragment and not fragment.startswith("/"):
            raise GrammarUnsupportedError(f"{place}/$ref: there is no anchor {fragment!r}")
        for token in unquote(fragment).split("/")[1:]:
            key = token.replace("~1", "/").replace("~0", "~")
            value = self._at[target]
            index: str | int = int(key) if isinstance(value, list) and key.isdecimal() else key
            try:
                value[index]
            except (KeyError, IndexError, TypeError):
                raise GrammarSyntaxError(f"{place}/$ref: {reference!r} leads nowhere, at {key!r}") from None
            target = self.child(target, index)
        return target

    def resolve_dynamic(self, place: str, reference: str) -> str:
        """A $dynamicRef: the outermost resource entered so far that has the anchor says what it means, if the
        reference itself leads to such an anchor (2020-12, Core, section 8.2.3.2).
        """
        target = self._target(place, reference)
        anchor = urldefrag(reference)[1]
        schema = self._at[target]
        if isinstance(schema, dict) and schema.get("$dynamicAnchor") == anchor:
            for resource in self._scope[place]:
                if anchor in self._anchored.get(resource, {}):
                    target = self._anchored[resource][anchor]
                    break
        return self._enter(place, target)

    def _enter(self, place: str, target: str) -> str:
        """The target as reached from `place`: a copy of it where dynamic references then mean another."""
        if not self._contested:
            return target
        scope = self._anchoring((*self._scope[place], self._base[target]))
        if scope == self._anchoring(self._scope[target]):
            return target
        key = (target, scope)
        if key not in self._entered:
            copy = self._entered[key] = f"{target}@{len(self._entered) + 1}"
            self._index(copy, self._at[target], self._base[target], self.draft_at(target), scope, copied=True)
        return self._entered[key]

    def _anchoring(self, scope: tuple[str, ...]) -> tuple[str, ...]:
        """Those resources of a scope that can matter."""
        return tuple(dict.fromkeys(resource for resource in scope if resource in self._anchored))


def join(base: str, reference: str) -> str:
    """urljoin, also for schemes that it does not know, such as urn."""
    if not base or not reference.startswith("#"):
        return urljoin(base, reference)
    return urldefrag(base)[0] + reference


_MAPS = ("properties", "patternProperties", "$defs", "definitions", "dependencies", "dependentSchemas")


def draft_of(schema: Schema, default: int) -> int:
    declared = schema.get("$schema", "") if isinstance(schema, dict) else ""
    for name, draft in _DRAFTS:
        if isinstance(declared, str) and name in declared:
            return draft
    return default
