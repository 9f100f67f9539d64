"""octavo train, eval, report, tokenizer: from text to a folder that runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

pytest.importorskip("torch")
pytest.importorskip("safetensors")

import octavo  # noqa: E402
from octavo.cli.main import main  # noqa: E402

SMALL = ["--params", "60000", "--context", "32", "--batch-tokens", "256", "--vocabulary", "300", "--quiet"]


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OCTAVO_DATA_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "corpus.txt"
    path.write_text("".join(f"def add_{n}(a, b):\n    return a + b + {n}\n\n" for n in range(300)))
    return path


def run(*words: str, code: int = 0) -> str:
    done = CliRunner().invoke(main, words)
    assert done.exit_code == code, done.output
    return done.output


def test_train_evaluate_report_and_run(corpus: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    out = str(tmp_path / "model")
    said = run("train", "gpt", "--data", str(corpus), "--out", out, "--steps", "60", *SMALL)
    assert "60 steps, 15,360 tokens" in said
    found = json.loads(run("eval", out, "--json"))
    assert found["loss"] < 2.5
    text = json.loads(run("eval", out, "--data", str(corpus), "--json"))
    assert text["tokens"] > found["tokens"]
    page = Path(run("report", out).strip()).read_text()
    assert page.count("<svg") == 4
    assert "bits a byte" in page and "http-equiv" not in page and "<script" not in page
    with octavo.load(out) as model:
        assert model.generate("def add_1(", max_tokens=12, temperature=0).text
    assert "holds a run already" in run("train", "--data", str(corpus), "--out", out, code=1)
    assert "60 steps" in run("train", "--resume", out, "--quiet")


def test_a_tokenizer_of_ones_own(corpus: Path, tmp_path: Path) -> None:
    file = tmp_path / "tokenizer.json"
    assert "tokens" in run("tokenizer", "train", str(corpus), "--out", str(file), "--characters")
    out = str(tmp_path / "model")
    options = [
        "--tokenizer",
        str(file),
        "--steps",
        "2",
        "--architecture",
        "gpt2",
        "--optimizer",
        "adamw",
        *SMALL,
    ]
    run("train", "--data", str(corpus), "--out", out, *options)
    assert json.loads((tmp_path / "model/config.json").read_text())["vocab_size"] < 60


def test_bad_words(tmp_path: Path) -> None:
    assert "give --out DIR" in run("train", code=2)
    (tmp_path / "empty.txt").write_text("")
    words = ["train", "--data", str(tmp_path / "empty.txt"), "--out", str(tmp_path / "o"), *SMALL]
    assert "corpus is empty" in run(*words, code=1)
    assert "no training was begun" in run("train", "--resume", str(tmp_path), code=1)
