"""From the metadata of a GGUF file to a ModelConfig.

Keys and their defaults follow the GGUF specification and what llama.cpp writes and assumes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from octavo.errors import UnsupportedError
from octavo.model_config import ModelConfig, RopeConfig
from octavo.weights import rope_scaling
from octavo.weights.architectures import Architecture, complete_config, supported
from octavo.weights.gguf import GgufFile
from octavo.weights.tensor import Tensor
from octavo.weights.untrusted import Fields

# Layers in turn of which the last attends to everything and the others through the window.
_WINDOW_PERIODS = {"gemma2": 2, "gemma3": 6}
_GEMMA3_WINDOW_THETA = 10_000.0
# Models whose queries are scaled by hidden/heads and not by the head's width: the 27B ones, which GGUF files
# tell apart by their number of layers only.
_SCALED_BY_HIDDEN = {"gemma2": 46, "gemma3": 62}
_CONTROL_TOKEN = 3
# Tokens that end a turn or a text whatever the metadata names as the end.
_END_TEXTS = frozenset(
    ("<|eot_id|>", "<|eom_id|>", "<|end_of_text|>", "<|im_end|>", "<|end|>", "<|endoftext|>")
    + ("<end_of_turn>", "<EOT>", "<end_of_utterance>")
)
# Tensors that are part of the configuration, or that only old files have.
CONSUMED = frozenset({"rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight"})


def gguf_config(file: GgufFile, *, long_context: bool = False) -> ModelConfig:
    """The configuration of a GGUF model.

    long_context: take the long factors of a LongRoPE model and its whole context, see `open_checkpoint`.
    Raises FormatError that names the key, UnsupportedError for an architecture or option not supported.
    """
    where = str(file.path)
    architecture = Fields(file.metadata, where).text("general.architecture")
    known = supported(where, architecture)
    fields = Fields(file.metadata, where, f"{architecture}.")
    if fields.integer("expert_count", 0, least=0):
        raise UnsupportedError(f"{where}: {architecture} with a mixture of experts is not supported")

    hidden = fields.integer("embedding_length")
    heads = _same_in_all_layers(fields, "attention.head_count")
    head_width = fields.head_width("attention.key_length", hidden, heads)
    if fields.integer("attention.value_length", head_width) != head_width:
        raise UnsupportedError(f"{where}: heads whose keys and values differ in width are not supported")
    epsilon = "layer_norm_epsilon" if known.norm == "layer" else "layer_norm_rms_epsilon"
    context = fields.integer("context_length")
    layers = fields.integer("block_count", most=1 << 10)
    rope, context = _rope(fields, known, file.tensors, head_width, context, long_context)
    config = complete_config(
        where,
        architecture,
        vocabulary_size=_vocabulary_size(file, fields),
        context_length=context,
        hidden_size=hidden,
        layers=layers,
        heads=heads,
        key_value_heads=_same_in_all_layers(fields, "attention.head_count_kv", heads),
        head_width=head_width,
        feed_forward_size=_same_in_all_layers(fields, "feed_forward_length"),
        norm_epsilon=fields.number(f"attention.{epsilon}"),
        rope=rope,
        window_rope=_window_rope(fields, rope) if architecture == "gemma3" else None,
        learned_positions=0 if known.rotary else context,
        token_types=_rows(file.tensors, "token_types.weight") if architecture == "bert" else 0,
        attention_scale=_attention_scale(fields, architecture, layers, head_width, hidden / heads),
        attention_softcap=fields.number("attn_logit_softcapping", 50.0) if architecture == "gemma2" else 0.0,
        logit_softcap=_logit_softcap(fields, architecture),
        embedding_scale=float(np.sqrt(hidden)) if architecture in _WINDOW_PERIODS else 1.0,
        tied_embeddings="output.weight" not in file.tensors,
        pooling=_pooling(fields) if architecture == "bert" else "",
        # GGUF does not say it; every embedding model of this kind is used with vectors of length 1.
        normalize_embeddings=architecture == "bert",
    )
    config = replace(config, windows=_windows(fields, config))
    return _with_tokens(Fields(file.metadata, where, "tokenizer.ggml."), config)


def _same_in_all_layers(fields: Fields, name: str, default: int | None = None) -> int:
    """A number that files may give once or for each layer."""
    value = fields.get(name)
    if isinstance(value, np.ndarray) and value.size:
        if (value != value[0]).any():
            raise UnsupportedError(f"{fields.where}: {fields.prefix}{name}: layers of different sizes")
        fields = Fields({name: value[0].item()}, fields.where)
    return fields.integer(name, default)


def _rows(tensors: Mapping[str, Tensor], name: str) -> int:
    tensor = tensors.get(name)
    return tensor.shape[0] if tensor is not None and len(tensor.shape) == 2 else 0


def _vocabulary_size(file: GgufFile, fields: Fields) -> int:
    """The rows of the embedding, which must be as many as the tokens that the file names."""
    size = _rows(file.tensors, "token_embd.weight")
    if not size:
        raise Fields({}, fields.where).fail("tensor token_embd.weight", "is missing or no matrix")
    tokens = file.metadata.get("tokenizer.ggml.tokens")
    if tokens is not None and (not hasattr(tokens, "__len__") or len(tokens) != size):
        raise Fields({}, fields.where).fail(
            "tokenizer.ggml.tokens", f"are not {size}, the rows of token_embd"
        )
    return size


def _attention_scale(
    fields: Fields, architecture: str, layers: int, head_width: int, per_head: float
) -> float:
    width = per_head if _SCALED_BY_HIDDEN.get(architecture) == layers else head_width
    return fields.number("attention.scale", 0.0, positive=False) or float(width**-0.5)


def _logit_softcap(fields: Fields, architecture: str) -> float:
    default = 30.0 if architecture == "gemma2" else 0.0
    return fields.number("final_logit_softcapping", default, positive=False)


def _pooling(fields: Fields) -> str:
    """llama.cpp's numbers: 0 none, 1 mean, 2 cls, 3 last token, 4 rank."""
    number = fields.integer("pooling_type", 1, least=0)
    if number not in (0, 1, 2):
        raise UnsupportedError(f"{fields.where}: {fields.prefix}pooling_type {number}; supported: mean, cls")
    return ("", "mean", "cls")[number]


