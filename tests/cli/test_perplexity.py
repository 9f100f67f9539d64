"""octavo perplexity: windows, and a sum that can be done by hand."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from octavo.api import Model
from octavo.cli.perplexity import command

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
    model = make_model()
    nats = 0.0
    for window in windows:
        rows = model.logits(window)[:-1].astype(np.float64)
        losses = np.log(np.exp(rows).sum(axis=1)) - rows[np.arange(len(rows)), window[1:]]
        nats += float(losses.sum())
    scored = sum(len(window) - 1 for window in windows)
    assert list(report) == ["perplexity", "tokens", "nats_per_token"]
    assert report["tokens"] == scored
    assert report["nats_per_token"] == pytest.approx(nats / scored, rel=1e-6)
    assert report["perplexity"] == pytest.approx(math.exp(nats / scored), rel=1e-6)
    assert called["context"] == 30
    assert "perplexity " in invoke(command, "m", "-", input="piped text").stdout


def test_only_so_many_tokens(invoke: Invoke, use_model: UseModel, tmp_path: Path) -> None:
    use_model()
    result = invoke(command, "m", "-", "--max-tokens", "10", "--json", input="a text of more than ten tokens")
    assert json.loads(result.stdout)["tokens"] == 9
    result = invoke(command, "m", "-", input="a")
    assert result.exit_code == 1 and "1 tokens" in result.stderr


def test_a_file_that_is_not_text_is_one_line(invoke: Invoke, use_model: UseModel, tmp_path: Path) -> None:
    use_model()
    file = tmp_path / "text.bin"
    file.write_bytes(b"\xff\xfe\x00")
    result = invoke(command, "m", str(file))
    assert result.exit_code == 1 and "not UTF-8" in result.stderr and result.stderr.count("\n") == 1
