"""Tiny seeded models of every architecture, by transformers, and what octavo makes of them.

Their weights are spread much wider than at a real initialization, so that attention, rope, windows, caps and
biases all matter to the logits, and a mistake in any of them shows.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from octavo.model_config import ModelConfig, RopeConfig

SIZES: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
}
LLAMA = ModelConfig(
    architecture="llama",
    vocabulary_size=96,
    context_length=128,
    hidden_size=32,
    layers=2,
    heads=4,
    key_value_heads=2,
    head_width=8,
    feed_forward_size=64,
    norm_epsilon=1e-6,
    rope=RopeConfig(theta=10000.0, width=8),
    attention_scale=8**-0.5,
    tied_embeddings=False,
)
WIDE_HEADS = replace(LLAMA, head_width=16, attention_scale=16**-0.5, rope=RopeConfig(theta=10000.0, width=16))
GEMMA = replace(
    WIDE_HEADS,
    norm_offset=1.0,
    norm_position="both",
    activation="gelu_tanh",
    attention_scale=256**-0.5,
    embedding_scale=math.sqrt(32),
    tied_embeddings=True,
)
LLAMA_3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 5e5,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
LONG_ROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "partial_rotary_factor": 0.5,
    "short_factor": [1.5, 3.0],
    "long_factor": [2.0, 4.0],
    "original_max_position_embeddings": 64,
}


def llama_3_divisors(width: int) -> tuple[float, ...]:
    """Llama 3.1's scaling as divisors: long waves are slowed by `factor`, short ones not, blended between."""
    divisors = []
    for pair in range(width // 2):
        turns = 64 * 5e5 ** (-2 * pair / width) / (2 * math.pi)  # within the original context
        blend = min(max((turns - 1.0) / (4.0 - 1.0), 0.0), 1.0)
        divisors.append(1 / ((1 - blend) / 8.0 + blend))
    return tuple(divisors)


@dataclass(frozen=True)
class Architecture:
    """How transformers names and configures it, and the ModelConfig that says the same."""

    family: str  # transformers' classes are <family>Config and <family><head>
    options: Mapping[str, Any]
    config: ModelConfig
    head: str = "ForCausalLM"


ARCHITECTURES = {
    "llama": Architecture("Llama", SIZES, LLAMA),
    "llama3": Architecture(
        "Llama",
        {**SIZES, "rope_parameters": LLAMA_3_ROPE, "tie_word_embeddings": True},
        replace(LLAMA, rope=RopeConfig(5e5, 8, divisors=llama_3_divisors(8)), tied_embeddings=True),
    ),
    "llama-biases": Architecture("Llama", {**SIZES, "attention_bias": True, "mlp_bias": True}, LLAMA),
    "mistral": Architecture("Mistral", {**SIZES, "sliding_window": 16}, replace(LLAMA, windows=(16, 16))),
    "qwen2": Architecture("Qwen2", SIZES, replace(LLAMA, architecture="qwen2")),
    "qwen3": Architecture(
        "Qwen3", {**SIZES, "head_dim": 16}, replace(WIDE_HEADS, architecture="qwen3", query_key_norm=True)
    ),
    "gemma2": Architecture(
        "Gemma2",
        {
            **SIZES,
            "head_dim": 16,
            "sliding_window": 16,
            "attn_logit_softcapping": 2.0,
            "final_logit_softcapping": 30.0,
        },
        replace(GEMMA, architecture="gemma2", windows=(16, 0), attention_softcap=2.0, logit_softcap=30.0),
    ),
    "gemma3": Architecture(
        "Gemma3",
        {**SIZES, "head_dim": 16, "sliding_window": 16, "num_hidden_layers": 7},
        replace(
            GEMMA,
            architecture="gemma3",
            layers=7,
            query_key_norm=True,
            windows=(16,) * 5 + (0, 16),
            rope=RopeConfig(1e6, 16),
            window_rope=RopeConfig(10000.0, 16),
        ),
    ),
    "phi3": Architecture(
        "Phi3", {**SIZES, "pad_token_id": 0}, replace(LLAMA, architecture="phi3", norm_epsilon=1e-5)
    ),
    "phi3-longrope": Architecture(
        "Phi3",
        {**SIZES, "pad_token_id": 0, "rope_parameters": LONG_ROPE, "original_max_position_embeddings": 64},
        replace(
            LLAMA,
            architecture="phi3",
            norm_epsilon=1e-5,
            rope=RopeConfig(
                10000.0, 4, divisors=(1.5, 3.0), attention_factor=math.sqrt(1 + math.log(2) / math.log(64))
            ),
        ),
    ),
    "gpt2": Architecture(
        "GPT2",
        {"vocab_size": 96, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64},
        replace(
            LLAMA,
            architecture="gpt2",
            context_length=64,
            key_value_heads=4,
            feed_forward_size=128,
            norm="layer",
            norm_epsilon=1e-5,
            activation="gelu_tanh",
            gated=False,
            rope=None,
            learned_positions=64,
            tied_embeddings=True,
        ),
        head="LMHeadModel",
    ),
    "bert": Architecture(
        "Bert",
        {**{k: v for k, v in SIZES.items() if k != "num_key_value_heads"}, "max_position_embeddings": 64},
        replace(
            LLAMA,
            architecture="bert",
            context_length=64,
            key_value_heads=4,
            norm="layer",
            norm_epsilon=1e-12,
            norm_position="post",
            activation="gelu",
            gated=False,
            rope=None,
            learned_positions=64,
            token_types=2,
            causal=False,
            embedding_norm=True,
            pooling="mean",
            normalize_embeddings=True,
            tied_embeddings=True,
        ),
        head="Model",
    ),
}

# Parts of transformers' names -> parts of GGUF's, tried in order.
NAMES = [
    (r"^(model|transformer|encoder)\.(layers|h|layer)\.", "blk."),
    (r"^model\.embed_tokens|^transformer\.wte|^embeddings\.word_embeddings", "token_embd"),
    (r"^transformer\.wpe|^embeddings\.position_embeddings", "position_embd"),
    (r"^embeddings\.token_type_embeddings", "token_types"),
    (r"^embeddings\.LayerNorm", "token_embd_norm"),
    (r"^model\.norm|^transformer\.ln_f", "output_norm"),
    (r"^lm_head", "output"),
    (r"\.(input_layernorm|ln_1)\.", ".attn_norm."),
    (r"\.pre_feedforward_layernorm\.|\.ln_2\.", ".ffn_norm."),
    (r"\.post_feedforward_layernorm\.", ".post_ffw_norm."),
    (r"\.attention\.output\.LayerNorm\.", ".attn_output_norm."),
    (r"(blk\.\d+)\.output\.LayerNorm\.", r"\1.layer_output_norm."),
    (r"\.self_attn\.([qkv])_proj\.", r".attn_\1."),
    (r"\.self_attn\.([qk])_norm\.", r".attn_\1_norm."),
    (r"\.attention\.self\.([qkv])(uery|ey|alue)\.", r".attn_\1."),
    (r"\.self_attn\.qkv_proj\.|\.attn\.c_attn\.", ".attn_qkv."),
    (r"\.self_attn\.o_proj\.|\.attn\.c_proj\.|\.attention\.output\.dense\.", ".attn_output."),
    (r"\.mlp\.gate_proj\.", ".ffn_gate."),
    (r"\.mlp\.(up_proj|gate_up_proj|c_fc)\.|\.intermediate\.dense\.", ".ffn_up."),
    (r"\.mlp\.(down_proj|c_proj)\.|(?<=\d)\.output\.dense\.", ".ffn_down."),
]


def gguf_name(name: str, architecture: str) -> str:
    """GGUF's name for a tensor of transformers."""
    gemma = architecture.startswith("gemma")
    after = "post_attention_norm" if gemma else "ffn_norm"
    name = name.replace("post_attention_layernorm", after)
    for pattern, replacement in NAMES:
        name = re.sub(pattern, replacement, name)
    return name


def gguf_tensors(model: Any, architecture: str) -> dict[str, NDArray[np.float32]]:
    """A transformers model's weights under GGUF's names; GPT-2's [in, out] matrices transposed."""
    tensors = {}
    for name, tensor in model.state_dict().items():
        if name.startswith("pooler") or (name == "lm_head.weight" and model.config.tie_word_embeddings):
            continue
        array = tensor.detach().numpy()
        transposed = array.ndim == 2 and (".c_" in name)
        tensors[gguf_name(name, architecture)] = array.T if transposed else array
    return tensors


def spread_weights(model: Any) -> None:
    """Random weights, wide enough that every part of the model matters, and no bias or norm is trivial."""
    import torch

    generator = torch.Generator().manual_seed(7)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        matrix = parameter.ndim == 2
        with torch.no_grad():
            if matrix:
                is_embedding = any(part in name for part in ("embed", "wte", "wpe"))
                fan_in = parameter.shape[0] if ".c_" in name else parameter.shape[1]
                parameter.copy_(noise * (0.5 if is_embedding else 1.5 / math.sqrt(fan_in)))
            else:
                parameter.add_(0.3 * noise)


@pytest.fixture(scope="session")
def architectures() -> Mapping[str, Architecture]:
    return ARCHITECTURES


@pytest.fixture(scope="session")
def transformers_model() -> Callable[[str], Any]:
    """Makes transformers' tiny seeded model of an entry of ARCHITECTURES."""
    transformers = pytest.importorskip("transformers")

    def make(name: str) -> Any:
        import torch

        entry = ARCHITECTURES[name]
        config_class = getattr(
            transformers, entry.family + ("TextConfig" if entry.family == "Gemma3" else "Config")
        )
        config = config_class(**entry.options, attn_implementation="eager")
        torch.manual_seed(1)
        model = getattr(transformers, entry.family + entry.head)(config).eval()
        spread_weights(model)
        return model

    return make


@pytest.fixture(scope="session")
def to_gguf() -> Callable[[Any, str], dict[str, NDArray[np.float32]]]:
    return gguf_tensors
