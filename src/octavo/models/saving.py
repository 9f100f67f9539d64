"""A trained decoder as a Hugging Face folder, which transformers 4 and 5 and octavo itself load.

config.json, generation_config.json, model.safetensors; tokenizer.json and tokenizer_config.json if there is a
tokenizer.  Names and layouts are those of transformers' LlamaForCausalLM, Qwen3ForCausalLM and
GPT2LMHeadModel; rope is written in both spellings (rope_theta of version 4, rope_parameters of 5).
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from octavo.errors import UnsupportedError
from octavo.model_config import ModelConfig
from octavo.models.gpt import GPT

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_CLASSES = {"llama": "LlamaForCausalLM", "qwen3": "Qwen3ForCausalLM", "gpt2": "GPT2LMHeadModel"}
_ACTIVATIONS = {"silu": "silu", "gelu": "gelu", "gelu_tanh": "gelu_new"}
_OUTSIDE = {"token_embedding": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_BLOCK = {
    "attention_norm": "input_layernorm",
    "attention.query": "self_attn.q_proj",
    "attention.key": "self_attn.k_proj",
    "attention.value": "self_attn.v_proj",
    "attention.output": "self_attn.o_proj",
    "attention.query_norm": "self_attn.q_norm",
    "attention.key_norm": "self_attn.k_norm",
    "feed_forward_norm": "post_attention_layernorm",
    "feed_forward.gate": "mlp.gate_proj",
    "feed_forward.up": "mlp.up_proj",
    "feed_forward.down": "mlp.down_proj",
}
_GPT2_OUTSIDE = {
    "token_embedding": "transformer.wte",
    "position_embedding": "transformer.wpe",
    "output_norm": "transformer.ln_f",
    "output": "lm_head",
}
_GPT2_BLOCK = {
    "attention_norm": "ln_1",
    "attention.query_key_value": "attn.c_attn",
    "attention.output": "attn.c_proj",
    "feed_forward_norm": "ln_2",
    "feed_forward.up": "mlp.c_fc",
    "feed_forward.down": "mlp.c_proj",
}


def save_model(
    model: GPT, folder: Path, tokenizer: Tokenizer | None = None, *, dtype: torch.dtype = torch.float32
) -> None:
    """Write the folder; every file is written aside and renamed, so the folder is never half new.

    Raises UnsupportedError for an architecture that cannot be written.
    """
    from safetensors.torch import save

    config = model.config
    if config.architecture not in _CLASSES:
        raise UnsupportedError(f"saving {config.architecture}: only {', '.join(_CLASSES)} can be written")
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.to(dtype).contiguous() for name, tensor in huggingface_tensors(model).items()}
    write_aside(folder / "model.safetensors", save(tensors, metadata={"format": "pt"}))
    _write_json(folder / "config.json", huggingface_config(config, dtype))
    tokens = _special_ids(config)
    _write_json(folder / "generation_config.json", {"_from_model_config": True, **tokens})
    if tokenizer is not None:
        write_aside(folder / "tokenizer.json", tokenizer.to_str(pretty=True).encode())
        _write_json(folder / "tokenizer_config.json", _tokenizer_config(config, tokenizer))


def huggingface_tensors(model: GPT) -> dict[str, Tensor]:
    """The parameters under Hugging Face's names, in its layouts."""
    state = {name: parameter.detach() for name, parameter in model.named_parameters()}
    if model.config.architecture == "gpt2":
        return _gpt2_tensors(state, model.config)
    return {_huggingface_name(name, _OUTSIDE, _BLOCK, "model.layers"): value for name, value in state.items()}


def _gpt2_tensors(state: Mapping[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """GPT-2's linear layers are stored as [inputs, outputs], query, key and value as one."""
    merged = dict(state)
    for layer in range(config.layers):
        for kind in ("weight", "bias"):
            parts = [
                merged.pop(f"blocks.{layer}.attention.{part}.{kind}") for part in ("query", "key", "value")
            ]
            merged[f"blocks.{layer}.attention.query_key_value.{kind}"] = torch.cat(parts)
    tensors = {}
    for name, value in merged.items():
        matrix = name.startswith("blocks.") and value.dim() == 2
        renamed = _huggingface_name(name, _GPT2_OUTSIDE, _GPT2_BLOCK, "transformer.h")
        tensors[renamed] = value.T if matrix else value
    return tensors


def _huggingface_name(name: str, outside: Mapping[str, str], block: Mapping[str, str], layers: str) -> str:
    module, _, kind = name.rpartition(".")
    if not module.startswith("blocks."):
        return f"{outside[module]}.{kind}"
    _, layer, inner = module.split(".", 2)
    return f"{layers}.{layer}.{block[inner]}.{kind}"


def huggingface_config(config: ModelConfig, dtype: torch.dtype = torch.float32) -> dict[str, Any]:
    """The content of config.json."""
    name = str(dtype).removeprefix("torch.")
    common: dict[str, Any] = {
        "architectures": [_CLASSES[config.architecture]],
        "model_type": config.architecture,
        "vocab_size": config.vocabulary_size,
        "tie_word_embeddings": config.tied_embeddings,
        "dtype": name,
        "torch_dtype": name,
        **_special_ids(config),
    }
    if config.architecture == "gpt2":
        return common | {
            "n_positions": config.context_length,
            "n_embd": config.hidden_size,
            "n_layer": config.layers,
            "n_head": config.heads,
            "n_inner": config.feed_forward_size,
            "activation_function": _ACTIVATIONS[config.activation],
            "layer_norm_epsilon": config.norm_epsilon,
            **dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0),
        }
    assert config.rope is not None
    theta = config.rope.theta
    return common | {
        "hidden_size": config.hidden_size,
        "intermediate_size": config.feed_forward_size,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.key_value_heads,
        "head_dim": config.head_width,
        "hidden_act": _ACTIVATIONS[config.activation],
        "max_position_embeddings": config.context_length,
        "rms_norm_eps": config.norm_epsilon,
        "rope_theta": theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": theta},
        "attention_bias": False,
        "attention_dropout": 0.0,
        "use_cache": True,
        **({"mlp_bias": False} if config.architecture == "llama" else {"use_sliding_window": False}),
    }


def _special_ids(config: ModelConfig) -> dict[str, Any]:
    """transformers has ids of its own as defaults (GPT-2: 50256), so none is said too."""
    end = config.end_tokens[0] if config.end_tokens else None
    return {"bos_token_id": config.beginning_token, "eos_token_id": end, "pad_token_id": None}


def _tokenizer_config(config: ModelConfig, tokenizer: Tokenizer) -> dict[str, Any]:
    def text(token: int | None) -> str | None:
        return None if token is None else tokenizer.id_to_token(token)

    end = text(config.end_tokens[0] if config.end_tokens else None)
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": config.context_length,
        "bos_token": text(config.beginning_token),
        "eos_token": end,
        "add_bos_token": config.add_beginning_token,
        "add_eos_token": False,
        "clean_up_tokenization_spaces": False,
    }


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    write_aside(path, (json.dumps(content, indent=2) + "\n").encode())


def write_aside(path: Path, content: bytes) -> None:
    """The whole file or the one before."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
