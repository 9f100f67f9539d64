"""What octavo knows of each architecture: fixed choices, the tensors it has, Hugging Face's names of them.

Sizes come from the file (`gguf_config.py`, `huggingface_config.py`); everything that only the architecture's
name says is in the table here.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from octavo.errors import FormatError, UnsupportedError
from octavo.model_config import ARCHITECTURES, ModelConfig, RopeConfig
from octavo.weights.tensor import Tensor

_ATTENTION = ("attn_q", "attn_k", "attn_v", "attn_qkv")
_LINEAR = (*_ATTENTION, "attn_output", "ffn_gate", "ffn_up", "ffn_down")


@dataclass(frozen=True, slots=True)
class Architecture:
    """The choices that an architecture's name implies; the fields are those of ModelConfig.

    required_biases, optional_biases: linear layers that have, or may have, a bias.
    fused_attention: query, key and value are one tensor, attn_qkv, when a file has neither form.
    fused_gate: ffn_up holds the rows of the gate and then those of the up projection.
    """

    norm: Literal["rms", "layer"] = "rms"
    norm_position: Literal["pre", "post", "both"] = "pre"
    activation: Literal["silu", "gelu", "gelu_tanh"] = "silu"
    gated: bool = True
    query_key_norm: bool = False
    embedding_norm: bool = False
    causal: bool = True
    rotary: bool = True
    required_biases: tuple[str, ...] = ()
    optional_biases: tuple[str, ...] = ()
    fused_attention: bool = False
    fused_gate: bool = False


TABLE: Mapping[str, Architecture] = {
    "llama": Architecture(optional_biases=_LINEAR),
    "qwen2": Architecture(required_biases=_ATTENTION),
    "qwen3": Architecture(query_key_norm=True, optional_biases=(*_ATTENTION, "attn_output")),
    "gemma2": Architecture(norm_position="both", activation="gelu_tanh"),
    "gemma3": Architecture(norm_position="both", activation="gelu_tanh", query_key_norm=True),
    "gpt2": Architecture(
        norm="layer",
        activation="gelu_tanh",
        gated=False,
        rotary=False,
        required_biases=_LINEAR,
        fused_attention=True,
    ),
    "phi3": Architecture(fused_attention=True, fused_gate=True),
    "bert": Architecture(
        norm="layer",
        norm_position="post",
        activation="gelu",
        gated=False,
        embedding_norm=True,
        causal=False,
        rotary=False,
        required_biases=_LINEAR,
    ),
}
assert set(TABLE) == set(ARCHITECTURES)

# The size of a head and of the embedding are what kernels are written for; a file may not ask for more.
_LIMITS = {
    "vocabulary_size": 1 << 24,
    "context_length": 1 << 27,
    "hidden_size": 1 << 18,
    "layers": 1 << 10,
    "heads": 1 << 12,
    "key_value_heads": 1 << 12,
    "head_width": 1 << 12,
    "feed_forward_size": 1 << 20,
}


def supported(where: str, architecture: str) -> Architecture:
    """The table's entry.  Raises UnsupportedError that names the architecture and lists the others."""
    if architecture not in TABLE:
        raise UnsupportedError(
            f"{where}: the architecture {architecture!r} is not supported; supported: "
            + ", ".join(ARCHITECTURES)
        )
    return TABLE[architecture]


def complete_config(where: str, architecture: str, **values: Any) -> ModelConfig:
    """A ModelConfig of what the file says (`values`) and what the architecture implies, checked for sense."""
    known = supported(where, architecture)
    implied = {
        name: getattr(known, name)
        for name in ("norm", "norm_position", "gated", "query_key_norm", "embedding_norm", "causal")
    }
    config = ModelConfig(architecture=architecture, **{**implied, "activation": known.activation, **values})
    for name, limit in _LIMITS.items():
        if not 1 <= getattr(config, name) <= limit:
            raise FormatError(f"{where}: {name}: {getattr(config, name)}; 1 to {limit} are possible")
    if config.heads % config.key_value_heads:
        raise FormatError(
            f"{where}: {config.key_value_heads} key-value heads do not divide {config.heads} query heads"
        )
    for rope in (config.rope, config.window_rope):
        if rope is not None:
            _check_rope(where, rope, config.head_width)
    return config


