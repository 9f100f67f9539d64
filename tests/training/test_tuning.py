"""octavo tune: what is learned, exact resume, and errors before anything is trained."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_bases import save_chat_base

from octavo.adapters.encoding import TYPES, encode
from octavo.errors import FormatError, UnsupportedError
from octavo.layers import byte_product
from octavo.training import tuning
from octavo.training.checkpoints import list_checkpoints
from octavo.training.held_out import read_held_out
from octavo.training.merging import measure_targets
from octavo.training.optimizers import build_optimizer
from octavo.training.optimizers.paged import PagedState, page_state
from octavo.training.tuning_config import TuningConfig
from octavo.weights.adapter import read_adapter
from octavo.weights.checkpoint import open_checkpoint


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A tiny model whose tokens are capital letters, digits and ChatML's control tokens."""
    save_chat_base(tmp_path / "base")
    return tmp_path / "base"


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    made = [{"prompt": f"{a}+{b}=", "completion": str(a + b)} for a in range(6) for b in range(6)]
    lines = [json.dumps(row) for row in made]
    path.write_text("\n".join(lines) + "\n")
    return path


def config(base: Path, rows: Path, out: Path, **options: object) -> TuningConfig:
    given = {"rank": 4, "steps": 8, "batch": 6, "context": 48, "learning_rate": 1e-2, "precision": "float32"}
    return TuningConfig(
        out=str(out), base=str(base), data=(str(rows),), optimizer="adamw", schedule="cosine", threads=1,
        **{**given, **options},
    )  # fmt: skip


@pytest.mark.parametrize("method", ["lora", "qlora"])
@pytest.mark.parametrize("options", [{}, {"decomposed": True, "adapter_dropout": 0.1}, {"up_rate": 4.0}])
def test_the_loss_falls_and_the_base_stays(
    base: Path, rows: Path, tmp_path: Path, method: str, options: dict[str, object]
) -> None:
    before = (base / "model.safetensors").read_bytes()
    task = tuning.prepare(config(base, rows, tmp_path / "out", method=method, validation=0.2, **options))
    start = task.validate(task.module, whole=True)
    result = tuning.tune(task)
    assert start is not None and result.validation is not None
    assert result.validation.loss < start.loss - 0.3
    assert (base / "model.safetensors").read_bytes() == before
    adapter = read_adapter(tmp_path / "out", open_checkpoint(base).config)
    assert len(adapter.pairs) == 14 and all(pair.up.any() for pair in adapter.pairs.values())


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_resuming_is_exact(base: Path, rows: Path, tmp_path: Path, precision: str) -> None:
    options = {"adapter_dropout": 0.2, "save_steps": 3, "keep": 9, "precision": precision}
    whole = config(base, rows, tmp_path / "whole", **options)
    tuning.tune(tuning.prepare(whole))
    broken = replace(whole, out=str(tmp_path / "broken"))
    tuning.tune(tuning.prepare(broken))
    for checkpoint in list_checkpoints(tmp_path / "broken")[1:]:  # as if it had been killed after step 3
        for file in checkpoint.iterdir():
            file.unlink()
    (tmp_path / "broken" / "adapter_model.safetensors").unlink()
    result = tuning.resume_tuning(tmp_path / "broken")
    assert result.steps == 8
    names = [tmp_path / run / "adapter_model.safetensors" for run in ("whole", "broken")]
    assert names[0].read_bytes() == names[1].read_bytes()


@pytest.mark.skipif(not byte_product.available(), reason="this processor's kernels multiply no bytes")
@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_frozen_layers_in_int8_are_learned_beside(
    base: Path, rows: Path, tmp_path: Path, method: str
) -> None:
    exact = tuning.tune(tuning.prepare(config(base, rows, tmp_path / "exact", method=method)))
    options = {"precision": "bfloat16", "method": method}
    task = tuning.prepare(config(base, rows, tmp_path / "bytes", **options))
    assert task.in_bytes  # by itself
    assert not tuning.prepare(config(base, rows, tmp_path / "none", products="bfloat16", **options)).in_bytes
    assert tuning.tune(task).loss == pytest.approx(exact.loss, rel=0.02)


def test_batches_weigh_tokens_alike_and_hide_prompts(base: Path, rows: Path, tmp_path: Path) -> None:
    task = tuning.prepare(config(base, rows, tmp_path / "out"))
    (batch,) = task.batches(0)
    assert batch.inputs.shape[0] == 6
    # An answer is a number of one or two digits and the end of the turn.
    assert 12 <= batch.target_count <= 18
    assert 0.02 < task.rows.learned_share < 0.5
    seen = [int(index) for step in range(5) for index in (task._row(6 * step + i) for i in range(6))]
    assert sorted(seen[: len(task.rows.training)]) != seen[: len(task.rows.training)]
    assert len(set(seen[: len(task.rows.training)])) == min(len(seen), len(task.rows.training))


