"""Killed at any moment and resumed: the same bytes, for every model, with dropout, packed or not."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

from tiny_runs import TINY, TINY_MODELS, write_corpus, write_labelled, write_pairs  # noqa: E402

from octavo.errors import FormatError  # noqa: E402
from octavo.training import train  # noqa: E402
from octavo.training.checkpoints import list_checkpoints  # noqa: E402
from octavo.training.config import TrainingError, config_class  # noqa: E402
from octavo.training.loop import resume  # noqa: E402

PROGRAM = Path(__file__).with_name("tiny_runs.py")
LONG: dict[str, Any] = {"steps": 25, "dropout": 0.1, "save_steps": 1, "validate_steps": 1000}
# Name -> model, what writes its corpus, options.
RUNS: dict[str, tuple[str, Any, dict[str, Any]]] = {
    "gpt packed": ("gpt", write_corpus, {}),
    "gpt windows": ("gpt", write_corpus, {"isolate": False}),
    "bert packed": ("bert", write_corpus, {}),
    "bert pairs of sentences": ("bert", write_corpus, {"next_sentence": True}),
    "bert labels": ("bert", write_labelled, {"task": "classify", "columns": ("1", "2")}),
    "seq2seq": ("seq2seq", write_pairs, {}),
    "seq2seq bfloat16": ("seq2seq", write_pairs, {"precision": "bfloat16", "optimizer": "muon"}),
}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OCTAVO_DATA_CACHE", str(tmp_path / "cache"))


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def start(out: Path, corpus: Path, options: dict[str, Any]) -> subprocess.Popen[bytes]:
    """The run in a process of its own; begun, or resumed if it was begun before."""
    words = [f"{key}={value!r}" for key, value in options.items()]
    paths = os.pathsep.join(path for path in sys.path if path)
    command = [sys.executable, str(PROGRAM), str(out), str(corpus), *words]
    return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": paths})


@pytest.mark.parametrize("name", ["gpt packed", "bert packed", "seq2seq"])
def test_a_killed_process(tmp_path: Path, name: str) -> None:
    model, write, options = RUNS[name]
    corpus, broken = write(tmp_path), tmp_path / "broken"
    options = {"model": model, **LONG, **options}
    process = start(broken, corpus, options)
    while not (broken / "checkpoints" / "step-00000004").exists() and process.poll() is None:
        time.sleep(0.001)
    process.kill()
    process.wait()
    assert 4 <= int(list_checkpoints(broken)[-1].name[-8:])
    assert start(broken, corpus, options).wait() == 0
    begin(tmp_path, "whole", name)
    assert weights(tmp_path / "whole") == weights(broken)


class KilledError(Exception):
    pass


class KillingView:
    """Breaks off after a step, as if the process had died there: nothing is saved on the way out."""

    def begin(self, *arguments: object) -> None:
        pass

    def show(self, progress: Any) -> None:
        if progress.step == 8:
            raise KilledError


def begin(folder: Path, out: str, name: str, view: Any = None, **changes: Any) -> None:
    model, write, options = RUNS[name]
    values = {**TINY, **TINY_MODELS[model], **LONG, **options, **changes}
    corpus = write(folder)
    train(config_class(model)(out=str(folder / out), data=(str(corpus),), **values), view=view)


@pytest.mark.parametrize("name", [name for name in RUNS if name not in ("gpt packed", "gpt windows")])
def test_broken_off_between_checkpoints(tmp_path: Path, name: str) -> None:
    begin(tmp_path, "whole", name, steps=12, save_steps=3)
    with pytest.raises(KilledError):
        begin(tmp_path, "broken", name, KillingView(), steps=12, save_steps=3)
    assert [path.name[-1] for path in list_checkpoints(tmp_path / "broken")] == ["3", "6"]
    assert resume(tmp_path / "broken").steps == 12
    assert weights(tmp_path / "whole") == weights(tmp_path / "broken")


@pytest.mark.parametrize("name", ["bert packed", "bert labels", "seq2seq"])
def test_changed_data_and_another_vocabulary_are_refused(tmp_path: Path, name: str) -> None:
    begin(tmp_path, "run", name, steps=2)
    _, write, _ = RUNS[name]
    corpus = write(tmp_path)
    lines = corpus.read_text().splitlines(keepends=True)
    corpus.write_text("".join(lines[:-3]))
    with pytest.raises(TrainingError, match="data or the tokenizer has changed"):
        resume(tmp_path / "run")
    write(tmp_path)
    from octavo.data.vocabulary import train_tokenizer

    train_tokenizer(["other words"], vocabulary_size=280).save(str(tmp_path / "run" / "tokenizer.json"))
    with pytest.raises(FormatError, match=r"the vocabulary has no (\[PAD\]|<pad>)"):
        resume(tmp_path / "run")


@pytest.mark.parametrize("name", ["bert packed", "seq2seq"])
def test_a_loss_that_is_no_number(tmp_path: Path, name: str) -> None:
    from octavo.training.config import complete
    from octavo.training.loop import Trainer
    from octavo.training.tasks.build import build_task

    model, write, options = RUNS[name]
    corpus = write(tmp_path)
    values = {**TINY, **TINY_MODELS[model], **options}
    config = complete(config_class(model)(out=str(tmp_path / "run"), data=(str(corpus),), **values))
    trainer = Trainer(config, build_task(config))
    trainer.update()
    broken = [each for key, each in trainer.task.model.named_parameters() if key.endswith("up.weight")][-1]
    with torch.no_grad():
        broken[0, 0] = float("inf")
    with pytest.raises(TrainingError, match=r"step 2: .*1\.feed_forward\.up\.weight"):
        trainer.update()
    assert list_checkpoints(tmp_path / "run")


@pytest.mark.parametrize("name", ["bert packed", "seq2seq"])
def test_a_full_disk(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from octavo.training import checkpoints

    before, calls = checkpoints.write_synced, []

    def full(path: Path, content: bytes) -> None:
        calls.append(path)
        if len(calls) > 4:
            raise OSError(28, "No space left on device")
        before(path, content)

    monkeypatch.setattr(checkpoints, "write_synced", full)
    with pytest.raises(TrainingError, match="No space left.*untouched"):
        begin(tmp_path, "run", name)
    monkeypatch.setattr(checkpoints, "write_synced", before)
    assert len(list_checkpoints(tmp_path / "run")) == 1
    assert resume(tmp_path / "run").steps == 25