def _check_rope(where: str, rope: RopeConfig, head_width: int) -> None:
    if rope.width % 2 or not 2 <= rope.width <= head_width:
        raise FormatError(
            f"{where}: rope width: {rope.width}; it must be even and at most {head_width}, the head"
        )
    if rope.divisors and len(rope.divisors) != rope.width // 2:
        raise FormatError(f"{where}: rope factors: {len(rope.divisors)}, where {rope.width // 2} are needed")


Shape = tuple[int, ...]


def expected_tensors(config: ModelConfig, present: Container[str]) -> Iterator[tuple[str, Shape, bool]]:
    """Name, shape and whether it is required, for every tensor that a model of `config` can have.

    present: names that the file has; it decides between a fused attn_qkv and separate attn_q, attn_k, attn_v.
    """
    hidden = (config.hidden_size,)
    yield "token_embd.weight", (config.vocabulary_size, *hidden), True
    if config.learned_positions:
        yield "position_embd.weight", (config.learned_positions, *hidden), True
    if config.token_types:
        yield "token_types.weight", (config.token_types, *hidden), True
    if config.embedding_norm:
        yield from _norm(config, "token_embd_norm")
    for layer in range(config.layers):
        yield from _block(config, f"blk.{layer}.", present)
    if config.norm_position != "post":
        yield from _norm(config, "output_norm")
    if not config.tied_embeddings:
        yield "output.weight", (config.vocabulary_size, *hidden), True


def _norm(config: ModelConfig, name: str) -> Iterator[tuple[str, Shape, bool]]:
    yield f"{name}.weight", (config.hidden_size,), True
    if config.norm == "layer":
        yield f"{name}.bias", (config.hidden_size,), True


def _block(config: ModelConfig, prefix: str, present: Container[str]) -> Iterator[tuple[str, Shape, bool]]:
    known = TABLE[config.architecture]
    hidden, inner = config.hidden_size, config.feed_forward_size
    queries = config.heads * config.head_width
    keys = config.key_value_heads * config.head_width
    norms = {
        "pre": ("attn_norm", "ffn_norm"),
        "post": ("attn_output_norm", "layer_output_norm"),
        "both": ("attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm"),
    }[config.norm_position]
    for norm in norms:
        yield from _norm(config, prefix + norm)

    linears = {"attn_output": (hidden, queries), "ffn_down": (hidden, inner)}
    has_split = prefix + "attn_q.weight" in present
    if prefix + "attn_qkv.weight" in present or (known.fused_attention and not has_split):
        linears["attn_qkv"] = (queries + 2 * keys, hidden)
    else:
        linears |= {"attn_q": (queries, hidden), "attn_k": (keys, hidden), "attn_v": (keys, hidden)}
    if known.fused_gate:
        linears["ffn_up"] = (2 * inner, hidden)
    else:
        linears |= {"ffn_gate": (inner, hidden)} if config.gated else {}
        linears["ffn_up"] = (inner, hidden)
    for name, shape in linears.items():
        yield f"{prefix}{name}.weight", shape, True
        if name in known.required_biases or name in known.optional_biases:
            yield f"{prefix}{name}.bias", shape[:1], name in known.required_biases
    if config.query_key_norm:
        yield f"{prefix}attn_q_norm.weight", (config.head_width,), True
        yield f"{prefix}attn_k_norm.weight", (config.head_width,), True


def check_tensors(where: str, config: ModelConfig, tensors: Mapping[str, Tensor]) -> None:
    """Raises FormatError that names the first tensor that is missing, misshapen or foreign."""
    known = set()
    for name, shape, required in expected_tensors(config, tensors):
        known.add(name)
        if name not in tensors:
            if required:
                raise FormatError(f"{where}: tensor {name} is missing; {config.architecture} needs it")
        elif tensors[name].shape != shape:
            raise FormatError(f"{where}: tensor {name} has the shape {tensors[name].shape}, and not {shape}")
    for name in tensors:
        if name not in known:
            raise FormatError(
                f"{where}: tensor {name} is not known; {config.architecture} would be wrong without it"
            )


# Hugging Face's names -> ours, after the outer prefixes are gone.

