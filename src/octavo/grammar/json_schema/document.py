"""A JSON Schema document and its resources: where every subschema is, and what a reference means there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
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
_LITERAL_KEYWORDS = frozenset(("enum", "const", "default", "examples", "example"))
NAMES = frozenset(("$schema", "id", "$id", "$anchor", "$dynamicAnchor"))
_CONTAINERS = (dict, list)


@dataclass(frozen=True, slots=True)
class Setting:
    """What the names in a document say of a place: the URI and the draft that count there, and the resources
    entered on the way to it, outermost first (its dynamic scope)."""

    base: str
    draft: int
    scope: tuple[str, ...]
    copied: bool = False  # a copy, for another scope


class SchemaDocument:
    """Subschemas by place: the name of a resource and a JSON pointer in it, such as "#/properties/a".

    A place is looked at when it is asked for; those with names, beforehand.
    """

    def __init__(
        self, schema: Schema, resources: Mapping[str, Schema] | None = None, named: bool = True
    ) -> None:
        """`named`: something below the roots may have a name or a draft of its own that counts."""
        self._at: dict[str, Schema] = {}
        self._setting: dict[str, Setting] = {}
        self._named: dict[str, str] = {}  # absolute URI, perhaps with an anchor -> place
        self._anchored: dict[str, dict[str, str]] = {}  # resource -> its dynamic anchors -> places
        self._entered: dict[tuple[str, tuple[str, ...]], str] = {}  # copies for other scopes
        self._resolved: dict[tuple[str, str], str] = {}  # base and reference -> place
        self._synthetic = 0
        self.draft = draft_of(schema, 2020)
        self.root = "#"
        for uri, other in (resources or {}).items():
            if isinstance(other, dict | bool):
                self._look(uri + "#", other, Setting(uri, draft_of(other, self.draft), ()))
                self._named.setdefault(uri, uri + "#")
        self._look(self.root, schema, Setting("", self.draft, ()))
        for place in list(self._at) if named else ():
            for way in _named_parts(self._at[place]):
                self.child(place, *way)
        self._named[""] = "#"
        anchors = [anchor for known in self._anchored.values() for anchor in known]
        #: Whether the meaning of a dynamic reference depends on the way to it.
        self._contested = len(anchors) > len(set(anchors))

    def at(self, place: str) -> Schema:
        return self._at[place]

    def draft_at(self, place: str) -> int:
        return self._setting[place].draft

    def same_resource(self, place: str, other: str) -> bool:
        """Whether references in both mean the same."""
        return self._setting[place].base == self._setting[other].base

    def child(self, place: str, *keys: str | int) -> str:
        """The place of a subschema below another; it need not be in the usual places for schemas."""
        value = self._at[place]
        for key in keys:
            value = value[key]
            below = f"{place}/{_escaped(str(key))}"
            if below not in self._at:
                self._look(below, value, self._setting[place])
            place = below
        return place

    def add(self, schema: Schema, near: str) -> str:
        """A schema that we made ourselves, for a keyword of the schema `near`."""
        self._synthetic += 1
        place = f"{near}~{self._synthetic}"
        self._at[place], self._setting[place] = schema, self._setting[near]
        return place

    def _look(self, place: str, value: Any, setting: Setting) -> None:
        """Notes a place and its names."""
        base, draft = setting.base, setting.draft
        if isinstance(value, dict) and not NAMES.isdisjoint(value):
            base, draft = self._name(place, value, base, draft, setting.copied)
        if base != setting.base or draft != setting.draft or base not in setting.scope:
            scope = setting.scope if base in setting.scope else (*setting.scope, base)
            setting = Setting(base, draft, scope, setting.copied)
        self._at[place], self._setting[place] = value, setting

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
        key = (self._setting[place].base, reference)
        if key not in self._resolved:
            self._resolved[key] = self._resolve(place, reference)
        return self._resolved[key]

    def _resolve(self, place: str, reference: str) -> str:
        uri, fragment = self._setting[place].base, reference[1:]
        if not reference.startswith("#") or not reference.isprintable() or uri not in self._named:
            uri, fragment = urldefrag(join(uri, reference))
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
            for resource in self._setting[place].scope:
                if anchor in self._anchored.get(resource, {}):
                    target = self._anchored[resource][anchor]
                    break
        return self._enter(place, target)

    def _enter(self, place: str, target: str) -> str:
        """The target as reached from `place`: a copy of it where dynamic references then mean another."""
        if not self._contested:
            return target
        setting = self._setting[target]
        scope = self._anchoring((*self._setting[place].scope, setting.base))
        if scope == self._anchoring(setting.scope):
            return target
        key = (target, scope)
        if key not in self._entered:
            copy = self._entered[key] = f"{target}@{len(self._entered) + 1}"
            self._look(copy, self._at[target], replace(setting, scope=scope, copied=True))
        return self._entered[key]

    def _anchoring(self, scope: tuple[str, ...]) -> tuple[str, ...]:
        """Those resources of a scope that can matter."""
        return tuple(dict.fromkeys(resource for resource in scope if resource in self._anchored))


def _escaped(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1") if "~" in key or "/" in key else key


def _named_parts(schema: Schema) -> list[list[str | int]]:
    """Where below the root something may have a name or a draft of its own; bounds what there is."""
    parts: list[tuple[Any, int, str | int, int, bool]] = [(schema, -1, "", 0, True)]
    work, named = [0], []
    while work:
        index = work.pop()
        value, _, _, depth, is_schema = parts[index]
        if is_schema and index and isinstance(value, dict) and not NAMES.isdisjoint(value):
            named.append(index)
        for key, item in _members(value):
            if isinstance(item, _CONTAINERS) and not (is_schema and key in _LITERAL_KEYWORDS):
                work.append(len(parts))
                parts.append((item, index, key, depth + 1, not (is_schema and key in _MAPS)))
        if depth > MAX_DEPTH:
            raise GrammarTooComplexError(f"the schema nests over {MAX_DEPTH} deep")
        if len(parts) > MAX_NODES:
            raise GrammarTooComplexError(f"the schema has over {MAX_NODES} parts")
    ways = []
    for index in named:
        way: list[str | int] = []
        while index > 0:
            _, above, key, _, _ = parts[index]
            way.insert(0, key)
            index = above
        ways.append(way)
    return ways


def _members(value: Any) -> Iterable[tuple[str | int, Any]]:
    if isinstance(value, dict):
        return value.items()
    return enumerate(value) if isinstance(value, list) else ()


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
