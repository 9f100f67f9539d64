"""show: facts of a tiny model, as a table and as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from byte_model import write_byte_model

from octavo.cli.show import command as show
from octavo.weights.checkpoint import open_checkpoint

Invoke = Callable[..., Any]


def test_facts(invoke: Invoke, tmp_path: Path) -> None:
    path = write_byte_model(tmp_path / "tiny.gguf")
    report = json.loads(invoke(show, str(path), "--json").stdout)
    checkpoint = open_checkpoint(path)
    config = checkpoint.config
    tensors = checkpoint.tensors.values()
    assert report["architecture"] == "llama" and report["license"] == "apache-2.0"
    assert report["parameters"] == sum(math.prod(tensor.shape) for tensor in tensors)
    assert report["weight_bytes"] == sum(tensor.data.nbytes for tensor in tensors)
    assert report["tensor_formats"].keys() == {tensor.type.name for tensor in tensors}
    assert report["context"] == config.context_length
    per_token = 2 * config.layers * config.key_value_heads * (config.head_width + 4)
    assert report["kv_bytes"] == per_token * config.context_length and report["kv_type"] == "int8"
    assert report["memory_bytes"] == report["weight_bytes"] + report["kv_bytes"]
    wide = json.loads(invoke(show, str(path), "--json", "--context", "64", "--kv-type", "f16").stdout)
    assert wide["context"] == 64
    assert wide["kv_bytes"] == 2 * config.layers * config.key_value_heads * config.head_width * 2 * 64


def test_the_table(invoke: Invoke, tmp_path: Path) -> None:
    path = write_byte_model(tmp_path / "tiny.gguf")
    output = invoke(show, str(path)).stdout
    for words in ("llama: 2 layers", "apache-2.0", "F16", "chat template", "memory"):
        assert words in output


def test_no_such_file(invoke: Invoke) -> None:
    result = invoke(show, "absent.gguf")
    assert result.exit_code == 1 and "no such file" in result.stderr


def test_a_damaged_file(invoke: Invoke, tmp_path: Path) -> None:
    path = tmp_path / "damaged.gguf"
    path.write_bytes(b"GGUF" + bytes(20))
    result = invoke(show, str(path))
    assert result.exit_code == 1 and str(path) in result.stderr
