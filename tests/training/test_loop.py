"""The loop: exact resume, micro-batches, precision, and what happens when something goes wrong."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

from tiny_runs import TINY, write_corpus  # noqa: E402

from octavo.errors import FormatError, UnsupportedError  # noqa: E402
from octavo.training import TrainingConfig, precision, train  # noqa: E402
from octavo.training.causal import LanguageModelling  # noqa: E402
from octavo.training.checkpoints import list_checkpoints  # noqa: E402
from octavo.training.config import TrainingError, complete  # noqa: E402
from octavo.training.loop import Trainer, resume  # noqa: E402
from octavo.training.losses import linear_cross_entropy, plain_cross_entropy  # noqa: E402

PROGRAM = Path(__file__).with_name("tiny_runs.py")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OCTAVO_DATA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def configuration(folder: Path, name: str = "run", **changes: object) -> TrainingConfig:
    corpus = folder / "corpus.jsonl"
    if not corpus.exists():
        write_corpus(folder)
    return TrainingConfig(out=str(folder / name), data=(str(corpus),), **{**TINY, **changes})


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def fields(batch):
    return batch.inputs, batch.positions, batch.documents


class KilledError(Exception):
    pass


class KillingView:
    """Breaks off after a step, as if the process had died there: nothing is saved on the way out."""

    def __init__(self, step: int) -> None:
        self.step = step

    def begin(self, *arguments: object) -> None:
        pass

    def show(self, progress) -> None:
        if progress.step == self.step:
            raise KilledError


@pytest.mark.parametrize(
    "changes",
    [
        {"dropout": 0.2},
        {"isolate": False, "optimizer": "adamw"},
        {"precision": "bfloat16", "architecture": "gpt2", "dropout": 0.1, "optimizer": "adamw"},
    ],
    ids=["packed", "windows", "bfloat16"],
)
def test_a_resumed_run_ends_with_the_same_bytes(tmp_path: Path, changes: dict[str, object]) -> None:
    whole = configuration(tmp_path, "whole", **changes)
    train(whole)
    broken = replace(whole, out=str(tmp_path / "broken"))
    with pytest.raises(KilledError):
        train(broken, view=KillingView(8))
    assert [path.name for path in list_checkpoints(tmp_path / "broken")] == ["step-00000003", "step-00000006"]
    result = resume(tmp_path / "broken")
    assert result.steps == 12
    assert weights(tmp_path / "whole") == weights(tmp_path / "broken")
    lines = (tmp_path / "broken" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(1, 13))


def test_sigterm_saves_first(tmp_path: Path) -> None:
    class Terminating(KillingView):
        def show(self, progress) -> None:
            if progress.step == self.step:
                os.kill(os.getpid(), signal.SIGTERM)

    whole = configuration(tmp_path, "whole")
    train(whole)
    result = train(replace(whole, out=str(tmp_path / "stopped")), view=Terminating(4))
    assert (result.interrupted, result.steps) == (True, 4)
    assert list_checkpoints(tmp_path / "stopped")[-1].name == "step-00000004"
    assert not resume(tmp_path / "stopped").interrupted
    assert weights(tmp_path / "whole") == weights(tmp_path / "stopped")


def test_micro_batches_change_nothing(tmp_path: Path) -> None:
    losses, trained = [], []
    for rows in (8, 1):
        config = complete(
            configuration(tmp_path, f"rows{rows}", rows=rows, batch_tokens=128, optimizer="adamw")
        )
        trainer = Trainer(config, LanguageModelling(config))
        losses.append([trainer.update()[0] for _ in range(5)])
        trained.append(torch.cat([p.detach().flatten() for p in trainer.task.model.parameters()]))
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)
    torch.testing.assert_close(trained[0], trained[1], rtol=0, atol=1e-4)


def test_the_curve_is_that_of_a_plain_loop(tmp_path: Path) -> None:
    """The same run by the slow twins and a loop of a few lines."""
    config = complete(configuration(tmp_path, steps=200, optimizer="adamw"))
    trainer = Trainer(config, LanguageModelling(config))
    ours = [trainer.update()[0] for _ in range(200)]
    slow = LanguageModelling(replace(config, fast=False))
    groups = [
        {"params": [p for p in slow.model.parameters() if (p.dim() > 1) == matrix], "weight_decay": decay}
        for matrix, decay in ((True, config.weight_decay), (False, 0.0))
    ]
    optimizer = torch.optim.AdamW(groups)
    theirs = []
    for step in range(200):
        batches = slow.batches(step)
        logits = [
            slow.model(*(None if part is None else torch.tensor(part) for part in fields(batch)))
            for batch in batches
        ]
        targets = [torch.tensor(batch.targets).flatten() for batch in batches]
        loss = torch.nn.functional.cross_entropy(torch.cat(logits).flatten(0, 1), torch.cat(targets))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(slow.model.parameters(), config.clip)
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * trainer.schedule((step + 1) / 200)
        optimizer.step()
        optimizer.zero_grad()
        theirs.append(float(loss.detach()))
    assert ours == pytest.approx(theirs, abs=1e-3)
    assert ours[-1] < ours[0] - 1


def test_bfloat16_learns_as_well(tmp_path: Path) -> None:
    found = {}
    for kind in ("float32", "bfloat16"):
        config = configuration(tmp_path, kind, precision=kind, steps=30)
        result = train(config)
        assert result.validation is not None
        found[kind] = result.validation.loss
    assert found["bfloat16"] == pytest.approx(found["float32"], abs=0.1)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_muon_takes_the_run_s_precision_and_none_of_its_own(tmp_path: Path, precision: str) -> None:
    """It once timed products of its own, and one run in ten came out otherwise."""
    config = complete(configuration(tmp_path, precision, optimizer="muon", precision=precision))
    trainer = Trainer(config, LanguageModelling(config))
    chosen = {group["dtype"] for group in trainer.optimizer.param_groups if group["rule"] == "muon"}
    assert chosen == {precision}


@pytest.mark.parametrize(
    ("slowness", "chosen", "most_rows"),
    [(0.5, "bfloat16", 2048), (0.9, "float32", 2048), (100, "float32", 32)],
)
def test_a_processor_without_bfloat16_is_told_by_a_few_rows(
    monkeypatch: pytest.MonkeyPatch, slowness: float, chosen: str, most_rows: int
) -> None:
    asked = []

    def seconds(dtype: torch.dtype, width: int, rows: int = 2048, rounds: int = 5) -> float:
        asked.append(rows)
        return slowness if dtype == torch.bfloat16 else 1.0

    monkeypatch.setattr(precision, "_product_seconds", seconds)
    monkeypatch.setattr(precision.native_training, "in_tiles", lambda: False)
    assert precision.choose_precision("auto", 64) == chosen
    assert max(asked) == most_rows


def test_a_loss_that_is_no_number_stops_the_run(tmp_path: Path) -> None:
    config = complete(configuration(tmp_path))
    trainer = Trainer(config, LanguageModelling(config))
    trainer.update()
    with torch.no_grad():
        trainer.task.model.blocks[1].feed_forward.up.weight[3, 2] = float("nan")
    with pytest.raises(TrainingError, match=r"step 2.*blocks\.1\.feed_forward\.up\.weight"):
        trainer.update()
    assert list_checkpoints(Path(config.out))


def test_an_infinite_gradient_stops_it_and_keeps_the_weights(tmp_path: Path) -> None:
    config = complete(configuration(tmp_path))
    task = LanguageModelling(config)
    trainer = Trainer(config, task)
    task.model.blocks[0].attention.query.weight.register_hook(lambda gradient: gradient * float("inf"))
    before = task.model.token_embedding.weight.clone()
    with pytest.raises(TrainingError, match=r"gradient of blocks\.0\.attention\.query\.weight"):
        trainer.update()
    assert torch.equal(before, task.model.token_embedding.weight)


def test_changed_data_is_refused(tmp_path: Path) -> None:
    config = configuration(tmp_path)
    train(config)
    with pytest.raises(TrainingError, match="holds a run already"):
        train(config)
    (tmp_path / "corpus.jsonl").write_text('"something else entirely"\n' * 50)
    with pytest.raises(TrainingError, match="data or the tokenizer has changed"):
        resume(tmp_path / "run")
    with pytest.raises(FormatError, match="no training was begun"):
        resume(tmp_path)


def test_a_full_disk_leaves_the_older_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from octavo.training import checkpoints

    calls = []

    def full(path: Path, content: bytes) -> None:
        calls.append(path)
        if len(calls) > 4:
            raise OSError(28, "No space left on device")
        path.write_bytes(content)

    monkeypatch.setattr(checkpoints, "write_synced", full)
    with pytest.raises(TrainingError, match="No space left.*untouched"):
        train(configuration(tmp_path))
    assert [path.name for path in (tmp_path / "run/checkpoints").iterdir()] == ["step-00000003"]


def test_a_damaged_checkpoint_is_an_error(tmp_path: Path) -> None:
    train(configuration(tmp_path))
    (list_checkpoints(tmp_path / "run")[-1] / "optimizer.safetensors").write_bytes(b"nonsense")
    with pytest.raises(FormatError, match="damaged checkpoint"):
        resume(tmp_path / "run")


def test_impossible_values_are_named(tmp_path: Path) -> None:
    for changes, word in (
        ({"dropout": 1.5}, "dropout"),
        ({"architecture": "rnn"}, "rnn"),
        ({"keep": 0}, "keep"),
    ):
        with pytest.raises(UnsupportedError, match=word):
            configuration(tmp_path, **changes)


def test_a_run_by_the_clock_ends_in_time(tmp_path: Path) -> None:
    result = train(configuration(tmp_path, steps=0, minutes=0.02))
    assert not result.interrupted


def test_a_run_leaves_the_process_its_small_numbers(tmp_path: Path) -> None:
    train(configuration(tmp_path, steps=1))
    assert float(torch.tensor(1e-40) * 0.5) > 0


def test_a_run_whose_first_step_takes_all_its_time_ends(tmp_path: Path) -> None:
    """The plan is made anew when time is over, and must not ask for one step more each time."""
    result = train(configuration(tmp_path, steps=0, minutes=1e-6))
    assert result.steps == 1


@pytest.mark.parametrize("vocabulary", [40, 600])
def test_the_chunked_loss_equals_the_plain_one(vocabulary: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from octavo.training import losses

    monkeypatch.setattr(losses, "CHUNK_LOGITS", 7 * vocabulary)
    torch.manual_seed(0)
    hidden, weight = torch.randn(30, 16, requires_grad=True), torch.randn(vocabulary, 16, requires_grad=True)
    targets = torch.randint(vocabulary, (30,))
    targets[::4] = -100
    values, slopes = [], []
    for function in (plain_cross_entropy, linear_cross_entropy):
        loss = function(hidden, weight, targets, 0.25)
        values.append(loss.item())
        slopes.append(torch.autograd.grad(loss * 2, (hidden, weight)))
    assert values[0] == pytest.approx(values[1], rel=1e-5)
    for one, other in zip(*slopes, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
