"""Generation within a grammar through the whole engine: a random model, whose every text must be valid."""

from __future__ import annotations

import dataclasses
import enum
import json
import re
from pathlib import Path
from typing import Any, Literal

import pytest
from byte_model import write_byte_model as write_model

import octavo
from octavo.api import Model
from octavo.grammar import GrammarError, GrammarUnsupportedError
from octavo.structured import as_grammar

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 8},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "kind": {"enum": ["cat", "dog"]},
        "tags": {"type": "array", "items": {"type": "boolean"}, "maxItems": 3},
    },
    "required": ["name", "age", "kind", "tags"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with octavo.load(write_model(tmp_path_factory.mktemp("models") / "tiny.gguf"), threads=1) as loaded:
        yield loaded


def is_valid(text: str) -> bool:
    value = json.loads(text)
    return (
        list(value) == ["name", "age", "kind", "tags"]
        and len(value["name"]) <= 8
        and 0 <= value["age"] <= 120
        and value["kind"] in ("cat", "dog")
        and len(value["tags"]) <= 3
        and all(isinstance(tag, bool) for tag in value["tags"])
    )


@pytest.mark.parametrize("forced", ["canonical", "exact", "off"])
def test_every_text_is_in_the_grammar(model: Model, forced: Any) -> None:
    for seed in range(4):
        options = {"seed": seed, "temperature": 1.0, "max_tokens": 300, "forced_tokens": forced}
        done = model.generate("a", grammar=SCHEMA, **options)  # type: ignore[call-overload]
        assert is_valid(done.text)
        assert done.finish_reason == "stop"


@pytest.mark.parametrize("max_tokens", [52, 60, 75])
def test_the_text_closes_before_max_tokens(model: Model, max_tokens: int) -> None:
    for seed in range(6):
        done = model.generate("a", grammar=SCHEMA, seed=seed, temperature=1.0, max_tokens=max_tokens)
        assert is_valid(done.text) and len(done.tokens) <= max_tokens


def test_too_little_room_is_an_error(model: Model) -> None:
    with pytest.raises(GrammarError, match="max_tokens: 5, and the shortest text of this grammar has 4"):
        model.generate("a", grammar=SCHEMA, max_tokens=5)


def test_skipping_what_is_forced_changes_nothing(model: Model) -> None:
    """Noise is keyed by position: one valid token is the same token with or without a forward pass."""
    options: dict[str, Any] = {"grammar": SCHEMA, "temperature": 1.0, "seed": 5, "max_tokens": 200}
    sampled = model.generate("a", forced_tokens="off", **options)
    assert model.generate("a", forced_tokens="exact", **options).tokens == sampled.tokens


def test_a_batch_of_grammars_and_free_text(model: Model) -> None:
    streams = [
        model.stream("a", grammar=["yes", "no"], seed=1),
        model.stream("b", seed=1, max_tokens=9),
        model.stream("c", grammar=re.compile("[0-9]{4}-[0-9]{2}"), seed=1),
    ]
    texts = ["".join(stream) for stream in streams]
    assert texts[0] in ("yes", "no")
    assert texts[1] == model.generate("b", seed=1, max_tokens=9).text
    assert re.fullmatch("[0-9]{4}-[0-9]{2}", texts[2])


def test_a_grammar_that_fails_ends_one_generation(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = model.stream("a", grammar=SCHEMA, seed=1)
    other = model.stream("b", seed=1, max_tokens=9)
    constraint = stream._generation._sequence.constraint
    monkeypatch.setattr(constraint, "mask", raise_an_error)
    with pytest.raises(GrammarError, match="too complex"):
        list(stream)
    assert "".join(other) == model.generate("b", seed=1, max_tokens=9).text


def raise_an_error(generated: object) -> None:
    raise GrammarError("too complex")


def test_what_a_grammar_may_be() -> None:
    @dataclasses.dataclass
    class Point:
        x: int
        y: int

    class Colour(enum.Enum):
        RED = "red"

    def act(name: str, times: int = 1) -> None: ...

    for meaning in (Point, Colour, Literal["a", "b"], act, SCHEMA, True, 'root ::= "a" | "b"', ["a"]):
        assert as_grammar(meaning).report is not None
    with pytest.raises(GrammarError, match="GBNF"):
        as_grammar("what is this")
    with pytest.raises(GrammarUnsupportedError):
        as_grammar({"unevaluatedProperties": False, "$dynamicRef": "#a"})


def test_compiled_once(model: Model) -> None:
    compile = model._structured.compile
    assert compile(dict(SCHEMA)) is compile(dict(SCHEMA))
    assert compile({"type": "integer"}) is not compile({"type": "string"})


def test_a_stop_string_inside_a_grammar(tmp_path: Path) -> None:
    """It ends the text as anywhere else."""
    with octavo.load(write_model(tmp_path / "tiny.gguf"), threads=1) as model:
        done = model.generate("a", grammar=re.compile("[a-c]{40}"), stop=["b"], temperature=1.0, seed=3)
        assert done.finish_reason == "stop" and set(done.text) <= {"a", "c"}
