"""octavo perplexity: windows, and a sum that can be done by hand."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from octavo.api import Model
from octavo.cli.perplexity import command, windows_of
from octavo.errors import OctavoError

Invoke = Callable[..., Any]
UseModel = Callable[..., dict[str, Any]]
MakeModel = Callable[..., Model]


def test_json_has_the_promised_fields(
    invoke: Invoke, use_model: UseModel, make_model: MakeModel, tmp_path: Path
) -> None:
    called = use_model()
    file = tmp_path / "text.txt"
    file.write_text("a text of two windows and a bit" * 2)
    report = json.loads(invoke(command, "m", str(file), "--context", "30", "--json").stdout)
    tokens = list(file.read_bytes())
    windows = [tokens[:30], tokens[30:60], tokens[60:]]
    nats = -sum(float(make_model().score(window).sum()) for window in windows)
    scored = sum(len(window) - 1 for window in windows)
    assert list(report) == ["perplexity", "tokens", "nats_per_token"]
    assert report["tokens"] == scored
    assert report["nats_per_token"] == pytest.approx(nats / scored, rel=1e-6)
    assert report["perplexity"] == pytest.approx(math.exp(nats / scored), rel=1e-6)
    assert called["context"] == 30
    assert "perplexity " in invoke(command, "m", "-", input="piped text").stdout


def test_windows_begin_with_the_beginning_token() -> None:
    tokenizer = SimpleNamespace(
        encode=lambda text, add_special: list(text.encode()), beginning_id=1, add_beginning=True
    )
    model: Any = SimpleNamespace(tokenizer=tokenizer)
    assert list(windows_of(model, "abcdefg", 4, None)) == [[1, *b"abc"], [1, *b"def"], [1, *b"g"]]
    assert list(windows_of(model, "abcdefg", 4, 4)) == [[1, *b"abc"], [1, *b"d"]]
    tokenizer.add_beginning = False
    assert list(windows_of(model, "abcdefghi", 4, None)) == [[*b"abcd"], [*b"efgh"]]
    with pytest.raises(OctavoError, match="1 tokens"):
        windows_of(model, "a", 4, None)


def test_a_file_that_is_not_text_is_one_line(invoke: Invoke, use_model: UseModel, tmp_path: Path) -> None:
    use_model()
    file = tmp_path / "text.bin"
    file.write_bytes(b"\xff\xfe\x00")
    result = invoke(command, "m", str(file))
    assert result.exit_code == 1 and "not UTF-8" in result.stderr and result.stderr.count("\n") == 1
