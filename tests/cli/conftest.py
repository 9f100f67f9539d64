"""Verbs run in this process on the model of tests/conftest.py, in a cache folder of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from octavo import api
from octavo.api import Model


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """OCTAVO_HOME of the test."""
    folder = tmp_path / "octavo-home"
    monkeypatch.setenv("OCTAVO_HOME", str(folder))
    return folder


@pytest.fixture(autouse=True)
def known_bandwidth(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that reads 10 GB/s: nothing is measured."""
    from octavo import roofline

    monkeypatch.setattr(roofline, "memory_bandwidth", lambda threads, seen=0.0: 10.0)
    monkeypatch.setattr(roofline, "instruction_set", lambda: "scalar")
    monkeypatch.setattr(roofline, "measure", lambda threads, seconds=0.3: roofline.Roofline(10.0, 1e12))


@pytest.fixture
def use_model(
    make_model: Callable[..., Model], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., dict[str, Any]]:
    """use_model(script, ...) makes octavo.load give that model; returns what load is called with."""

    def use(*arguments: Any, **options: Any) -> dict[str, Any]:
        called: dict[str, Any] = {}

        def load(model: str, **load_options: Any) -> Model:
            called.update(load_options, model=model)
            context = load_options.get("context") or options.get("context", 256)
            return make_model(*arguments, **(options | {"context": context}))

        monkeypatch.setattr(api, "load", load)
        return called

    return use


@pytest.fixture
def invoke() -> Iterator[Callable[..., Any]]:
    """invoke(command, words..., input=...) -> click's result, standard error apart."""

    def run(command: Any, *words: str, input: str | None = None) -> Any:
        return CliRunner().invoke(command, list(words), input=input, catch_exceptions=False)

    yield run
