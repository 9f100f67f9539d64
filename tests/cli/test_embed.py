"""octavo embed: JSON, JSON lines, and similarities."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from octavo.cli.embed import command, cosine_similarities

Invoke = Callable[..., Any]
UseModel = Callable[..., dict[str, Any]]


def test_a_pipe_gets_a_line_for_each_text(invoke: Invoke, use_model: UseModel) -> None:
    use_model()
    result = invoke(command, "m", "one", "zwölf")
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["text"] for line in lines] == ["one", "zwölf"]
    assert all(len(line["embedding"]) == 8 for line in lines)


def test_json_is_one_object(invoke: Invoke, use_model: UseModel) -> None:
    use_model()
    report = json.loads(invoke(command, "m", "--json", input="one\n\ntwo\n").stdout)
    assert list(report) == ["model", "dimensions", "embeddings"] and report["dimensions"] == 8
    lines = invoke(command, "m", "one", "two").stdout.splitlines()
    assert [json.loads(line)["embedding"] for line in lines] == report["embeddings"]


def test_a_text_that_is_too_long_is_an_error_or_cut(invoke: Invoke, use_model: UseModel) -> None:
    use_model(context=64)
    result = invoke(command, "m", "x" * 100)
    assert result.exit_code == 1 and "100 tokens" in result.stderr
    assert invoke(command, "m", "x" * 100, "--truncate").exit_code == 0
    assert invoke(command, "m", input="\n").exit_code == 2


def test_a_terminal_gets_a_table(
    invoke: Invoke, use_model: UseModel, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from octavo.cli import embed

    embed._print_similarities(["north", "south [bold]"], np.array([[1, 0], [-1, 0]], np.float32))
    table = capsys.readouterr().out
    assert "1.000" in table and "-1.000" in table and "south [bold]" in table


def test_cosine_similarities() -> None:
    vectors = np.array([[1, 0], [0, 5], [2, 2], [0, 0]], np.float32)
    half = np.sqrt(0.5)
    expected = [[1, 0, half, 0], [0, 1, half, 0], [half, half, 1, 0], [0, 0, 0, 0]]
    assert cosine_similarities(vectors) == pytest.approx(np.array(expected), abs=1e-6)
