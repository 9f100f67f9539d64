"""Python's own descriptions of data -> JSON Schema: pydantic models, dataclasses, TypedDict, Enum, Literal,
unions, containers, and the arguments of a callable."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import inspect
import types
import typing
import uuid
from typing import Any

from octavo.grammar.errors import GrammarUnsupportedError

_SCALARS: dict[Any, dict[str, Any]] = {
    str: {"type": "string"}, int: {"type": "integer"}, float: {"type": "number"}, bool: {"type": "boolean"},
    None: {"type": "null"}, type(None): {"type": "null"}, Any: {}, object: {},
    decimal.Decimal: {"type": "number"},
    dict: {"type": "object"}, list: {"type": "array"}, tuple: {"type": "array"},
    datetime.datetime: {"type": "string", "format": "date-time"},
    datetime.date: {"type": "string", "format": "date"},
    datetime.time: {"type": "string", "format": "time"}, uuid.UUID: {"type": "string", "format": "uuid"},
}  # fmt: skip


def schema_of(annotation: Any) -> dict[str, Any]:
    """The JSON Schema of an annotation; classes that may be recursive are kept under $defs."""
    definitions: dict[str, Any] = {}
    schema = _Schemas(definitions).of(annotation)
    return {**schema, "$defs": definitions} if definitions else schema


class _Schemas:
    def __init__(self, definitions: dict[str, Any]) -> None:
        self.definitions = definitions
        self._names: dict[Any, str] = {}

    def of(self, annotation: Any) -> dict[str, Any]:
        if isinstance(annotation, typing.Hashable) and annotation in _SCALARS:
            return _SCALARS[annotation]
        model_schema = getattr(annotation, "model_json_schema", None)
        if model_schema is not None:
            return self._embed(annotation.__name__, model_schema())
        origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
        if origin is not None:
            return self._generic(annotation, origin, arguments)
        if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
            return {"enum": [member.value for member in annotation]}
        if dataclasses.is_dataclass(annotation) and isinstance(annotation, type):
            return self._named(annotation, self._dataclass)
        if typing.is_typeddict(annotation):
            return self._named(annotation, self._typed_dict)
        if callable(annotation) and not isinstance(annotation, type):
            return self._arguments(annotation)
        raise GrammarUnsupportedError(f"{annotation!r} has no JSON form that this knows; give a JSON Schema")

    def _embed(self, name: str, schema: dict[str, Any]) -> dict[str, Any]:
        """Another library's schema, under an identity of its own so that its references stay its own."""
        self.definitions.setdefault(name, {"$id": f"urn:model:{name}", **schema})
        return {"$ref": f"urn:model:{name}"}

    def _named(self, annotation: Any, make: Any) -> dict[str, Any]:
        if annotation not in self._names:
            name = annotation.__name__
            while name in self.definitions:
                name += "_"
            self._names[annotation] = name
            self.definitions[name] = {}
            self.definitions[name] = make(annotation)
        return {"$ref": f"#/$defs/{self._names[annotation]}"}

    def _object(self, fields: dict[str, Any], required: list[str]) -> dict[str, Any]:
        properties = {name: self.of(kind) for name, kind in fields.items()}
        return {
            "type": "object",
            "properties": properties,
            "required": required,
            "additionalProperties": False,
        }

    def _dataclass(self, annotation: Any) -> dict[str, Any]:
        hints = typing.get_type_hints(annotation, include_extras=True)
        fields = [f for f in dataclasses.fields(annotation) if f.init]
        absent = dataclasses.MISSING
        required = [f.name for f in fields if f.default is absent and f.default_factory is absent]
        return self._object({f.name: hints[f.name] for f in fields}, required)

    def _typed_dict(self, annotation: Any) -> dict[str, Any]:
        hints = typing.get_type_hints(annotation)
        return self._object(hints, [name for name in hints if name in annotation.__required_keys__])

    def _arguments(self, function: Any) -> dict[str, Any]:
        hints = typing.get_type_hints(function)
        parameters = inspect.signature(function).parameters.values()
        if any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters):
            raise GrammarUnsupportedError(
                f"{function.__name__} takes *args or **kwargs, which have no JSON form"
            )
        required = [p.name for p in parameters if p.default is p.empty]
        return self._object({p.name: hints.get(p.name, Any) for p in parameters}, required)

    def _generic(self, annotation: Any, origin: Any, arguments: tuple[Any, ...]) -> dict[str, Any]:
        if origin is typing.Literal:
            return {"enum": [value.value if isinstance(value, enum.Enum) else value for value in arguments]}
        if origin is typing.Union or origin is types.UnionType:
            return {"anyOf": [self.of(argument) for argument in arguments]}
        if origin in (typing.Annotated, typing.Required, typing.NotRequired):
            return self.of(arguments[0])
        if origin is tuple:
            if len(arguments) == 2 and arguments[1] is Ellipsis:
                return {"type": "array", "items": self.of(arguments[0])}
            items = [self.of(argument) for argument in arguments]
            return {"type": "array", "prefixItems": items, "items": False, "minItems": len(items)}
        if isinstance(origin, type) and issubclass(origin, set | frozenset):
            return {"type": "array", "items": self.of(arguments[0]), "uniqueItems": True}
        if isinstance(origin, type) and issubclass(origin, typing.Mapping) and arguments[0] is str:
            return {"type": "object", "additionalProperties": self.of(arguments[1])}
        if isinstance(origin, type) and issubclass(origin, typing.Iterable):
            return {"type": "array", "items": self.of(arguments[0])}
        raise GrammarUnsupportedError(f"{annotation!r} has no JSON form that this knows; give a JSON Schema")