def _windows(fields: Fields, config: ModelConfig) -> tuple[int, ...]:
    default = 4096 if config.architecture == "gemma2" else 0
    window = fields.integer("attention.sliding_window", default, least=0, most=1 << 32)
    # Without a rope of their own, layers that see the whole context anyway are full attention.
    if not window or (window >= config.context_length and config.window_rope is None):
        return ()
    pattern = fields.get("attention.sliding_window_pattern")
    if isinstance(pattern, (list, np.ndarray)):
        if len(pattern) != config.layers:
            raise fields.fail(
                "attention.sliding_window_pattern", f"must have one entry for {config.layers} layers"
            )
        return tuple(window if slides else 0 for slides in pattern)
    period = fields.integer(
        "attention.sliding_window_pattern", _WINDOW_PERIODS.get(config.architecture, 0), least=0
    )
    return tuple(0 if period and layer % period == period - 1 else window for layer in range(config.layers))


def _window_rope(fields: Fields, rope: RopeConfig | None) -> RopeConfig | None:
    """Gemma 3's layers with a window: a theta of their own, and never scaled."""
    if rope is None:
        return None
    theta = fields.number("rope.freq_base_swa", _GEMMA3_WINDOW_THETA)
    return RopeConfig(theta=theta, width=rope.width, style=rope.style)


