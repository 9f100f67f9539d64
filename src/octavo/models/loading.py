"""From a checkpoint's tensors, under their GGUF names, to the parameters of a model."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from octavo.errors import FormatError
from octavo.model_config import ModelConfig, RopeConfig
from octavo.models.bert import BERT
from octavo.models.gpt import GPT

# GGUF's name (without .weight or .bias) -> the name of the module here.
MODULE_NAMES: Mapping[str, str] = {
    "token_embd": "token_embedding",
    "position_embd": "position_embedding",
    "token_types": "token_type_embedding",
    "token_embd_norm": "embedding_norm",
    "output_norm": "output_norm",
    "output": "output",
}
# The same inside blk.N. -> blocks.N.
BLOCK_MODULE_NAMES: Mapping[str, str] = {
    "attn_norm": "attention_norm",
    "attn_q": "attention.query",
    "attn_k": "attention.key",
    "attn_v": "attention.value",
    "attn_output": "attention.output",
    "attn_q_norm": "attention.query_norm",
    "attn_k_norm": "attention.key_norm",
    "post_attention_norm": "post_attention_norm",
    "ffn_norm": "feed_forward_norm",
    "ffn_gate": "feed_forward.gate",
    "ffn_up": "feed_forward.up",
    "ffn_down": "feed_forward.down",
    "post_ffw_norm": "post_feed_forward_norm",
    "attn_output_norm": "attention_output_norm",
    "layer_output_norm": "layer_output_norm",
}
# What these hold is already in RopeConfig.divisors.
CONSTANTS = ("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight")


def build_model(config: ModelConfig, tensors: Mapping[str, NDArray[np.float32]]) -> GPT | BERT:
    """The readable model of a config with the checkpoint's weights (see `load_tensors`)."""
    with torch.device("meta"):  # no memory and no initialization for parameters that are replaced at once
        model = BERT(config) if config.is_encoder else GPT(config)
    load_tensors(model, tensors)
    return model


def build_trainable(
    config: ModelConfig, tensors: Mapping[str, NDArray[np.float32]], *, dropout: float = 0.0
) -> GPT:
    """The decoder of a checkpoint, to be trained further: with fast paths, and with rope as they want it.

    llama.cpp stores llama's queries and keys in another order, in which pairs are neighbours; here they get
    the order back that Hugging Face's folders have, so that `saving.save_model` can write it.
    """
    half = replace(config, rope=_in_halves(config.rope), window_rope=_in_halves(config.window_rope))
    with torch.device("meta"):
        model = GPT(half, fast=True, dropout=dropout)
    load_tensors(model, tensors)
    for layer, block in enumerate(model.blocks):
        rope = config.layer_rope(layer)
        if rope is not None and rope.style == "interleaved":
            for name in ("query", "key"):
                _pairs_into_halves(block.get_submodule(f"attention.{name}"), config.head_width, rope.width)
            if config.query_key_norm:
                for name in ("query_norm", "key_norm"):
                    _pairs_into_halves(
                        block.get_submodule(f"attention.{name}"), config.head_width, rope.width
                    )
    return model


def _in_halves(rope: RopeConfig | None) -> RopeConfig | None:
    return None if rope is None else replace(rope, style="half")


@torch.no_grad()
def _pairs_into_halves(module: nn.Module, head: int, width: int) -> None:
    """Outputs 2i and 2i + 1 of each head of the module become i and i + width/2, for the first `width`."""
    order = torch.cat((torch.arange(0, width, 2), torch.arange(1, width, 2), torch.arange(width, head)))
    for parameter in module.parameters():
        heads = parameter.view(-1, head, *parameter.shape[1:])
        heads.copy_(heads[:, order])


def load_tensors(model: GPT | BERT, tensors: Mapping[str, NDArray[np.float32]]) -> None:
    """Replaces every parameter of the model by the checkpoint's tensor, given under its GGUF name.

    tensors: float32, matrices as [rows (outputs), columns (inputs)]; read one at a time, so the mapping may
    make them when asked.  Fused tensors (attn_qkv, Phi 3's ffn_up) are split.  A bias that the architecture
    usually lacks is taken too.  Raises FormatError for a tensor that is missing, has no place, or does
    not fit.
    """
    missing = {name for name, _ in model.named_parameters()}
    for name in tensors:
        if name in CONSTANTS:
            continue
        for part, array in split_tensor(name, tensors[name], model.config, tensors):
            parameter = parameter_name(part)
            _replace(model, parameter, array, name)
            missing.discard(parameter)
    if missing:
        raise FormatError(f"the checkpoint has no tensor for {', '.join(sorted(missing))}")


def parameter_name(tensor_name: str) -> str:
    """The name of the parameter that a GGUF tensor fills; FormatError if there is none of that name."""
    module, _, kind = tensor_name.rpartition(".")
    prefix, table = "", MODULE_NAMES
    if module.startswith("blk."):
        _, layer, module = module.split(".", 2)
        prefix, table = f"blocks.{layer}.", BLOCK_MODULE_NAMES
    if module not in table or kind not in ("weight", "bias"):
        raise FormatError(f"tensor {tensor_name} has no place in the models that octavo knows")
    return f"{prefix}{table[module]}.{kind}"


def split_tensor(
    name: str, array: NDArray[Any], config: ModelConfig, tensors: Container[str]
) -> Iterator[tuple[str, NDArray[Any]]]:
    """Fused tensors as their parts under their own names; any other as it is.  Rows: numbers or bytes."""
    parts: dict[str, int] = {}  # name -> rows, from the top
    if ".attn_qkv." in name:
        fused, key_rows = "attn_qkv", config.key_value_heads * config.head_width
        parts = {"attn_q": config.heads * config.head_width, "attn_k": key_rows, "attn_v": key_rows}
    elif ".ffn_up." in name and config.gated and name.replace("ffn_up", "ffn_gate") not in tensors:
        fused = "ffn_up"
        parts = {"ffn_gate": config.feed_forward_size, "ffn_up": config.feed_forward_size}
    if not parts:
        yield name, array
        return
    if array.shape[0] != sum(parts.values()):
        raise FormatError(f"tensor {name} has {array.shape[0]} rows, not {sum(parts.values())} ({parts})")
    start = 0
    for part, size in parts.items():
        yield name.replace(fused, part), array[start : start + size]
        start += size


def _replace(model: nn.Module, parameter: str, array: NDArray[np.float32], source: str) -> None:
    path, _, kind = parameter.rpartition(".")
    try:
        module = model.get_submodule(path)
    except AttributeError:
        module = nn.Identity()
    if not hasattr(module, kind):
        raise FormatError(f"tensor {source} has no place in this model: it has no {parameter}")
    expected = _expected_shape(module, kind)
    if array.shape != expected:
        raise FormatError(f"tensor {source} has shape {array.shape}, not {expected}")
    values: Tensor = torch.from_numpy(np.array(array, dtype=np.float32))
    setattr(module, kind, nn.Parameter(values))


def _expected_shape(module: nn.Module, kind: str) -> tuple[int, ...]:
    parameter = getattr(module, kind)
    if parameter is None:  # a linear layer that usually has no bias
        return (module.get_parameter("weight").shape[0],)
    return tuple(parameter.shape)