def test_errors_come_before_training(base: Path, rows: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(FormatError, match=r"rows.jsonl:1: \d+ tokens, and a row takes 16"):
        tuning.prepare(config(base, rows, out, context=16))
    with pytest.raises(UnsupportedError, match="targets: 'nothing' is no layer"):
        tuning.prepare(config(base, rows, out, targets=("nothing",)))
    with pytest.raises(UnsupportedError, match="products: int8 needs method lora or qlora"):
        tuning.prepare(config(base, rows, tmp_path / "out", products="int8", precision="float32"))
    with pytest.raises(UnsupportedError, match="products: 'int9'; one of auto, int8, bfloat16"):
        config(base, rows, tmp_path / "out", products="int9")
    with pytest.raises(UnsupportedError, match="method: 'magic'"):
        config(base, rows, out, method="magic")
    tuning.tune(tuning.prepare(config(base, rows, out, steps=1)))
    with pytest.raises(Exception, match="holds a run already"):
        tuning.tune(tuning.prepare(config(base, rows, out, steps=1)))
    rows.write_text(rows.read_text() + json.dumps({"prompt": "9+9=", "completion": "18"}) + "\n")
    with pytest.raises(Exception, match="the data or the tokenizer has changed"):
        tuning.resume_tuning(out)


@pytest.mark.parametrize("method", ["lora", "qlora", "full"])
def test_recomputed_activations_change_nothing(base: Path, rows: Path, tmp_path: Path, method: str) -> None:
    given = {"method": method, "adapter_dropout": 0.2, "learning_rate": 1e-3, "steps": 3}
    losses, names = [], []
    for recompute in (False, True):
        out = tmp_path / f"out{recompute}"
        task = tuning.prepare(config(base, rows, out, recompute=recompute, **given))
        losses.append(tuning.tune(task).loss)
        names.append(out / ("model.safetensors" if method == "full" else "adapter_model.safetensors"))
    assert losses[0] == losses[1]
    assert names[0].read_bytes() == names[1].read_bytes()


def test_recomputing_keeps_less_for_the_backward_pass(base: Path, rows: Path, tmp_path: Path) -> None:
    kept = []
    for recompute in (False, True):
        task = tuning.prepare(config(base, rows, tmp_path / "out", recompute=recompute))
        sizes: list[int] = []

        def pack(tensor: torch.Tensor, sizes: list[int] = sizes) -> torch.Tensor:
            sizes.append(tensor.nbytes)
            return tensor

        (batch,) = task.batches(0)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            task.module.hidden(torch.from_numpy(batch.inputs))
        kept.append(sum(sizes))
    assert kept[1] < 0.3 * kept[0]


@pytest.mark.parametrize("optimizer", ["adamw", "lion"])
def test_a_paged_optimizer_gives_the_same_bits_and_resumes(
    base: Path, rows: Path, tmp_path: Path, optimizer: str
) -> None:
    plain = config(base, rows, tmp_path / "plain", save_steps=3, keep=9)
    plain = replace(plain, optimizer=optimizer)
    tuning.tune(tuning.prepare(plain))
    paged = replace(plain, out=str(tmp_path / "paged"), paged=True)
    tuning.tune(tuning.prepare(paged))
    expected = (tmp_path / "plain" / "adapter_model.safetensors").read_bytes()
    assert (tmp_path / "paged" / "adapter_model.safetensors").read_bytes() == expected
    for checkpoint in list_checkpoints(tmp_path / "paged")[1:]:
        for file in checkpoint.iterdir():
            file.unlink()
    tuning.resume_tuning(tmp_path / "paged")
    assert (tmp_path / "paged" / "adapter_model.safetensors").read_bytes() == expected


def test_the_state_of_a_paged_optimizer_is_in_its_file(tmp_path: Path) -> None:
    layer = torch.nn.Linear(64, 32)
    optimizer = build_optimizer("adamw", layer, learning_rate=0.1, weight_decay=0.0)
    file = page_state(optimizer, tmp_path)
    for _ in range(2):
        layer(torch.ones(3, 64)).sum().backward()
        optimizer.step()
    state = optimizer.state[layer.weight]
    assert isinstance(state, PagedState) and state["mean"].any() and state["squares"].any()
    assert file.size == 2 * (64 * 32 * 4 + 4096)
    assert list(tmp_path.iterdir()) == []  # it has no name: nothing is left behind, however the run ends
    mapped = Path("/proc/self/maps")
    if mapped.exists():
        address = state["mean"].data_ptr()
        line = next(
            line for line in mapped.read_text().splitlines()
            if int(line.split("-")[0], 16) <= address < int(line.split()[0].split("-")[1], 16)
        )  # fmt: skip
        assert "deleted" in line and "rw-s" in line


def test_merging_is_measured_on_held_out_rows(base: Path, rows: Path, tmp_path: Path) -> None:
    tuning.tune(tuning.prepare(config(base, rows, tmp_path / "out")))
    checkpoint = open_checkpoint(base)
    tensors = {
        name: encode(name, tensor.numpy(), TYPES["q4_0"]) for name, tensor in checkpoint.tensors.items()
    }
    packed = replace(checkpoint, tensors=tensors)
    adapter = read_adapter(tmp_path / "out", checkpoint.config)
    examples = read_held_out([rows], tuning.make_encoder(checkpoint), rows=20, context=48)
    assert len(examples) == 20
    found = {
        each.target: each.loss
        for each in measure_targets(packed, adapter, examples, TYPES["q4_0"], checkpoint)
    }
    assert list(found) == ["beside the base", "base, bf16", "original, bf16", "base, q4_0"]
    assert abs(found["base, bf16"] - found["beside the base"]) < 0.02
    assert abs(found["original, bf16"] - found["beside the base"]) > 1e-4
    assert abs(found["base, q4_0"] - found["base, bf16"]) > 1e-4
