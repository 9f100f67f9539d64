"""Number formats that are written: the gguf package's bits, and its own reader for adapters."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import pytest
from gguf import quants
from tiny_bases import save_base

from octavo.adapters.base import build_adapted
from octavo.adapters.encoding import TYPES, encode
from octavo.adapters.files import save_adapter
from octavo.adapters.gguf_file import write_gguf_adapter
from octavo.errors import UnsupportedError
from octavo.weights.adapter import AdapterConfig, half_rope_rows, read_adapter
from octavo.weights.checkpoint import Checkpoint, open_checkpoint
from octavo.weights.tensor import TensorType


@pytest.mark.parametrize("kind", ["bf16", "q8_0", "q4_1", "q4_0"])
def test_bits_equal_those_of_the_gguf_package(kind: str) -> None:
    generator = np.random.default_rng(1)
    values = (generator.standard_normal((40, 128)) * 0.05).astype(np.float32)
    values[0, :32] = 0  # a block of nothing
    values[1, :32] = 0.25  # of one value
    values[2, :32] = np.linspace(-1, 1, 32)  # ties
    found = encode("w", values, TYPES[kind])
    expected = quants.quantize(values, gguf.GGMLQuantizationType[kind.upper()])
    assert np.array_equal(found.data, expected.reshape(-1).view(np.uint8))
    again = quants.dequantize(expected, gguf.GGMLQuantizationType[kind.upper()])
    assert np.array_equal(found.numpy(), again)


def test_what_does_not_fit_into_blocks_stays_float() -> None:
    assert encode("w", np.ones((3, 40), np.float32), TensorType.Q8_0).type == TensorType.F32
    assert encode("w", np.ones(64, np.float32), TensorType.Q4_0).type == TensorType.F32
    with pytest.raises(UnsupportedError, match="Q6_K: octavo writes f32, bf16"):
        encode("w", np.ones((2, 256), np.float32), TensorType.Q6_K)


def adapter_of(kind: str, folder: Path, **options: object) -> tuple[Checkpoint, Path]:
    save_base(kind, folder / "base")
    checkpoint = open_checkpoint(folder / "base")
    config = replace(AdapterConfig(rank=4, alpha=8), **options)  # type: ignore[arg-type]
    _, adapters = build_adapted(checkpoint.config, checkpoint.tensors, config, seed=1)
    for pair in adapters.pairs.values():
        pair.up.data.normal_(std=0.1)
    save_adapter(adapters, folder / "adapter")
    return checkpoint, folder / "adapter"


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gpt2"])
@pytest.mark.parametrize("stabilized", [False, True])
def test_the_gguf_package_reads_our_adapters(kind: str, stabilized: bool, tmp_path: Path) -> None:
    checkpoint, folder = adapter_of(kind, tmp_path, rank_stabilized=stabilized)
    read = read_adapter(folder, checkpoint.config)
    write_gguf_adapter(read, checkpoint.config, tmp_path / "a.gguf")
    reader = gguf.GGUFReader(tmp_path / "a.gguf")

    def text(key: str) -> str:
        return bytes(reader.fields[key].parts[-1]).decode()

    assert [text(f"general.{key}") for key in ("architecture", "type")] == [kind, "adapter"]
    assert text("adapter.type") == "lora"
    alpha = float(reader.fields["adapter.lora.alpha"].parts[-1][0])
    tensors = {tensor.name: tensor.data for tensor in reader.tensors}
    # The names that llama.cpp's own map gives to Hugging Face's modules.
    known = gguf.get_tensor_name_map(getattr(gguf.MODEL_ARCH, kind.upper()), checkpoint.config.layers)
    assert len(tensors) == 2 * len(read.pairs)
    for name, pair in read.pairs.items():
        assert name in {value for _, value in known.mapping.values()}
        down, up = tensors[f"{name}.weight.lora_a"], tensors[f"{name}.weight.lora_b"]
        assert down.shape == pair.down.shape and up.shape == pair.up.shape
        expected = pair.scale * pair.up @ pair.down
        if kind == "llama" and name.endswith(("attn_q", "attn_k")):
            # llama.cpp's converter: a head's two halves become neighbours.
            heads = checkpoint.config.heads if name.endswith("q") else checkpoint.config.key_value_heads
            halves = expected.reshape(heads, 2, -1, expected.shape[1])
            expected = halves.swapaxes(1, 2).reshape(expected.shape)
        np.testing.assert_allclose(alpha / len(down) * up @ down, expected, rtol=1e-5, atol=1e-7)
    assert half_rope_rows(checkpoint.config, "blk.0.attn_q.weight") is None  # the base was a folder


def test_what_llama_cpp_lacks_is_refused(tmp_path: Path) -> None:
    checkpoint, folder = adapter_of("llama", tmp_path, decomposed=True)
    read = read_adapter(folder, checkpoint.config)
    with pytest.raises(UnsupportedError, match="DoRA has no place.*octavo merge"):
        write_gguf_adapter(read, checkpoint.config, tmp_path / "a.gguf")
