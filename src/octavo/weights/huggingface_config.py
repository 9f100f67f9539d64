"""From the JSON files of a Hugging Face model folder to a ModelConfig.

config.json in the forms of transformers 4 (rope_theta, rope_scaling) and 5 (rope_parameters), and beside it
generation_config.json, tokenizer_config.json and sentence-transformers' modules.json.  Defaults are those of
transformers' configuration classes, for keys that published files leave out.  Code that a folder brings along
(auto_map) is never looked at.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

from octavo.errors import FormatError, UnsupportedError
from octavo.model_config import ModelConfig, RopeConfig
from octavo.weights import rope_scaling
from octavo.weights.architectures import TABLE, complete_config, supported
from octavo.weights.untrusted import Fields, parse_json_value, read_bounded, read_json

_ARCHITECTURES = {"mistral": "llama", "gemma3_text": "gemma3"} | {name: name for name in TABLE}
_ACTIVATIONS = {
    **{"silu": "silu", "swish": "silu", "gelu": "gelu"},
    **{"gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh"},
}
_TIED_BY_DEFAULT = ("gemma2", "gemma3", "gpt2", "bert")
_GEMMA = ("gemma2", "gemma3")
# Other names of the same things.
_BERT_NAMES = {"rms_norm_eps": "layer_norm_eps"}
_GPT2_NAMES = {
    "hidden_size": "n_embd",
    "num_hidden_layers": "n_layer",
    "num_attention_heads": "n_head",
    "max_position_embeddings": "n_positions",
    "intermediate_size": "n_inner",
    "rms_norm_eps": "layer_norm_epsilon",
    "hidden_act": "activation_function",
}
# What transformers assumes when config.json is silent (Gemma 3's published files leave most of it out).
_DEFAULTS: Mapping[str, Mapping[str, object]] = {
    "gemma2": {
        "head_dim": 256,
        "sliding_window": 4096,
        "query_pre_attn_scalar": 256,
        "attn_logit_softcapping": 50.0,
        "final_logit_softcapping": 30.0,
        "hidden_act": "gelu_pytorch_tanh",
    },
    "gemma3": {
        "vocab_size": 262_208,
        "max_position_embeddings": 131_072,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "sliding_window": 4096,
        "query_pre_attn_scalar": 256,
        "rope_theta": 1e6,
        "hidden_act": "gelu_pytorch_tanh",
    },
    "qwen3": {"head_dim": 128},
    "phi3": {"rms_norm_eps": 1e-5, "original_max_position_embeddings": 4096},
    "gpt2": {"rms_norm_eps": 1e-5, "hidden_act": "gelu_new"},
    "bert": {"rms_norm_eps": 1e-12, "hidden_act": "gelu", "type_vocab_size": 2},
}
Pooling = Literal["", "mean", "cls"]
# Added tokens come first in tokenizer.json; thousands of them fit into this.
_POST_PROCESSOR_BYTES = 4_000_000
_SCALINGS = "default, linear, llama3, yarn, longrope"


def huggingface_config(folder: Path, *, long_context: bool = False) -> ModelConfig:
    """The configuration of a model folder.

    long_context: take the long factors of a LongRoPE model and its whole context, see `open_checkpoint`.
    Raises FormatError that names file and key, UnsupportedError for an architecture or option not supported.
    """
    path = folder / "config.json"
    outer = read_json(path)
    model_type = Fields(outer, str(path)).text("model_type")
    architecture = _ARCHITECTURES.get(model_type, model_type)
    supported(str(path), architecture)
    fields = _known_fields(path, architecture, outer)
    _refuse_unsupported(fields, outer)

    hidden = fields.integer("hidden_size")
    heads = fields.integer("num_attention_heads")
    head_width = fields.head_width("head_dim", hidden, heads)
    context = fields.integer("max_position_embeddings")
    rotary = TABLE[architecture].rotary
    rope, window_rope, usable = _ropes(fields, architecture, head_width, context, long_context)
    scale = fields.number("query_pre_attn_scalar", float(head_width))
    config = complete_config(
        str(path),
        architecture,
        vocabulary_size=fields.integer("vocab_size"),
        context_length=usable,
        hidden_size=hidden,
        layers=fields.integer("num_hidden_layers", most=1 << 10),
        heads=heads,
        key_value_heads=fields.integer("num_key_value_heads", heads),
        head_width=head_width,
        feed_forward_size=fields.integer("intermediate_size", 4 * hidden),
        norm_epsilon=fields.number("rms_norm_eps", 1e-6),
        norm_offset=1.0 if architecture in _GEMMA else 0.0,
        activation=_activation(fields),
        rope=rope,
        window_rope=window_rope,
        learned_positions=0 if rotary else context,
        token_types=fields.integer("type_vocab_size") if architecture == "bert" else 0,
        attention_scale=scale**-0.5 if architecture in _GEMMA else head_width**-0.5,
        attention_softcap=fields.number("attn_logit_softcapping", 0.0, positive=False),
        logit_softcap=fields.number("final_logit_softcapping", 0.0, positive=False),
        embedding_scale=hidden**0.5 if architecture in _GEMMA else 1.0,
        tied_embeddings=_tied(fields, outer, architecture),
    )
    config = replace(config, windows=_windows(fields, config, model_type))
    if architecture == "bert":
        config = _with_pooling(folder, config)
    return _with_tokens(folder, config, outer, fields)


def _known_fields(path: Path, architecture: str, outer: Mapping[str, object]) -> Fields:
    """The language model's part of config.json under one set of names, with the architecture's defaults."""
    inner = outer.get("text_config", {}) if architecture == "gemma3" else {}
    if not isinstance(inner, dict):
        raise FormatError(f"{path}: text_config: must be an object")
    given = {name: value for name, value in {**outer, **inner}.items() if value is not None}
    others = {"gpt2": _GPT2_NAMES, "bert": _BERT_NAMES}.get(architecture, {})
    given |= {name: given[other] for name, other in others.items() if other in given}
    if "hidden_activation" in given:  # Gemma's name; its hidden_act is a leftover
        given["hidden_act"] = given["hidden_activation"]
    return Fields({**_DEFAULTS.get(architecture, {}), **given}, str(path))


def _refuse_unsupported(fields: Fields, outer: Mapping[str, object]) -> None:
    """Options that change the result and that octavo does not have."""
    quantization = outer.get("quantization_config")
    if quantization is not None:
        method = quantization.get("quant_method") if isinstance(quantization, dict) else None
        raise UnsupportedError(
            f"{fields.where}: quantization_config: weights quantized by {str(method)[:40]}; supported are "
            "F32, F16 and BF16 in safetensors, and quantized GGUF files"
        )
    for name in ("use_bidirectional_attention", "scale_attn_by_inverse_layer_idx", "is_decoder"):
        if fields.get(name) is True:
            raise UnsupportedError(f"{fields.where}: {name}: true is not supported")
    if fields.text("position_embedding_type", "absolute") != "absolute":
        raise UnsupportedError(f"{fields.where}: position_embedding_type: only 'absolute' is supported")


def _activation(fields: Fields) -> str:
    name = fields.text("hidden_act", "silu")
    if name not in _ACTIVATIONS:
        raise UnsupportedError(f"{fields.where}: hidden_act {name!r}; supported: {', '.join(_ACTIVATIONS)}")
    return _ACTIVATIONS[name]


def _tied(fields: Fields, outer: Mapping[str, object], architecture: str) -> bool:
    value = outer.get("tie_word_embeddings")
    if value is not None and not isinstance(value, bool):
        raise fields.fail("tie_word_embeddings", "must be true or false")
    return fields.flag("tie_word_embeddings", architecture in _TIED_BY_DEFAULT) or architecture == "bert"


def _windows(fields: Fields, config: ModelConfig, model_type: str) -> tuple[int, ...]:
    window = fields.integer("sliding_window", 0, least=0, most=1 << 40)
    layers = range(config.layers)
    if model_type in ("qwen2", "qwen3") and not fields.flag("use_sliding_window", False):
        return ()
    # Without a rope of their own, layers that see the whole context anyway are full attention.
    whole = window >= config.context_length and config.window_rope is None
    if model_type in ("llama", "gpt2", "bert") or not window or whole:
        return ()
    kinds = fields.get("layer_types")
    if kinds is not None:
        if not isinstance(kinds, list) or len(kinds) != config.layers:
            raise fields.fail("layer_types", f"must be a list of {config.layers}")
        unknown = [kind for kind in kinds if kind not in ("full_attention", "sliding_attention")]
        if unknown:
            raise UnsupportedError(f"{fields.where}: layer_types: {str(unknown[0])[:40]!r} is not supported")
        return tuple(window if kind == "sliding_attention" else 0 for kind in kinds)
    if model_type in ("qwen2", "qwen3"):
        first = fields.integer("max_window_layers", 28, least=0)
        return tuple(window if layer >= first else 0 for layer in layers)
    default = {"gemma2": 2, "gemma3": 6}.get(config.architecture, 0)
    period = fields.integer("sliding_window_pattern", default, least=0)
    return tuple(0 if period and (layer + 1) % period == 0 else window for layer in layers)


def _ropes(
    fields: Fields, architecture: str, head_width: int, context: int, long_context: bool
) -> tuple[RopeConfig | None, RopeConfig | None, int]:
    """The rotary embedding, that of layers with a window, and the context for which they are right."""
    if not TABLE[architecture].rotary:
        return None, None, context
    parameters = fields.section("rope_parameters")
    base: Mapping[str, object] = {
        "rope_theta": fields.number("rope_theta", 10_000.0),
        "partial_rotary_factor": fields.number("partial_rotary_factor", 1.0),
        "original_max_position_embeddings": fields.get("original_max_position_embeddings"),
    }
    local: Mapping[str, object] = {**base, "rope_theta": fields.number("rope_local_base_freq", 10_000.0)}
    if parameters is None:
        parameters = fields.section("rope_scaling")
    given = dict(parameters.values) if parameters is not None else {}
    if "full_attention" in given and parameters is not None:
        full, sliding = parameters.section("full_attention"), parameters.section("sliding_attention")
        given = dict(full.values) if full is not None else {}
        local = {**local, **(sliding.values if sliding is not None else {})}
    where = f"{fields.where}: rope_parameters"
    rope, usable = _rope(Fields({**base, **given}, where), head_width, context, long_context)
    if architecture != "gemma3":
        return rope, None, usable
    return rope, _rope(Fields(local, where), head_width, context, long_context)[0], usable


def _rope(fields: Fields, head_width: int, context: int, long_context: bool) -> tuple[RopeConfig, int]:
    """One set of rope parameters, and the context for which it is right."""
    theta = fields.number("rope_theta")
    width = int(head_width * fields.number("partial_rotary_factor", 1.0))
    kind = fields.text("rope_type", fields.text("type", "default"))
    original = fields.integer("original_max_position_embeddings", context)
    rope = RopeConfig(theta=theta, width=width)
    if kind == "default":
        return rope, context
    if kind in ("longrope", "su"):
        chosen = "long" if long_context and context > original else "short"
        ratio = fields.number("factor", context / original)
        attention = rope_scaling.longrope_attention_factor(ratio, original) if original > 1 else 1.0
        divisors = fields.numbers(f"{chosen}_factor", width // 2)
        attention = fields.number("attention_factor", attention)
        rope = replace(rope, divisors=divisors, attention_factor=attention)
        return rope, context if chosen == "long" else min(context, original)
    factor = fields.number("factor") if kind in ("linear", "llama3", "yarn") else 1.0
    if kind == "linear":
        return replace(rope, divisors=rope_scaling.linear_divisors(width, factor)), context
    if kind == "llama3":
        low, high = fields.number("low_freq_factor"), fields.number("high_freq_factor")
        divisors = rope_scaling.llama3_divisors(
            theta, width, factor=factor, low=low, high=high, original_context=original
        )
        return replace(rope, divisors=divisors), context
    if kind == "yarn":
        return _yarn(fields, rope, factor, original), context
    raise UnsupportedError(f"{fields.where}: rope_type {kind!r}; supported: {_SCALINGS}")


def _yarn(fields: Fields, rope: RopeConfig, factor: float, original: int) -> RopeConfig:
    divisors = rope_scaling.yarn_divisors(
        rope.theta,
        rope.width,
        factor=factor,
        original_context=original,
        beta_fast=fields.number("beta_fast", 32.0),
        beta_slow=fields.number("beta_slow", 1.0),
        truncate=fields.flag("truncate", True),
    )
    attention = fields.number("attention_factor", rope_scaling.yarn_attention_factor(factor))
    return replace(rope, divisors=divisors, attention_factor=attention)


def _with_pooling(folder: Path, config: ModelConfig) -> ModelConfig:
    """How sentence-transformers makes one vector of a text; of a plain BERT folder it takes the mean."""
    path = folder / "modules.json"
    if not path.exists():
        return replace(config, pooling="mean")
    modules = parse_json_value(read_bounded(path, 1 << 20), str(path))
    if not isinstance(modules, list) or not all(isinstance(module, dict) for module in modules):
        raise FormatError(f"{path}: must be a list of objects")
    pooling: Pooling = ""
    normalize = False
    for module in modules:
        kind = str(module.get("type")).rpartition(".")[2]
        if kind == "Pooling":
            pooling = _pooling(folder, str(module.get("path")))
        elif kind == "Normalize":
            normalize = True
        elif kind != "Transformer":
            raise UnsupportedError(
                f"{path}: the module {kind[:60]!r}; supported: Transformer, Pooling, Normalize"
            )
    limit_path = folder / "sentence_bert_config.json"
    limit = config.context_length
    if limit_path.exists():
        limit = Fields(read_json(limit_path), str(limit_path)).integer("max_seq_length", limit)
    context = min(limit, config.context_length)
    return replace(config, pooling=pooling, normalize_embeddings=normalize, context_length=context)


def _pooling(folder: Path, subfolder: str) -> Pooling:
    if Path(subfolder).name != subfolder or subfolder in ("", ".", ".."):
        raise FormatError(f"{folder / 'modules.json'}: path: {subfolder[:60]!r} is no folder of this model")
    path = folder / subfolder / "config.json"
    values = read_json(path)
    # Newer files name the mode; older ones have a truth value for each.
    modes: list[str] = [str(values["pooling_mode"])] if "pooling_mode" in values else []
    prefix, suffix = "pooling_mode_", "_tokens"
    for name, value in values.items():
        if name.startswith(prefix) and value is True:
            modes.append(name.removeprefix(prefix).removesuffix(suffix).removesuffix("_token"))
    if modes == ["mean"]:
        return "mean"
    if modes != ["cls"]:
        raise UnsupportedError(
            f"{path}: pooling by {', '.join(modes)[:80] or 'nothing'}; supported: mean, cls"
        )
    return "cls"


def _with_tokens(
    folder: Path, config: ModelConfig, outer: Mapping[str, object], fields: Fields
) -> ModelConfig:
    """Special tokens of config.json and generation_config.json; those beyond the vocabulary cannot occur."""
    generation_path = folder / "generation_config.json"
    generation = read_json(generation_path) if generation_path.exists() else {}
    ends: set[int] = set()
    for values, where in (
        (generation, str(generation_path)),
        (outer, fields.where),
        (fields.values, fields.where),
    ):
        ends |= set(_token_list(values.get("eos_token_id"), where))
    beginnings = _token_list(fields.get("bos_token_id"), fields.where)
    beginnings += _token_list(generation.get("bos_token_id"), str(generation_path))
    usable = [token for token in beginnings if token < config.vocabulary_size]
    return replace(
        config,
        beginning_token=usable[0] if usable else None,
        end_tokens=tuple(sorted(end for end in ends if end < config.vocabulary_size)),
        add_beginning_token=bool(usable) and _adds_beginning(folder),
    )


def _token_list(value: object, where: str) -> list[int]:
    tokens = value if isinstance(value, list) else [] if value is None else [value]
    return [Fields({"token id": token}, where).integer("token id", least=0, most=1 << 32) for token in tokens]


def _adds_beginning(folder: Path) -> bool:
    """Whether the tokenizer puts the beginning token in front, as its own files say."""
    path = folder / "tokenizer_config.json"
    fields = Fields(read_json(path) if path.exists() else {}, str(path))
    if fields.get("add_bos_token") is not None:
        return fields.flag("add_bos_token", False)
    return _template_adds_beginning(folder / "tokenizer.json")


def _template_adds_beginning(path: Path) -> bool:
    """Whether the post-processor of tokenizer.json begins a text with a special token.

    Only that part is parsed: it stands before the vocabulary, which is tens of megabytes in large models.
    """
    if not path.is_file():
        return False
    with path.open("rb") as file:
        text = file.read(_POST_PROCESSOR_BYTES).decode(errors="replace")
    _, found, rest = text.partition('"post_processor":')
    try:
        processor = json.JSONDecoder().raw_decode(rest.lstrip())[0] if found else None
    except (ValueError, RecursionError):
        return False
    steps = [processor] if isinstance(processor, dict) else []
    if steps and isinstance(steps[0].get("processors"), list):
        steps = [step for step in steps[0]["processors"] if isinstance(step, dict)]
    templates = [step["single"] for step in steps if isinstance(step.get("single"), list)]
    return any(isinstance(single[0], dict) and "SpecialToken" in single[0] for single in templates if single)
