"""octavo train bert and seq2seq, translate, eval, embed: each verb once, on tiny data."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

pytest.importorskip("torch")
pytest.importorskip("safetensors")

from octavo.cli.main import main  # noqa: E402

SMALL = ["--layers", "1", "--width", "32", "--heads", "1", "--threads", "1", "--vocabulary", "300", "--quiet"]
SMALL += ["--precision", "float32"]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OCTAVO_DATA_CACHE", str(tmp_path / "cache"))


def run(*words: str, code: int = 0, stdin: str | None = None) -> str:
    done = CliRunner().invoke(main, words, input=stdin)
    assert done.exit_code == code, done.output
    return done.output


def test_a_translator(tmp_path: Path) -> None:
    source, target, out = tmp_path / "a.en", tmp_path / "a.de", str(tmp_path / "model")
    source.write_text("one two\ntwo three four\n" * 60)
    target.write_text("eins zwei\nzwei drei vier\n" * 60)
    data = ["--data", str(source), "--target", str(target)]
    said = run("train", "seq2seq", *data, "--out", out, "--steps", "30", "--batch-tokens", "256", *SMALL)
    assert "30 steps" in said and f"octavo translate {out}" in said
    assert run("translate", out, "one two", "two three", "--beam", "1", "--threads", "1").count("\n") == 2
    lines = run("translate", out, "--json", "--threads", "1", stdin="one two\n\ntwo\n").splitlines()
    assert [json.loads(line)["source"] for line in lines] == ["one two", "", "two"]
    found = json.loads(run("eval", out, *data, "--json"))
    assert found["loss"] > 0 and found["tokens"] > 100 and found["perplexity"] > 1
    assert "there are" in run("translate", out, "one", "--average", "9", code=1)


def test_an_encoder(tmp_path: Path) -> None:
    corpus, labelled = tmp_path / "a.jsonl", tmp_path / "a.tsv"
    corpus.write_text("".join(f'"the {n} cats of {n * 7} houses"\n' for n in range(200)))
    labelled.write_text("".join(f"the {n} {'cats' if n % 2 else 'houses'}\t{n % 2}\n" for n in range(80)))
    base, tuned = str(tmp_path / "base"), str(tmp_path / "tuned")
    said = run(
        "train", "bert", "--data", str(corpus), "--out", base, "--steps", "5", "--context", "32", *SMALL
    )
    assert f"octavo embed {base}" in said
    assert len(json.loads(run("embed", base, "the cats", "--json"))["embeddings"][0]) == 32
    options = ["--task", "classify", "--from", base, "--columns", "1,2", "--data", str(labelled)]
    said = run("train", "bert", *options, "--out", tuned, "--steps", "5", "--threads", "1", "--quiet")
    assert "accuracy" in said
    found = json.loads(run("eval", tuned, "--data", str(labelled), "--json"))
    assert {"accuracy", "f1", "matthews", "loss"} <= set(found) and found["tokens"] == 80
    assert "perplexity" in run("eval", base)


def test_options_of_other_models_are_errors(tmp_path: Path) -> None:
    out = ["--out", str(tmp_path / "x")]
    assert "--task does not belong to gpt" in run("train", "gpt", *out, "--task", "classify", code=2)
    assert "--target does not belong to bert" in run("train", "bert", *out, "--target", "x", code=2)
    assert "needs pairs of texts" in run("train", "seq2seq", *out, code=1)
    folder = tmp_path / "empty"
    folder.mkdir()
    assert "leave out --steps" in run("train", "--resume", str(folder), "--steps", "3", code=2)
    assert "model_type: is not octavo_seq2seq" in run("translate", str(empty_model(folder)), "x", code=1)


def empty_model(folder: Path) -> Path:
    (folder / "config.json").write_text('{"model_type": "llama"}')
    return folder
