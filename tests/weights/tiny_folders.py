"""Tiny seeded models of every architecture, saved as folders by transformers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SIZES: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 5e5,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 1e4,
    "short_factor": [1.0, 1.5, 2.0],
    "long_factor": [2.0, 3.0, 4.0],
    "partial_rotary_factor": 0.75,
}
SEVEN = {**SIZES, "num_hidden_layers": 7}
LINEAR = {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0}

# case -> model class, configuration class, keys of the configuration
MODELS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "llama": ("LlamaForCausalLM", "LlamaConfig", SIZES),
    "llama 3": ("LlamaForCausalLM", "LlamaConfig", {**SIZES, "head_dim": 16, "rope_parameters": LLAMA3}),
    "llama biased": ("LlamaForCausalLM", "LlamaConfig", {**SIZES, "attention_bias": True, "mlp_bias": True}),
    "llama tied": ("LlamaForCausalLM", "LlamaConfig", {**SIZES, "tie_word_embeddings": True}),
    "mistral": ("MistralForCausalLM", "MistralConfig", {**SIZES, "head_dim": 16, "sliding_window": 24}),
    "qwen2": ("Qwen2ForCausalLM", "Qwen2Config", SIZES),
    "qwen2 windows": (
        "Qwen2ForCausalLM",
        "Qwen2Config",
        {**SIZES, "use_sliding_window": True, "sliding_window": 24, "max_window_layers": 1},
    ),
    "qwen3": ("Qwen3ForCausalLM", "Qwen3Config", {**SIZES, "head_dim": 16}),
    "gemma2": ("Gemma2ForCausalLM", "Gemma2Config", {**SIZES, "head_dim": 16, "sliding_window": 24}),
    "gemma3": (
        "Gemma3ForCausalLM",
        "Gemma3TextConfig",
        {**SEVEN, "head_dim": 16, "sliding_window": 24, "query_pre_attn_scalar": 64}
        | {
            "rope_parameters": {
                "full_attention": LINEAR,
                "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
            }
        },
    ),
    "gpt2": (
        "GPT2LMHeadModel",
        "GPT2Config",
        {"vocab_size": 96, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64},
    ),
    "phi3": ("Phi3ForCausalLM", "Phi3Config", {**SIZES, "pad_token_id": 0, "sliding_window": 24}),
    "phi3 longrope": (
        "Phi3ForCausalLM",
        "Phi3Config",
        {**SIZES, "pad_token_id": 0, "original_max_position_embeddings": 64, "rope_parameters": LONGROPE},
    ),
    "bert": (
        "BertModel",
        "BertConfig",
        {key: SIZES[key] for key in SIZES if key != "num_key_value_heads"},
    ),
}

# make(case, **more) saves a seeded model as a folder; the folder and the model.
Maker = Callable[..., tuple[Path, Any]]


def save_folder(folder: Path, case: str, **more: Any) -> Any:
    """The model of MODELS[case], with `more` in its configuration, saved in `folder`."""
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    torch = pytest.importorskip("torch", reason="torch is not installed")
    model_name, config_name, values = MODELS[case]
    torch.manual_seed(3)
    config = getattr(transformers, config_name)(**{**values, "eos_token_id": 2, "bos_token_id": 1, **more})
    model = getattr(transformers, model_name)(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # norms of all ones would hide a mistake
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    return model


def edit_json(path: Path, **changes: object) -> None:
    """Changes keys of a JSON file; None takes a key away."""
    values = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in values.items() if value is not None}))
