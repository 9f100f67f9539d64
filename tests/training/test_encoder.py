"""An encoder's runs: masked tokens, next sentences, labels; and its folder in other hands."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

from tiny_runs import TINY, TINY_MODELS, write_corpus, write_labelled  # noqa: E402

import octavo  # noqa: E402
from octavo.data.packing import IGNORED  # noqa: E402
from octavo.data.sentence_pairs import SentencePairRows  # noqa: E402
from octavo.data.shards import corpus_of  # noqa: E402
from octavo.errors import FormatError, UnsupportedError  # noqa: E402
from octavo.training import train  # noqa: E402
from octavo.training.config import complete  # noqa: E402
from octavo.training.evaluate import evaluate  # noqa: E402
from octavo.training.loop import Trainer  # noqa: E402
from octavo.training.tasks.encoder_config import EncoderConfig  # noqa: E402
from octavo.training.tasks.labelled import Labelling  # noqa: E402
from octavo.training.tasks.masked import MaskedLanguageModelling  # noqa: E402
from octavo.training.tasks.scores import classification_scores  # noqa: E402


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OCTAVO_DATA_CACHE", str(tmp_path / "cache"))


def configuration(folder: Path, name: str = "run", data: str = "", **changes: object) -> EncoderConfig:
    corpus = Path(data) if data else write_corpus(folder)
    values = {**TINY, **TINY_MODELS["bert"], **changes}
    return EncoderConfig(out=str(folder / name), data=(str(corpus),), **values)


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("encoder")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OCTAVO_DATA_CACHE", str(folder / "cache"))
        torch.set_num_threads(1)
        result = train(
            configuration(folder, steps=50, context=48, batch_tokens=768, rows=16, learning_rate=0.02)
        )
    assert result.validation is not None and result.validation.loss < 4.0  # of a uniform guess: 5.3
    return folder / "run"


def test_what_is_masked(tmp_path: Path) -> None:
    task = MaskedLanguageModelling(complete(configuration(tmp_path, batch_tokens=3200, rows=64)))
    batches = task.batches(0)
    assert [len(batch.inputs) for batch in batches] == [64, 64, 64, 8]
    inputs, targets = (np.concatenate([getattr(b, name) for b in batches]) for name in ("inputs", "targets"))
    chosen = targets != IGNORED
    assert 0.1 < chosen.mean() < 0.2
    masked = inputs == task.specials.mask
    assert 0.7 < masked[chosen].mean() < 0.9 and not masked[~chosen].any()
    kept = inputs[chosen] == targets[chosen]
    assert 0.05 < kept.mean() < 0.2
    # Whole words: a piece that goes on with a word is chosen exactly when the piece before it is.
    original = np.where(chosen, targets, inputs)
    goes_on = task.continues.numpy()[original][:, 1:]
    assert goes_on.any()
    assert (chosen[:, 1:][goes_on] == chosen[:, :-1][goes_on]).all()
    again = MaskedLanguageModelling(complete(configuration(tmp_path, batch_tokens=3200, rows=7)))
    together = np.concatenate([batch.inputs for batch in again.batches(0)])
    assert (together == inputs).all()  # however the step is cut into micro-batches


def test_a_packed_row_is_its_documents_alone(tmp_path: Path) -> None:
    task = MaskedLanguageModelling(complete(configuration(tmp_path, context=64)))
    batch = task.batches(0)[0]
    assert batch.documents is not None and batch.positions is not None
    task.model.eval()
    packed = task.model.bert(
        torch.from_numpy(batch.inputs),
        positions=torch.from_numpy(batch.positions),
        documents=torch.from_numpy(batch.documents),
    )
    row, number = batch.inputs[0], batch.documents[0]
    for document in range(number[-1] + 1):
        alone = task.model.bert(torch.from_numpy(row[number == document])[None])
        torch.testing.assert_close(packed[0, number == document], alone[0], rtol=1e-4, atol=1e-5)


def test_the_fast_encoder_equals_its_slow_twin(tmp_path: Path) -> None:
    fast, slow = (
        MaskedLanguageModelling(complete(configuration(tmp_path, fast=fast, context=64, dropout=0.0)))
        for fast in (True, False)
    )
    batch = fast.batches(0)[0]
    losses = []
    for task in (fast, slow):
        loss = task.loss(task.model, batch, 1.0)
        loss.backward()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    for one, other in zip(fast.model.parameters(), slow.model.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-3, atol=1e-5)


def test_pairs_of_sentences() -> None:
    documents = [[2, *range(100 * n, 100 * n + 20), 3] for n in range(1, 40)]
    rows = SentencePairRows(corpus_of(documents), 16, 2, 3, 0, seed=5)
    assert rows.rows == 39 * 2  # 13 and 7 tokens of each
    batch = rows.batch(0, rows.rows)
    follows = 0
    for tokens, types, present, label in zip(
        batch.tokens, batch.types, batch.present, batch.follows, strict=True
    ):
        assert tokens[0] == 2 and (tokens[~present] == 0).all() and tokens[present][-1] == 3
        first, second = (tokens[present & (types == kind)] for kind in (0, 1))
        assert first[-1] == 3 and second[-1] == 3
        if label == 0:
            follows += 1
            assert second[0] == first[-2] + 1
    assert 0.3 < follows / rows.rows < 0.7
    again = SentencePairRows(corpus_of(documents), 16, 2, 3, 0, seed=5)
    assert (again.batch(7, 3).follows == batch.follows[7:10]).all()
    with pytest.raises(FormatError, match="no document has 4 tokens"):
        SentencePairRows(corpus_of([[2, 5, 3]]), 16, 2, 3, 0)


def test_next_sentences_are_learned_beside(tmp_path: Path) -> None:
    result = train(configuration(tmp_path, next_sentence=True, steps=10, context=32))
    content = json.loads((result.folder / "config.json").read_text())
    assert content["architectures"] == ["BertForPreTraining"]


def test_the_folder_in_other_hands(pretrained: Path) -> None:
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoModelForMaskedLM.from_pretrained(pretrained).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(pretrained)
    ids = tokenizer("the 3 cats of 9 houses", return_tensors="pt")["input_ids"]
    from octavo.models.bert import MaskedLanguageModel
    from octavo.training.model_folders import load_encoder

    ours = load_encoder(pretrained, MaskedLanguageModel).eval()
    with torch.no_grad():
        torch.testing.assert_close(ours(ids), theirs(ids).logits, rtol=1e-4, atol=1e-5)
    with octavo.load(str(pretrained)) as native:
        vector = native.embed(["the 3 cats of 9 houses"])[0]
    with torch.no_grad():
        expected = ours.bert.embed(ids)[0].numpy()
    cosine = vector @ expected / np.linalg.norm(vector) / np.linalg.norm(expected)
    assert cosine > 0.9999  # an encoder is multiplied in bfloat16 where that is faster


def test_classification_from_a_pretrained_folder(pretrained: Path, tmp_path: Path) -> None:
    data = write_labelled(tmp_path)
    config = configuration(
        tmp_path, data=str(data), task="classify", columns=("1", "2"), start=str(pretrained), steps=60,
        context=64, batch_tokens=48 * 16, rows=16, layers=0, hidden_size=0, heads=0, optimizer="adamw",
        learning_rate=3e-3,
    )  # fmt: skip
    result = train(config)
    assert (complete(config).hidden_size, complete(config).context) == (32, 48)
    assert result.validation is not None and result.validation.scores["accuracy"] > 0.9
    found, count = evaluate(result.folder, [data])
    assert found.scores["accuracy"] > 0.9 and found.scores["matthews"] > 0.8 and count == 160
    content = json.loads((result.folder / "config.json").read_text())
    assert content["id2label"] == {"0": "0", "1": "1"}
    assert "is 1)" in (result.folder / "metrics.jsonl").read_text()


def test_labels_of_words_and_of_pairs(tmp_path: Path) -> None:
    words, pairs = tmp_path / "words.jsonl", tmp_path / "pairs.csv"
    lines = [{"words": ["see", name, "go"], "tags": ["O", "NAME", "O"]} for name in ("anna", "bob") * 40]
    words.write_text("".join(json.dumps(line) + "\n" for line in lines))
    rows = [f"{a} sat,{b} sat,{'same' if a == b else 'other'}" for a in "xyz" for b in "xyz"] * 20
    pairs.write_text("first,second,label\n" + "\n".join(rows) + "\n")
    for name, data, task, least in (("w", words, "tokens", 0.9), ("p", pairs, "pairs", 0.6)):
        config = configuration(
            tmp_path, name, data=str(data), task=task, steps=25, batch_tokens=256, rows=16, learning_rate=0.02
        )
        result = train(config)
        assert result.validation is not None and result.validation.scores["accuracy"] >= least
        assert "f1" in result.validation.scores


def test_bad_labels_are_named(tmp_path: Path) -> None:
    one, other = tmp_path / "one.tsv", tmp_path / "other.tsv"
    one.write_text("a\t1\nb\t1\n")
    other.write_text("a\t1\nb\t0\nc\t0\n" * 3)
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"words": ["a", "b"], "tags": ["O"]}\n')
    unknown = tmp_path / "unknown.tsv"
    unknown.write_text("a\t7\n")
    (tmp_path / "empty.tsv").write_text("")
    columns = {"task": "classify", "columns": ("1", "2")}
    for data, changes, words in (
        (one, columns, "one label only"),
        (bad, {"task": "tokens"}, r"bad\.jsonl:1: 2 words and 1 tags"),
        (other, {**columns, "validation_data": (str(unknown),)}, "label '7' of 'a' is none of the training"),
        (tmp_path / "empty.tsv", columns, "no labelled examples"),
        (tmp_path / "none.tsv", columns, "no such file"),
    ):
        with pytest.raises(FormatError, match=words):
            Labelling(complete(configuration(tmp_path, data=str(data), **changes)))
    for changes, word in (
        ({"task": "guess"}, "task"),
        ({"task": "classify", "columns": ("1",)}, "columns"),
        ({"mask_probability": 0.0}, "mask_probability"),
        ({"tokenizer": "bpe"}, "tokenizer"),
    ):
        with pytest.raises(UnsupportedError, match=word):
            configuration(tmp_path, **changes)
    with pytest.raises(FormatError, match="no config.json"):
        complete(configuration(tmp_path, start=str(tmp_path)))


def test_scores_by_hand() -> None:
    found, wanted = np.array([1, 1, 0, 0, 1]), np.array([1, 0, 0, 1, 1])
    scores = classification_scores(found, wanted, ["no", "yes"])
    assert scores["accuracy"] == pytest.approx(0.6)
    assert scores["f1"] == pytest.approx(2 * 2 / 6)
    assert scores["matthews"] == pytest.approx((2 * 1 - 1 * 1) / (3 * 3 * 2 * 2) ** 0.5)
    tags = classification_scores(np.array([0, 1, 1]), np.array([0, 1, 0]), ["O", "A", "B"])
    assert tags["f1"] == pytest.approx(2 * 1 / 3)


def test_micro_batches_change_nothing(tmp_path: Path) -> None:
    losses = []
    for rows in (8, 1):
        config = complete(
            replace(configuration(tmp_path, dropout=0.0, optimizer="adamw", batch_tokens=128), rows=rows)
        )
        trainer = Trainer(config, MaskedLanguageModelling(config))
        losses.append([trainer.update()[0] for _ in range(4)])
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
