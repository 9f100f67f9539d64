"""Files of draft heads: what is damaged or of another model is refused, with the reason."""

from __future__ import annotations

import json
import struct
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from octavo.adapters.draft_head import (
    KIND,
    DraftHeadConfig,
    check_pair,
    fingerprint,
    is_draft_head,
    read_draft_head,
)
from octavo.errors import FormatError, ModelNotFoundError, OctavoError, UnsupportedError

CONFIG = DraftHeadConfig("small", "f" * 32, 32, 64, 16, 32, 4, (0.5, 0.25))


def write_head(folder: Path, tensors: dict[str, Any] | None = None, **config: object) -> Path:
    """A head; tensors: instead of its own, None to leave one out."""
    folder.mkdir(exist_ok=True)
    facts = {"model_type": KIND, "version": 1, **asdict(CONFIG), **config}
    (folder / "config.json").write_text(json.dumps(facts))
    values: dict[str, Any] = {name: np.ones(shape, np.float32) for name, shape in CONFIG.shapes().items()}
    values["tokens"] = np.arange(0, 64, 2, dtype=np.int32)
    values = {name: value for name, value in {**values, **(tensors or {})}.items() if value is not None}
    header, data = {}, b""
    for name, value in values.items():
        kind = {"float32": "F32", "int32": "I32"}[value.dtype.name]
        end = len(data) + value.nbytes
        header[name] = {"dtype": kind, "shape": list(value.shape), "data_offsets": [len(data), end]}
        data += value.tobytes()
    text = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)
    return folder


def test_a_head_is_read_whole(tmp_path: Path) -> None:
    head = read_draft_head(write_head(tmp_path / "head"))
    assert head.config == CONFIG and head.tokens.tolist() == list(range(0, 64, 2))
    assert {name: value.shape for name, value in head.weights.items()} == CONFIG.shapes()


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"version": 2}, "version: 2"),
        ({"hidden_size": 40}, "hidden_size: is 40"),
        ({"hidden_size": 1 << 30}, "hidden_size"),
        ({"draft_tokens": 128}, "draft_tokens"),
        ({"depths": 0}, "depths"),
        ({"acceptance": [2]}, "acceptance"),
        ({"inner_size": 32}, "tensor gate.weight"),
        ({"model": 5}, "model"),
    ],
)
def test_a_bad_config_is_refused(config: dict[str, object], words: str, tmp_path: Path) -> None:
    with pytest.raises((FormatError, UnsupportedError), match=words):
        read_draft_head(write_head(tmp_path / "head", **config))


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({"up.weight": None}, "up.weight: is missing"),
        ({"more.weight": np.ones(3, np.float32)}, "more.weight"),
        ({"up.weight": np.full((16, 32), np.nan, np.float32)}, "up.weight: holds NaN"),
        ({"tokens": np.zeros(32, np.int32)}, "rising ids"),
        ({"tokens": np.arange(40, 72, dtype=np.int32)}, "rising ids"),
        ({"tokens": np.arange(-1, 31, dtype=np.int32)}, "rising ids"),
        ({"tokens": np.arange(32, dtype=np.float32)}, "must be I32"),
    ],
)
def test_bad_tensors_are_refused(tensors: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=words):
        read_draft_head(write_head(tmp_path / "head", tensors))


def test_what_is_cut_short_or_absent_is_refused(tmp_path: Path) -> None:
    folder = write_head(tmp_path / "head")
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(FormatError, match="truncated"):
        read_draft_head(folder)
    file.unlink()
    with pytest.raises(FormatError, match="complete"):
        read_draft_head(folder)
    assert not is_draft_head(tmp_path) and not is_draft_head(tmp_path / "nothing")
    with pytest.raises(ModelNotFoundError, match="train-draft"):
        read_draft_head(tmp_path)


def checkpoint(norm: float = 1.0, hidden: int = 32, vocabulary: int = 64) -> Any:
    values = np.full(hidden, norm, np.float32)
    tensor = SimpleNamespace(shape=(hidden,), numpy=lambda: values)
    config = SimpleNamespace(hidden_size=hidden, vocabulary_size=vocabulary)
    return SimpleNamespace(path=Path("large.gguf"), config=config, tensors={"output_norm.weight": tensor})


def test_another_models_head_is_refused(tmp_path: Path) -> None:
    words = [f"word{number}" for number in range(64)]
    mine = fingerprint(checkpoint(), words)
    head = read_draft_head(write_head(tmp_path / "head", fingerprint=mine))
    check_pair(head, checkpoint(), words, folder=tmp_path)
    with pytest.raises(OctavoError, match=r"trained for 'small'.*large.gguf.*of 32 numbers.*has 48"):
        check_pair(head, checkpoint(hidden=48), words, folder=tmp_path)
    for other, vocabulary in ((checkpoint(norm=2.0), words), (checkpoint(), ["else", *words[1:]])):
        with pytest.raises(OctavoError, match="another model's"):
            check_pair(head, other, vocabulary, folder=tmp_path)
