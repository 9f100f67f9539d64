"""An adapter made part of its base, and whole tuned models: written in the form that the base has.

W' = W + s B A, or for DoRA m (W + s B A) / ||W + s B A||, computed in float32 on what the base really
computes with (the unpacked quantized values), which is what the adapter was trained against; adding the
product to the 16-bit original instead adds the quantization error too.  Rows of GGUF's llama files keep
their order.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from octavo.adapters.encoding import encode
from octavo.errors import FormatError, UnsupportedError
from octavo.models.gpt import GPT
from octavo.models.loading import CONSTANTS, parameter_name, split_tensor
from octavo.models.saving import write_aside
from octavo.weights.adapter import Adapter, LowRankPair, half_rope_rows
from octavo.weights.architectures import huggingface_module
from octavo.weights.checkpoint import Checkpoint
from octavo.weights.gguf_writer import write_gguf
from octavo.weights.tensor import Tensor, TensorType

Floats = NDArray[np.float32]
# general.file_type of llama.cpp for files mostly of one type.
_FILE_TYPES = {
    TensorType.F32: 0, TensorType.BF16: 32, TensorType.Q8_0: 7, TensorType.Q4_0: 2, TensorType.Q4_1: 3,
}  # fmt: skip
_COPIED = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja",
           "generation_config.json", "config.json")  # fmt: skip


def merged_tensors(checkpoint: Checkpoint, adapter: Adapter) -> Iterator[tuple[str, Floats]]:
    """The base's tensors in float32, each with its pair in it, under the base's names and in its order."""
    left = set(adapter.pairs)
    for name, tensor in checkpoint.tensors.items():
        values = np.array(tensor.numpy(), np.float32)
        stem = name.removesuffix(".weight")
        for part, rows in _stretches(checkpoint, stem, adapter):
            values[rows] = _merged(checkpoint, part, values[rows], adapter.pairs[part])
            left.discard(part)
        yield name, adapter.saved.get(name, values)
    if left:
        raise FormatError(f"{adapter.path}: {min(left)} has no place in {checkpoint.path}")


def _stretches(checkpoint: Checkpoint, stem: str, adapter: Adapter) -> Iterator[tuple[str, slice]]:
    """Pairs that concern a matrix and the rows that each is for; a fused matrix may have three."""
    if stem in adapter.pairs:
        yield stem, slice(None)
    elif stem.endswith(".attn_qkv"):
        config = checkpoint.config
        keys = config.key_value_heads * config.head_width
        begin = 0
        for part, rows in (("attn_q", config.heads * config.head_width), ("attn_k", keys), ("attn_v", keys)):
            name = stem.replace("attn_qkv", part)
            if name in adapter.pairs:
                yield name, slice(begin, begin + rows)
            begin += rows


def _merged(checkpoint: Checkpoint, name: str, values: Floats, pair: LowRankPair) -> Floats:
    up, magnitude = pair.up, pair.magnitude
    order = half_rope_rows(checkpoint.config, f"{name}.weight")
    if order is not None:  # `order` says where the file has Hugging Face's rows
        back = np.argsort(order)
        up, magnitude = up[back], None if magnitude is None else magnitude.reshape(-1)[back]
    merged: Floats = values + np.float32(pair.scale) * (up @ pair.down)
    if magnitude is not None:
        merged *= (magnitude.reshape(-1) / np.linalg.norm(merged, axis=1))[:, None]
    return merged


def save_like(
    checkpoint: Checkpoint, tensors: Iterator[tuple[str, Floats]], out: Path, kind: TensorType
) -> Path:
    """Write a model of the base's form: a GGUF file for a GGUF file, a Hugging Face folder for a folder."""
    encoded = [encode(name, values, kind) for name, values in tensors]
    if not checkpoint.path.is_dir():
        path = out if out.suffix == ".gguf" else out / "model.gguf"
        path.parent.mkdir(parents=True, exist_ok=True)
        metadata = {
            key: value
            for key, value in checkpoint.metadata.items()
            if key not in ("name", "license", "format")
        }
        write_gguf(path, _plain(metadata) | {"general.file_type": _FILE_TYPES[kind]}, encoded)
        return path
    if not TensorType(kind).is_float:
        raise UnsupportedError(f"{out}: a Hugging Face folder holds f32 or bf16; quantized is GGUF's")
    out.mkdir(parents=True, exist_ok=True)
    for name in _COPIED:
        if (checkpoint.path / name).exists():
            shutil.copyfile(checkpoint.path / name, out / name)
    write_aside(out / "model.safetensors", _safetensors(checkpoint, encoded))
    return out


def _safetensors(checkpoint: Checkpoint, tensors: list[Tensor]) -> bytes:
    """Under Hugging Face's names and in its layouts."""
    from safetensors.torch import save

    architecture = checkpoint.config.architecture
    found = {}
    for tensor in tensors:
        module, _, kind = tensor.name.rpartition(".")
        values = torch.from_numpy(np.ascontiguousarray(tensor.numpy()))
        if architecture == "gpt2" and values.dim() == 2 and module.startswith("blk."):
            values = values.T.contiguous()
        half = tensor.type == TensorType.BF16
        found[f"{huggingface_module(architecture, module)}.{kind}"] = values.bfloat16() if half else values
    return save(found, metadata={"format": "pt"})


def _plain(metadata: Mapping[str, object]) -> dict[str, object]:
    """Arrays of text as lists, as the writer takes them."""
    from octavo.text.string_table import StringTable

    return {key: list(value) if isinstance(value, StringTable) else value for key, value in metadata.items()}


def merge(checkpoint: Checkpoint, adapter: Adapter, out: Path, kind: TensorType) -> Path:
    """Write the merged model; gives its path."""
    return save_like(checkpoint, merged_tensors(checkpoint, adapter), out, kind)


def save_tuned(checkpoint: Checkpoint, model: GPT, out: Path) -> Path:
    """Write a model that was trained whole, in bfloat16, in the form of its base."""
    parameters = {name: parameter.detach().float().numpy() for name, parameter in model.named_parameters()}

    def tensors() -> Iterator[tuple[str, Floats]]:
        for name, tensor in checkpoint.tensors.items():
            if name in CONSTANTS:
                yield name, tensor.numpy()
                continue
            rows = np.arange(tensor.shape[0], dtype=np.int64)[:, None]
            parts = []
            for part, _ in split_tensor(name, rows, checkpoint.config, checkpoint.tensors):
                values = parameters[parameter_name(part)]
                order = half_rope_rows(checkpoint.config, part)
                parts.append(values if order is None else values[np.argsort(order)])
            yield name, np.concatenate(parts)

    return save_like(checkpoint, tensors(), out, TensorType.BF16)
