"""octavo grammar check, and the ways to name a grammar on a command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from byte_model import write_byte_model

from octavo.cli.grammar import command, grammar_of_options
from octavo.cli.run import command as run

Invoke = Callable[..., Any]
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}


def options(**given: str) -> dict[str, Any]:
    return {"json_schema": None, "regex": None, "grammar": None, "choices": None, **given}


def test_check_says_what_is_enforced(invoke: Invoke, tmp_path: Path) -> None:
    path = tmp_path / "schema.json"
    path.write_text(json.dumps(SCHEMA))
    facts = json.loads(invoke(command, "check", str(path), "--json").stdout)
    assert "#/properties" in facts["enforced"] and facts["shortest"] == '{"a":0}'
    assert "shortest text" in invoke(command, "check", str(path)).stdout


def test_what_cannot_be_enforced_is_named(invoke: Invoke, tmp_path: Path) -> None:
    path = tmp_path / "schema.json"
    path.write_text('{"items": {"pattern": "(a)\\\\1"}}')
    result = invoke(command, "check", str(path))
    assert result.exit_code == 1 and "#/items/pattern" in result.stderr


def test_each_way_to_name_a_grammar(tmp_path: Path) -> None:
    gbnf = tmp_path / "answer.gbnf"
    gbnf.write_text('root ::= "yes" | "no"')
    assert grammar_of_options(options()) is None
    for given in ({"regex": "a+"}, {"choices": "a,b"}, {"grammar": str(gbnf)}):
        assert grammar_of_options(options(**given)) is not None
    assert grammar_of_options(options(json_schema="datetime:date")) is not None
    with pytest.raises(click.UsageError, match="--regex and --choices"):
        grammar_of_options(options(regex="a", choices="b"))
    with pytest.raises(click.UsageError, match="no_such_module"):
        grammar_of_options(options(json_schema="no_such_module:Point"))


def test_run_keeps_to_the_choices(invoke: Invoke, tmp_path: Path) -> None:
    path = write_byte_model(tmp_path / "tiny.gguf")
    result = invoke(run, str(path), "x", "--choices", "yes,no", "--json", "--quiet")
    assert json.loads(result.stdout)["text"] in ("yes", "no")


def test_run_begins_the_grammar_behind_a_trigger(invoke: Invoke, tmp_path: Path) -> None:
    path = write_byte_model(tmp_path / "tiny.gguf")
    words = (str(path), "x", "--choices", "yes,no", "--max-tokens", "60", "--seed", "1", "--json", "--quiet")
    biases = [f"--logit-bias={4 + ord(letter)}=12" for letter in "<>"]
    result = invoke(run, *words, "--trigger", "<>", "--trigger-end", "!", *biases)
    parts = json.loads(result.stdout)["text"].split("<>")
    assert len(parts) > 1 and all(part.startswith(("yes!", "no!")) for part in parts[1:-1])
    assert "--trigger says where" in invoke(run, str(path), "x", "--trigger", "<>").stderr
    assert "needs --trigger" in invoke(run, *words, "--trigger-end", "!").stderr


def test_run_heals_a_raw_prompt_within_a_time(invoke: Invoke, tmp_path: Path) -> None:
    path = write_byte_model(tmp_path / "tiny.gguf")
    result = invoke(run, str(path), "xa", "--raw", "--heal", "--max-seconds", "0.2", "--json", "--quiet")
    assert json.loads(result.stdout)["prompt_tokens"] == 2
    assert "--heal mends" in invoke(run, str(path), "xa", "--heal").stderr
