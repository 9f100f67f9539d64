"""Generation within a grammar through the whole engine: a random model, whose every text must be valid."""

from __future__ import annotations

import dataclasses
import enum
import json
import re
import threading
from pathlib import Path
from typing import Any, Literal

import pytest
from byte_model import write_byte_model as write_model

import octavo
from octavo.api import Model
from octavo.decoding.constraints.healing import HealedPrompt, SortedVocabulary
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


def test_healing_spells_the_prompts_end_anew(model: Model) -> None:
    """Only `ab` is longer: a prompt that ends with `a` may go on with its b alone, and nothing is lost."""
    spelled = set()
    for seed in range(6):
        done = model.generate("xa", heal=True, seed=seed, temperature=2.0, top_k=0, top_p=1.0, max_tokens=6)
        data = b"".join(map(model.tokenizer.token_bytes, done.tokens))
        assert data.startswith(b"a") and done.text == data[1:].decode("utf-8", "replace")
        assert done.timings.prompt_tokens == len(model.tokenizer.encode("xa")) - 1
        spelled.add(model.tokenizer.token_bytes(done.tokens[0]))
    assert spelled <= {b"a", b"ab"}
    whole = model.generate("xz", seed=1, max_tokens=6)
    assert model.generate("xz", heal=True, seed=1, max_tokens=6).tokens == whole.tokens


def test_healing_masks_are_what_trying_every_token_gives() -> None:
    words = [b"a", b"ab", b"abc", b"b", b"bc", b"c", b"", b"\xc3", b"\xa9", b"\xc3\xa9", b"\xc3\xa9a"]
    vocabulary = SortedVocabulary(words)
    assert vocabulary.take_back([0, 3, 5]) == ([0, 3, 5], b"")
    assert vocabulary.take_back([5, 0, 3]) == ([5], b"ab")
    assert vocabulary.take_back([6, 0, 3]) == ([6], b"ab")
    assert vocabulary.take_back([0]) == ([0], b"")
    assert vocabulary.take_back([5, 7, 8]) == ([5], b"\xc3\xa9")
    for data in (b"ab", b"abc", b"bc", b"\xc3\xa9a"):
        constraint = HealedPrompt(data, vocabulary)
        texts: list[list[int]] = [[]]
        for generated in texts:
            before = b"".join(words[token] for token in generated)
            mask = constraint.mask(generated)
            if before.startswith(data):
                assert mask is None and constraint.admissible(generated, [5, 5]) == 2
                continue
            assert mask is not None
            for token, word in enumerate(words):
                text = before + word
                fits = bool(word) and (text.startswith(data) or data.startswith(text))
                assert bool(mask[0] >> token & 1) == fits == (constraint.admissible(generated, [token]) == 1)
                if fits:
                    texts.append([*generated, token])
        assert len(texts) > 3


def test_healing_within_a_grammar(model: Model) -> None:
    for seed in range(4):
        options: dict[str, Any] = {"heal": True, "seed": seed, "temperature": 1.0}
        done = model.generate("xa", grammar=re.compile("b?[0-9]{3}"), **options)
        assert re.fullmatch("b?[0-9]{3}", done.text) and done.finish_reason == "stop"


def test_a_grammar_begins_behind_its_trigger(model: Model) -> None:
    bias = dict.fromkeys(model.tokenizer.encode("<>", add_special=False), 12.0)
    found = 0
    for seed in range(12):
        options: dict[str, Any] = {
            "temperature": 1.0,
            "top_k": 0,
            "top_p": 1.0,
            "logit_bias": bias,
            "seed": seed,
        }
        done = model.generate("a", grammar=["yes", "no"], trigger=("<>", "!"), max_tokens=40, **options)
        parts = done.text.split("<>")
        assert all(part.startswith(("yes!", "no!")) for part in parts[1:]), done.text
        found += len(parts) - 1
    assert found > 12
    with pytest.raises(ValueError, match="no grammar is given"):
        model.generate("a", trigger="<>")


def test_a_text_closes_before_its_deadline(model: Model) -> None:
    digits = re.compile(r"\[[0-9]*\]")
    bias = dict.fromkeys(model.tokenizer.encode("]", add_special=False), -30.0)
    options: dict[str, Any] = {"temperature": 1.0, "seed": 1, "logit_bias": bias, "max_seconds": 0.001}
    model.generate("a", grammar=digits, max_tokens=2)  # compiled now
    done = model.generate("a", grammar=digits, **options)
    assert done.finish_reason == "deadline" and digits.fullmatch(done.text) and len(done.tokens) < 100
    # Of the least time: a hundredth of a second is enough for a hundred tokens of a small model.
    endless = {"logit_bias": dict.fromkeys(model.tokenizer.end_ids, -99.0), "max_seconds": 1e-9}
    free = model.generate("a", **options | endless)
    assert free.finish_reason == "deadline" and 0 < len(free.tokens) < 100
    whole = model.generate("a", grammar=SCHEMA, max_tokens=100, **options | {"max_seconds": 1e-9})
    assert whole.finish_reason == "deadline" and is_valid(whole.text)


def test_others_go_on_while_a_grammar_is_compiled(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    compiling, may_end = threading.Event(), threading.Event()
    compile = model._structured._compile

    def slow(key: Any, meaning: Any) -> Any:
        compiling.set()
        assert may_end.wait(10)
        return compile(key, meaning)

    monkeypatch.setattr(model._structured, "_compile", slow)
    waiting = model.stream("a", grammar=["left", "right"], seed=1)
    assert compiling.wait(10)
    assert len(model.generate("b", seed=1, max_tokens=9, logit_bias={1: -99.0, 3: -99.0}).tokens) == 9
    may_end.set()
    assert "".join(waiting) in ("left", "right")


def test_a_grammar_that_cannot_be_compiled_ends_its_request(model: Model) -> None:
    stream = model.stream("a", grammar=re.compile("(a)\\1"))
    with pytest.raises(GrammarError, match="backreference"):
        next(stream)
    assert model.generate("b", seed=1, max_tokens=3).tokens


def test_a_closed_model_compiles_no_more(tmp_path: Path) -> None:
    model = octavo.load(write_model(tmp_path / "tiny.gguf"), threads=1)
    model.generate("a", grammar=["yes"])
    model.close()
    with pytest.raises(octavo.OctavoError, match="closed"):
        model.generate("a", grammar=["no"])
