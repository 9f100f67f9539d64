"""octavo tune: what is learned, exact resume, and errors before anything is trained."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_bases import save_base
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from octavo.errors import FormatError, UnsupportedError
from octavo.training import tuning
from octavo.training.checkpoints import list_checkpoints
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
    folder = tmp_path / "base"
    save_base("llama", folder)
    letters = sorted({*"abcdefghijklmnopqrstuvwxyz0123456789?+=", "Ċ", "Ġ"})
    backend = Tokenizer(models.BPE({letter: index for index, letter in enumerate(letters)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    backend.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|im_end|>"}))
    config = json.loads((folder / "config.json").read_text())
    config["eos_token_id"] = backend.token_to_id("<|im_end|>")
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "generation_config.json").unlink(missing_ok=True)
    return folder


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


def test_resuming_is_exact(base: Path, rows: Path, tmp_path: Path) -> None:
    whole = config(base, rows, tmp_path / "whole", adapter_dropout=0.2, save_steps=3, keep=9)
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
    with pytest.raises(UnsupportedError, match="method: 'magic'"):
        config(base, rows, out, method="magic")
    tuning.tune(tuning.prepare(config(base, rows, out, steps=1)))
    with pytest.raises(Exception, match="holds a run already"):
        tuning.tune(tuning.prepare(config(base, rows, out, steps=1)))
    rows.write_text(rows.read_text() + json.dumps({"prompt": "9+9=", "completion": "18"}) + "\n")
    with pytest.raises(Exception, match="the data or the tokenizer has changed"):
        tuning.resume_tuning(out)
