"""octavo train-draft, and running with what it made."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

pytest.importorskip("torch")
pytest.importorskip("safetensors")
pytest.importorskip("transformers")

from tiny_bases import save_chat_base  # noqa: E402

import octavo  # noqa: E402
from octavo.cli.main import main  # noqa: E402
from octavo.errors import ModelNotFoundError  # noqa: E402


def run(*words: object, code: int = 0) -> str:
    done = CliRunner().invoke(main, [str(word) for word in words])
    assert done.exit_code == code, done.output
    return done.output


SMALL = ["--tokens", 600, "--answer-tokens", 16, "--together", 4, "--draft-tokens", 64, "--inner-size", 32]


@pytest.fixture
def base(tmp_path: Path) -> Path:
    save_chat_base(tmp_path / "base")
    return tmp_path / "base"


def data(tmp_path: Path) -> Path:
    """Prompts, a conversation, a pair and texts."""
    rows: list[dict[str, object]] = [{"prompt": f"{number}+1="} for number in range(40)]
    rows.append({"messages": [{"role": "user", "content": "1"}, {"role": "assistant", "content": "2"}]})
    rows += [{"prompt": "2+2=", "completion": "4"}, {"text": "1+1=2 " * 6}]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_train_and_run(base: Path, tmp_path: Path) -> None:
    words = ["train-draft", base, "--data", data(tmp_path), *SMALL, "--steps", 3, "--threads", 1]
    found = json.loads(run(*words, "--json"))
    assert found["tokens"] == 600 and found["steps"] == 3 and len(found["acceptance_by_depth"]) == 4
    assert Path(found["folder"]).parent == tmp_path / "octavo-home" / "heads"
    said = run(*words, "--out", tmp_path / "mine", "--quiet")
    assert "by depth" in said
    ask = ["run", base, "1+1=", "--raw", "--max-tokens", 12, "--temperature", 0, "--json"]
    plain = json.loads(run(*ask, "--draft", "off"))["tokens"]
    for draft in ("head", tmp_path / "mine"):
        answer = json.loads(run(*ask, "--draft", draft))
        assert answer["tokens"] == plain and "accepted_by_depth" in answer


def test_a_head_that_is_not_there_or_of_another_model(base: Path, tmp_path: Path) -> None:
    assert "octavo train-draft base" in run("run", base, "1", "--draft", "head", code=1)
    rows = data(tmp_path)
    run("train-draft", base, "--data", rows, *SMALL, "--steps", 1, "--out", tmp_path / "mine", "--quiet")
    config = json.loads((base / "config.json").read_text())
    weights = (base / "model.safetensors").read_bytes()
    (base / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 1}))
    with pytest.raises(octavo.OctavoError):
        octavo.load(base, draft=tmp_path / "mine")
    (base / "config.json").write_text(json.dumps(config))
    (base / "model.safetensors").write_bytes(weights)
    (tmp_path / "mine" / "model.safetensors").unlink()
    assert "complete" in run("run", base, "1", "--draft", tmp_path / "mine", code=1)
    with pytest.raises(ModelNotFoundError, match="no draft head yet"):
        octavo.load(base, draft="head")


def test_data_without_prompts_is_an_error(base: Path, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(json.dumps({"prompt": "1" * 90}) + "\n")
    said = run("train-draft", base, "--data", tmp_path / "rows.jsonl", *SMALL, code=1)
    assert "no prompt of at most" in said
