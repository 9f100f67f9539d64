"""octavo bench: the rows, their limits, and steps that are what they claim to be."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from octavo import roofline
from octavo.api import Model
from octavo.cli import bench

Invoke = Callable[..., Any]
UseModel = Callable[..., dict[str, Any]]
MakeModel = Callable[..., Model]


def test_json_has_the_promised_fields_and_rows(invoke: Invoke, use_model: UseModel, monkeypatch: Any) -> None:
    sizes = bench.Sizes(prompt=70, generate=4, depths=(0, 100, 4000), repetitions=1, bandwidth_seconds=0.1)
    monkeypatch.setattr(bench, "FULL", sizes)
    called = use_model(block_count=8 * 7)
    result = invoke(bench.command, "m", "--json")
    report = json.loads(result.stdout)
    assert list(report) == ["model", "threads", "isa", "bandwidth_gb_s", "rows"]
    assert report["bandwidth_gb_s"] == 10.0 and report["isa"] == "scalar"
    fields = ["prompt", "generate", "batch", "depth", "tokens_per_second", "share_of_limit"]
    assert all(list(row) == fields for row in report["rows"])
    kinds = [(row["prompt"], row["generate"], row["batch"], row["depth"]) for row in report["rows"]]
    prompts = [(70, 0, batch, depth) for depth in (0, 100) for batch in (1, 4, 8)]
    generations = [(0, 4, batch, depth) for depth in (0, 100) for batch in (1, 4, 8)]
    assert kinds == prompts + generations
    assert all(row["tokens_per_second"] > 0 for row in report["rows"])
    assert "depth 4000 left out" in result.stderr
    assert called["cache_tokens"] >= 8 * 4070


def test_the_table_names_the_machine(invoke: Invoke, use_model: UseModel, monkeypatch: Any) -> None:
    sizes = bench.Sizes(prompt=10, generate=2, depths=(0,), repetitions=1, bandwidth_seconds=0.1)
    monkeypatch.setattr(bench, "QUICK", sizes)
    use_model()
    result = invoke(bench.command, "m", "--quick")
    assert "memory: 10.0 GB/s" in result.stdout and "prompt of 10" in result.stdout


def test_prompt_steps_put_every_token_at_its_place(make_model: MakeModel) -> None:
    model = make_model()
    sizes = bench.Sizes(prompt=70, generate=1, depths=(32,), repetitions=1, bandwidth_seconds=0.1)
    tables = np.arange(8, dtype=np.int32).reshape(2, 4)
    bench.prompt_seconds(model, tables, 32, sizes)
    filled = (model.runner.cells.reshape(-1)[: 8 * 32].reshape(2, 128) >= 0).tolist()  # type: ignore[attr-defined]
    assert filled == [[False] * 32 + [True] * 70 + [False] * 26] * 2


def test_limits_are_the_slower_of_memory_and_arithmetic(make_model: MakeModel) -> None:
    model = make_model(config={"layers": 2, "windows": (0, 100)})
    shallow = roofline.step_cost(model.runner, model.config, new=1, batch=1, depth=0)
    deep = roofline.step_cost(model.runner, model.config, new=1, batch=4, depth=300)
    assert shallow.bytes == 1000
    assert deep.bytes == 1000 + 4 * 2 * 2 * 8 * (300 + 100)
    # 2 layers: four 8x8 attention matrices and three 8x16; then the output matrix of 257 x 8.
    assert shallow.operations == 2 * (2 * (4 * 64 + 3 * 128) + 257 * 8)
    assert roofline.Roofline(1e-6, 0).seconds(shallow) == pytest.approx(1.0)
    assert roofline.Roofline(1e-6, 1.0).seconds(shallow) == shallow.operations
    prompt = roofline.step_cost(model.runner, model.config, new=512, batch=1, depth=0)
    assert prompt.bytes == shallow.bytes and prompt.operations > 100 * shallow.operations


def test_bandwidth_is_measured_once(monkeypatch: Any, cache_folder: Any, tmp_path: Any) -> None:
    monkeypatch.undo()
    monkeypatch.setenv("OCTAVO_HOME", str(tmp_path))
    measured: list[int] = []

    def measure(threads: int, seconds: float) -> float:
        measured.append(threads)
        return 40.0 + threads

    monkeypatch.setattr(roofline, "_measure_bandwidth", measure)
    assert [roofline.memory_bandwidth(threads) for threads in (2, 2, 1, 2)] == [42.0, 42.0, 41.0, 42.0]
    assert measured == [2, 1]
    assert roofline.memory_bandwidth(1, seen=50.0) == 50.0  # the machine was busy when it was measured
    assert roofline.memory_bandwidth(1, seen=45.0) == 50.0 and measured == [2, 1, 1]
    roofline._cache_file().write_text("[broken")
    assert roofline.memory_bandwidth(2) == 42.0 and measured == [2, 1, 1, 2]
