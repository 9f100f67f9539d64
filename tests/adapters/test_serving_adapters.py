"""Adapters in the native step: each sequence its own, equal to the merged model and to the torch twin."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_bases import save_base

from octavo.adapters.base import build_adapted
from octavo.adapters.files import save_adapter
from octavo.adapters.merge import merge
from octavo.decoding.adapters import AdapterTable
from octavo.decoding.engine import Engine
from octavo.decoding.plan import build_runner
from octavo.decoding.sampling import SamplingOptions
from octavo.errors import FormatError, ModelNotFoundError, UnsupportedError
from octavo.weights.adapter import AdapterConfig, read_adapter
from octavo.weights.checkpoint import open_checkpoint
from octavo.weights.tensor import TensorType


def make_adapter(base: Path, folder: Path, seed: int, rank: int = 4, **options: bool) -> Path:
    checkpoint = open_checkpoint(base)
    _, adapters = build_adapted(
        checkpoint.config, checkpoint.tensors, AdapterConfig(rank=rank, alpha=8, **options), seed=seed
    )
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for pair in adapters.pairs.values():
            pair.up.normal_(std=0.1, generator=generator)
    save_adapter(adapters, folder)
    return folder


def tokens(seed: int) -> list[int]:
    found: list[int] = np.random.default_rng(seed).integers(0, 96, 21).tolist()
    return found


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gpt2"])
def test_logits_equal_the_merged_model(kind: str, tmp_path: Path) -> None:
    save_base(kind, tmp_path / "base")
    checkpoint = open_checkpoint(tmp_path / "base")
    runner = build_runner(checkpoint.config, checkpoint.tensors, 2, 64)
    engine, table = Engine(runner), AdapterTable(runner, checkpoint.config)
    plain = engine.score(tokens(0))
    for number in range(3):
        folder = make_adapter(tmp_path / "base", tmp_path / f"adapter{number}", number, rank=3 + 15 * number)
        table.add(f"a{number}", folder)
        merge(checkpoint, read_adapter(folder, checkpoint.config), tmp_path / "merged", TensorType.F32)
        merged = open_checkpoint(tmp_path / "merged")
        expected = Engine(build_runner(merged.config, merged.tensors, 2, 8)).score(tokens(0))
        found = engine.score(tokens(0), table.number(f"a{number}"))
        assert divergence(expected, found) < 1e-3
        assert divergence(expected, plain) > 1e-2
    assert np.array_equal(engine.score(tokens(0)), plain)
    engine.close()


def divergence(expected: np.ndarray, found: np.ndarray) -> float:
    """The mean of KL(expected || found) over positions."""
    p, q = (torch.log_softmax(torch.from_numpy(logits).double(), -1) for logits in (expected, found))
    return float((p.exp() * (p - q)).sum(-1).mean())


def test_one_batch_has_many_adapters(tmp_path: Path) -> None:
    save_base("llama", tmp_path / "base")
    checkpoint = open_checkpoint(tmp_path / "base")
    runner = build_runner(checkpoint.config, checkpoint.tensors, 2, 64)
    engine, table = Engine(runner), AdapterTable(runner, checkpoint.config)
    for number in range(3):
        table.add(f"a{number}", make_adapter(tmp_path / "base", tmp_path / f"adapter{number}", number))
    names = [None, "a0", "a1", "a2", "a0", None]
    greedy = SamplingOptions(temperature=0)

    def answers(together: bool) -> list[list[int]]:
        started = []
        for index, name in enumerate(names):
            started.append(engine.submit(tokens(index), greedy, max_tokens=12, adapter=table.number(name)))
            if not together:
                list(started[-1])
        for generation in started:
            list(generation)
        return [generation.tokens for generation in started]

    assert answers(together=True) == answers(together=False)
    table.remove("a1")
    with pytest.raises(ModelNotFoundError, match="a0, a2"):
        table.number("a1")
    table.add("again", tmp_path / "adapter1")
    engine.close()


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    save_base("llama", tmp_path / "llama")
    save_base("gpt2", tmp_path / "gpt2")
    folder = make_adapter(tmp_path / "llama", tmp_path / "adapter", 1)
    other = open_checkpoint(tmp_path / "gpt2")
    with pytest.raises(FormatError, match="is it for this base"):
        read_adapter(folder, other.config)
    config = folder / "adapter_config.json"
    text = config.read_text()
    config.write_text(text.replace('"r": 4', '"r": 5'))
    base = open_checkpoint(tmp_path / "llama")
    with pytest.raises(FormatError, match="rank 4 and adapter_config.json says 5"):
        read_adapter(folder, base.config)
    config.write_text(text.replace('"rank_pattern": {}', '"rank_pattern": {"(a+)+b": 4}'))
    with pytest.raises(FormatError, match="rank_pattern"):
        read_adapter(folder, base.config)
    with pytest.raises(ModelNotFoundError, match="no adapter here"):
        read_adapter(tmp_path / "llama", base.config)
    decomposed = make_adapter(tmp_path / "llama", tmp_path / "dora", 1, decomposed=True)
    table = AdapterTable(build_runner(base.config, base.tensors, 1, 4), base.config)
    with pytest.raises(UnsupportedError, match="octavo merge"):
        table.add("dora", decomposed)
