"""octavo tune, merge, convert: from rows to an adapter, a model, and llama.cpp's form."""

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


def run(*words: object, code: int = 0) -> str:
    done = CliRunner().invoke(main, [str(word) for word in words])
    assert done.exit_code == code, done.output
    return done.output


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    made = [{"prompt": f"{a}+{b}=", "completion": str(a + b)} for a in range(6) for b in range(6)]
    path.write_text("".join(json.dumps(row) + "\n" for row in made))
    return path


def test_tune_merge_and_convert(rows: Path, tmp_path: Path) -> None:
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    save_chat_base(base)
    options = ["--data", rows, "--context", 48, "--precision", "float32", "--threads", 1, "--rank", 4]
    assert "learned" in run("tune", base, *options, "--preview")
    more = ["--steps", 3, "--paged", "--recompute", "--method", "qlora", "--base-format", "q8_0", "--quiet"]
    said = run("tune", base, *options, *more, "--out", adapter)
    assert "3 steps" in said
    merged = tmp_path / "merged"
    said = run("merge", base, adapter, "--out", merged, "--held-out", rows, "--rows", 12)
    assert [line.partition(" loss ")[0].strip() for line in said.splitlines()[:3]] == [
        "beside the base", "base, bf16", "base, q8_0"
    ]  # fmt: skip
    found = json.loads(run("merge", base, adapter, "--out", merged, "--held-out", rows, "--json"))
    assert abs(found["losses"]["base, bf16"] - found["losses"]["beside the base"]) < 0.1
    with octavo.load(merged) as model:
        assert model.generate("1+1=", max_tokens=2, temperature=0).tokens
    said = run("convert", base, adapter, "--out", tmp_path / "adapter.gguf")
    assert said.splitlines()[0] == str(tmp_path / "adapter.gguf")
    assert (tmp_path / "adapter.gguf").read_bytes()[:4] == b"GGUF"
    assert "ends in .gguf" in run("convert", base, adapter, "--out", tmp_path / "adapter.bin", code=2)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'{"prompt": "1", "completion": "2"}\n{"prompt"\n', "rows.jsonl:2: broken JSON"),
        (b"", "rows.jsonl: no rows"),
        (b'{"messages": [{"role": "user", "content": "1"}]}\n', "rows.jsonl:1: no turn of the assistant"),
        (b'{"prompt": "1", "completion": "2"}\n{"prompt": "1", "completion": "' + b"2" * 90 + b'"}\n',
         "rows.jsonl:2: 1"),
    ],
)  # fmt: skip
def test_bad_rows_are_errors_that_name_file_line_and_remedy(
    content: bytes, words: str, tmp_path: Path
) -> None:
    save_chat_base(tmp_path / "base")
    (tmp_path / "rows.jsonl").write_bytes(content)
    out = tmp_path / "out"
    data = ["--data", tmp_path / "rows.jsonl", "--context", 60]
    said = run("tune", tmp_path / "base", *data, "--out", out, code=1)
    assert words in said
    remedies = {"broken": "mend this line", "assistant": "add its answer", ":2: 1": "--cut"}
    assert all(remedy in said for part, remedy in remedies.items() if part in words)
    assert not out.exists()