_PREFIXES = ("language_model.", "model.", "transformer.", "bert.")
_LLAMA_BLOCK = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.qkv_proj": "attn_qkv",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.gate_up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_GEMMA_BLOCK = _LLAMA_BLOCK | {
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}
_GPT2_BLOCK = {
    "ln_1": "attn_norm",
    "attn.c_attn": "attn_qkv",
    "attn.c_proj": "attn_output",
    "ln_2": "ffn_norm",
    "mlp.c_fc": "ffn_up",
    "mlp.c_proj": "ffn_down",
}
_BERT_BLOCK = {
    "attention.self.query": "attn_q",
    "attention.self.key": "attn_k",
    "attention.self.value": "attn_v",
    "attention.output.dense": "attn_output",
    "attention.output.LayerNorm": "attn_output_norm",
    "intermediate.dense": "ffn_up",
    "output.dense": "ffn_down",
    "output.LayerNorm": "layer_output_norm",
}
_OUTER = {
    "embed_tokens": "token_embd",
    "norm": "output_norm",
    "lm_head": "output",
    "wte": "token_embd",
    "wpe": "position_embd",
    "ln_f": "output_norm",
    "embeddings.word_embeddings": "token_embd",
    "embeddings.position_embeddings": "position_embd",
    "embeddings.token_type_embeddings": "token_types",
    "embeddings.LayerNorm": "token_embd_norm",
}
_BLOCKS = {"gpt2": _GPT2_BLOCK, "bert": _BERT_BLOCK, "gemma2": _GEMMA_BLOCK, "gemma3": _GEMMA_BLOCK}
_BLOCK_NAME = re.compile(r"(?:layers|h|encoder\.layer)\.(\d{1,4})\.(.+)")
# Buffers that are computed, heads for other tasks, and the vision half of Gemma 3.
_NOT_NEEDED = re.compile(
    r"(.*\.)?rotary_emb\.inv_freq|embeddings\.position_ids|h\.\d+\.attn\.(masked_)?bias|(pooler|cls)\..*"
    r"|(vision_tower|multi_modal_projector)\..*"
)


def runtime_name(architecture: str, name: str) -> str | None:
    """octavo's name of a tensor that Hugging Face calls `name`; None if running the model does not need it.

    A name that is not known comes back as it is, for `check_tensors` to refuse.
    """
    stem = name
    while stem.startswith(_PREFIXES):
        stem = stem.partition(".")[2]
    if _NOT_NEEDED.fullmatch(stem):
        return None
    stem, _, kind = stem.rpartition(".")
    kind = {"gamma": "weight", "beta": "bias"}.get(kind, kind)  # BERT files from before 2019
    block = _BLOCK_NAME.fullmatch(stem)
    if block is None:
        return f"{_OUTER[stem]}.{kind}" if stem in _OUTER else name
    inner = _BLOCKS.get(architecture, _LLAMA_BLOCK).get(block[2])
    return f"blk.{int(block[1])}.{inner}.{kind}" if inner else name


_MODULE_PREFIX = {"gpt2": "transformer.h"}


def huggingface_module(architecture: str, name: str) -> str:
    """Hugging Face's name, in its causal model, of the linear layer or embedding that octavo calls `name`.

    The inverse of `runtime_name`, for names without .weight: blk.0.attn_q -> model.layers.0.self_attn.q_proj.
    """
    if not name.startswith("blk."):
        outer = {"token_embd": "embed_tokens", "output_norm": "norm"}
        if architecture == "gpt2":
            outer = {"token_embd": "wte", "position_embd": "wpe", "output_norm": "ln_f"}
        prefix = "transformer" if architecture == "gpt2" else "model"
        return f"{prefix}.{outer[name]}" if name in outer else "lm_head"
    _, layer, inner = name.split(".", 2)
    table = {ours: theirs for theirs, ours in _BLOCKS.get(architecture, _LLAMA_BLOCK).items()}
    table |= {} if architecture == "gpt2" else {"ffn_up": "mlp.up_proj"}
    if TABLE[architecture].fused_gate:
        table["ffn_up"] = "mlp.gate_up_proj"
    return f"{_MODULE_PREFIX.get(architecture, 'model.layers')}.{layer}.{table[inner]}"
