"""Adapters as llama.cpp reads them: a GGUF file of pairs, named after the base's tensors.

`X.weight.lora_a` [r, I] and `X.weight.lora_b` [O, r] in float32 for the base's tensor `X.weight`, and one
alpha for the file: llama.cpp adds alpha / r * b a.  Rows of b are in the order of the base's GGUF file.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from octavo.adapters.encoding import encode
from octavo.errors import UnsupportedError
from octavo.model_config import ModelConfig
from octavo.weights.adapter import Adapter, half_rope_rows
from octavo.weights.gguf_writer import write_gguf
from octavo.weights.tensor import Tensor, TensorType


def write_gguf_adapter(adapter: Adapter, model: ModelConfig, path: Path) -> None:
    """Write `path` whole or not at all.  model: the base's configuration.

    Raises UnsupportedError for DoRA and for modules that were trained whole, which llama.cpp does not have.
    """
    if adapter.config.decomposed or adapter.saved:
        what = "DoRA" if adapter.config.decomposed else f"{min(adapter.saved)}, which was trained whole,"
        raise UnsupportedError(
            f"{adapter.path}: {what} has no place in llama.cpp's adapters: octavo merge MODEL {adapter.path} "
            "--out FILE.gguf makes a model of it"
        )
    model = _as_in_gguf(model)
    tensors: list[Tensor] = []
    alpha = adapter.config.alpha
    for name, pair in sorted(adapter.pairs.items()):
        # One alpha cannot say every scale (rsLoRA, patterns), so what is left of a scale goes into b.
        up = pair.up * (pair.scale * pair.rank / alpha)
        order = half_rope_rows(model, f"{name}.weight")
        if order is not None:
            up[order] = up.copy()
        tensors.append(encode(f"{name}.weight.lora_a", pair.down, TensorType.F32))
        tensors.append(encode(f"{name}.weight.lora_b", up, TensorType.F32))
    metadata = {
        "general.architecture": model.architecture,
        "general.type": "adapter",
        "general.name": adapter.path.name,
        "general.file_type": 0,
        "adapter.type": "lora",
        "adapter.lora.alpha": float(alpha),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_gguf(path, metadata, tensors)


def _as_in_gguf(model: ModelConfig) -> ModelConfig:
    """With the order of rows that the base's GGUF file has, even if the base at hand is a folder."""
    if model.architecture != "llama" or model.rope is None:
        return model
    return replace(model, rope=replace(model.rope, style="interleaved"))