def _rope(
    fields: Fields,
    known: Architecture,
    tensors: Mapping[str, Tensor],
    head_width: int,
    context: int,
    long_context: bool,
) -> tuple[RopeConfig | None, int]:
    """The rotary embedding, and the context length for which it is right."""
    if not known.rotary:
        return None, context
    architecture = fields.prefix.rstrip(".")
    rope = RopeConfig(
        theta=fields.number("rope.freq_base", 1e6 if architecture == "gemma3" else 10_000.0),
        width=fields.integer("rope.dimension_count", head_width),
        # llama.cpp permutes the rows of q and k of the llama architecture for it.
        style="interleaved" if architecture == "llama" else "half",
    )
    original = fields.integer("rope.scaling.original_context_length", context)
    if "rope_factors_short.weight" in tensors and "rope_factors_long.weight" in tensors:
        chosen = "long" if long_context else "short"
        ratio = context / original
        factor = fields.number(
            "rope.scaling.attn_factor",
            rope_scaling.longrope_attention_factor(ratio, original) if original > 1 else 1.0,
        )
        divisors = _factors(fields, tensors[f"rope_factors_{chosen}.weight"], rope.width)
        rope = replace(rope, divisors=divisors, attention_factor=factor)
        return rope, context if long_context else min(context, original)
    if "rope_freqs.weight" in tensors:
        return replace(rope, divisors=_factors(fields, tensors["rope_freqs.weight"], rope.width)), context
    return _scaled(fields, rope, original), context


def _factors(fields: Fields, tensor: Tensor, width: int) -> tuple[float, ...]:
    if tensor.shape != (width // 2,):
        raise Fields({}, fields.where).fail(
            f"tensor {tensor.name}", f"has {tensor.shape} factors, not {width // 2}"
        )
    return Fields({tensor.name: tensor.numpy()}, fields.where).numbers(tensor.name, width // 2)


def _scaled(fields: Fields, rope: RopeConfig, original: int) -> RopeConfig:
    kind = fields.text("rope.scaling.type", "linear")
    factor = (
        fields.number("rope.scaling.factor", fields.number("rope.scale_linear", 1.0), positive=False) or 1.0
    )
    if kind == "none" or factor == 1.0:
        return rope
    if factor < 0:
        raise fields.fail("rope.scaling.factor", f"is {factor}; it must be greater than 0")
    if kind == "linear":
        return replace(rope, divisors=rope_scaling.linear_divisors(rope.width, factor))
    if kind == "yarn":
        divisors = rope_scaling.yarn_divisors(
            rope.theta, rope.width, factor=factor, original_context=original
        )
        return replace(rope, divisors=divisors, attention_factor=rope_scaling.yarn_attention_factor(factor))
    raise UnsupportedError(
        f"{fields.where}: {fields.prefix}rope.scaling.type {kind!r}; supported: none, linear, yarn, longrope"
    )


def _with_tokens(fields: Fields, config: ModelConfig) -> ModelConfig:
    """The special tokens of `tokenizer.ggml.*`."""
    last = config.vocabulary_size - 1

    def token(name: str) -> int | None:
        number = fields.integer(name, -1, least=-1, most=last)
        return None if number < 0 else number

    ends = {token(name) for name in ("eos_token_id", "eot_token_id", "eom_token_id")}
    ends |= set(_control_tokens(fields.get("tokens"), fields.get("token_type"), last))
    by_default = fields.text("model", "") in ("llama", "bert") or fields.text("pre", "") in (
        "llama-bpe",
        "llama3",
    )
    beginning = token("bos_token_id")
    if beginning is None and config.architecture == "bert":
        beginning = token("cls_token_id")
    return replace(
        config,
        beginning_token=beginning,
        end_tokens=tuple(sorted(end for end in ends if end is not None)),
        add_beginning_token=fields.flag("add_bos_token", by_default) and beginning is not None,
    )


def _control_tokens(tokens: object, kinds: object, last: int) -> list[int]:
    """The control tokens whose text ends a turn or a text."""
    if (
        not isinstance(kinds, np.ndarray)
        or not hasattr(tokens, "__getitem__")
        or not hasattr(tokens, "__len__")
    ):
        return []
    candidates = np.flatnonzero(kinds[: min(len(tokens), last + 1)] == _CONTROL_TOKEN)
    return [int(index) for index in candidates if tokens[int(index)] in _END_TEXTS]


def gguf_name(file: GgufFile) -> str:
    """What the model calls itself, or its file's name."""
    name = file.metadata.get("general.name")
    return name if isinstance(name, str) and name else Path(file.path).stem
