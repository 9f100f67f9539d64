"""The translator's run: it learns, translates, resumes exactly, and says what is wrong with its data."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

from tiny_runs import TINY, TINY_MODELS, write_pairs  # noqa: E402

from octavo.errors import FormatError, UnsupportedError  # noqa: E402
from octavo.training import train  # noqa: E402
from octavo.training.averaging import average_weights  # noqa: E402
from octavo.training.checkpoints import list_checkpoints  # noqa: E402
from octavo.training.config import complete, read_config  # noqa: E402
from octavo.training.evaluate import evaluate  # noqa: E402
from octavo.training.loop import Trainer  # noqa: E402
from octavo.training.losses import linear_cross_entropy, plain_cross_entropy  # noqa: E402
from octavo.training.tasks.translation import Translation  # noqa: E402
from octavo.training.tasks.translation_config import TranslationConfig  # noqa: E402
from octavo.training.translate import Translator  # noqa: E402


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OCTAVO_DATA_CACHE", str(tmp_path / "cache"))


def configuration(folder: Path, name: str = "run", **changes: object) -> TranslationConfig:
    corpus = folder / "pairs.jsonl"
    if not corpus.exists():
        write_pairs(folder)
    values = {**TINY, **TINY_MODELS["seq2seq"], **changes}
    return TranslationConfig(out=str(folder / name), data=(str(corpus),), **values)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A translator that has learned to say numbers in German."""
    folder = tmp_path_factory.mktemp("translator")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OCTAVO_DATA_CACHE", str(folder / "cache"))
        torch.set_num_threads(1)
        write_pairs(folder, 4000)  # of few it learns the order in which words come, and writes that
        config = configuration(
            folder, hidden_size=64, steps=150, batch_tokens=768, rows=16, learning_rate=0.01, save_steps=50,
            optimizer="muon", schedule="warmup_stable_decay", dropout=0.0, label_smoothing=0.05, keep=3,
        )  # fmt: skip
        train(config)
    return folder / "run"


def test_it_learns_and_translates(trained: Path) -> None:
    translator = Translator(trained)
    said = ["one two three", "", "  four five six seven "]
    for beam in (1, 4):
        assert translator.translate(said, beam=beam) == ["eins zwei drei", "", "vier fünf sechs sieben"]
    slow = translator.translate(said, beam=3, use_cache=False, rows=1)
    assert slow == translator.translate(said, beam=3)
    samples = [line for line in (trained / "metrics.jsonl").read_text().splitlines() if "sample" in line]
    assert " -> " in json.loads(samples[-1])["sample"]


def test_evaluation(trained: Path, tmp_path: Path) -> None:
    pytest.importorskip("sacrebleu")
    kept, count = evaluate(trained)
    assert kept.loss < 0.5 and kept.scores["bleu"] > 50 and count > 24
    (tmp_path / "a.src").write_text("two three four five\none two\n")
    (tmp_path / "a.tgt").write_text("zwei drei vier fünf\neins zwei\n")
    found, count = evaluate(trained, [tmp_path / "a.src"], targets=[tmp_path / "a.tgt"], beam=1)
    assert found.scores["bleu"] > 90 and found.bits_per_byte < 1
    assert read_config(trained).model == "seq2seq"


def test_averaged_checkpoints(trained: Path) -> None:
    from safetensors.torch import load_file

    checkpoints = list_checkpoints(trained)
    assert len(checkpoints) == 3
    mean = average_weights(load_file(path / "model.safetensors") for path in checkpoints[-2:])
    translator = Translator(trained, average=2)
    assert torch.equal(translator.model.embedding.weight, mean["embedding.weight"])
    with pytest.raises(FormatError, match="there are 3 checkpoints, not 9: train with --keep 9"):
        Translator(trained, average=9)


def test_a_folder_whose_parts_do_not_belong_together(trained: Path, tmp_path: Path) -> None:
    import shutil

    from octavo.data.vocabulary import PAIR_SPECIALS, train_tokenizer

    broken = tmp_path / "broken"
    shutil.copytree(trained, broken, ignore=shutil.ignore_patterns("checkpoints"))
    train_tokenizer(["a b c"], vocabulary_size=270, specials=PAIR_SPECIALS).save(
        str(broken / "tokenizer.json")
    )
    with pytest.raises(FormatError, match="do not belong together"):
        Translator(broken)
    train_tokenizer(["a b c"], vocabulary_size=270).save(str(broken / "tokenizer.json"))
    config = replace(configuration(tmp_path), tokenizer=str(broken / "tokenizer.json"))
    with pytest.raises(FormatError, match="the vocabulary has no <pad>"):
        Translation(complete(config))


def test_the_loss_is_that_of_the_model(tmp_path: Path) -> None:
    """The task's chunked loss against Seq2Seq.loss, and a step against its micro-batches."""
    task = Translation(complete(configuration(tmp_path, dropout=0.0)))
    batch = task.batches(0)[0]
    task.model.eval()
    expected = task.model.loss(torch.from_numpy(batch.source), torch.from_numpy(batch.target))
    found = task.loss(task.model, batch, 1.0 / batch.target_count)
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_smoothed_chunked_loss_equals_the_plain_one(monkeypatch: pytest.MonkeyPatch) -> None:
    from octavo.training import losses

    monkeypatch.setattr(losses, "CHUNK_LOGITS", 7 * 50)
    torch.manual_seed(0)
    hidden, weight = torch.randn(30, 16, requires_grad=True), torch.randn(50, 16, requires_grad=True)
    targets = torch.randint(50, (30,))
    values, slopes = [], []
    for function in (plain_cross_entropy, linear_cross_entropy):
        loss = function(hidden, weight, targets, 0.25, 0.1)
        values.append(loss.item())
        slopes.append(torch.autograd.grad(loss, (hidden, weight)))
    assert values[0] == pytest.approx(values[1], rel=1e-5)
    for one, other in zip(*slopes, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_the_schedule_and_the_constants_are_the_paper_s(tmp_path: Path) -> None:
    config = complete(configuration(tmp_path, steps=40_000, warmup=0.1))
    trainer = Trainer(config, Translation(config))
    from octavo.training.schedules import inverse_sqrt_of_steps

    for step in (1, 100, 4000, 20_000):
        trainer.state.step = step - 1
        expected = inverse_sqrt_of_steps(step, hidden_size=config.hidden_size, warmup_steps=4000)
        assert trainer.rate() == pytest.approx(expected, rel=1e-6)
    assert list(trainer.optimizer.param_groups[0]["betas"]) == [0.9, 0.98]


def test_impossible_values_are_named(tmp_path: Path) -> None:
    for changes, word in (
        ({"norm_position": "middle"}, "norm_position"),
        ({"label_smoothing": 1.0}, "label_smoothing"),
        ({"columns": ("one",)}, "columns"),
        ({"tokenizer": "characters"}, "tokenizer"),
        ({"architecture": "gpt2"}, "architecture"),
    ):
        with pytest.raises(UnsupportedError, match=word):
            configuration(tmp_path, **changes)
    with pytest.raises(FormatError, match="needs pairs"):
        Translation(complete(replace(configuration(tmp_path), data=())))
