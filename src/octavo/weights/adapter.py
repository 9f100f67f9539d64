"""Adapters as PEFT writes them: adapter_config.json and adapter_model.safetensors, read without PyTorch.

A module's low-rank pair is `base_model.model.` + its path in Hugging Face's causal model + `.lora_A.weight`
[r, I] and `.lora_B.weight` [O, r]; DoRA adds `.lora_magnitude_vector` [O], and a module that was trained
whole is `base_model.model.` + path + `.weight`.  Rows are in Hugging Face's order, whatever the base's file
has.

Legend: r rank, I inputs, O outputs of a module.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from octavo.errors import FormatError, ModelNotFoundError, UnsupportedError
from octavo.model_config import ModelConfig
from octavo.weights.architectures import huggingface_module, runtime_name
from octavo.weights.safetensors import read_safetensors
from octavo.weights.untrusted import Fields, read_json

CONFIG_NAME = "adapter_config.json"
TENSORS_NAME = "adapter_model.safetensors"
_PREFIX = "base_model.model."
_KINDS = ("lora_A.weight", "lora_B.weight", "lora_magnitude_vector", "lora_magnitude_vector.weight")
# Patterns of a stranger's file are matched against names: without repetition and groups that takes no time.
_PATTERN = re.compile(r"[\w.\-\[\]^$|\\]{1,300}")
_MOST_PATTERNS = 2000
_MOST_RANK = 4096


@dataclass(frozen=True, slots=True)
class AdapterConfig:
    """adapter_config.json.  Fields carry PEFT's meaning; `patterns` are regular expressions of module paths.

    rank_stabilized: the product is scaled by alpha / sqrt(r) (Kalajdzievski 2023), not alpha / r.
    decomposed: DoRA (Liu et al. 2024): the rows of W + sBA are scaled to a trained magnitude.
    targets: last parts of module paths, or "all-linear".  saved: modules that were trained whole.
    """

    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.0
    rank_stabilized: bool = False
    decomposed: bool = False
    targets: tuple[str, ...] = ("all-linear",)
    rank_patterns: Mapping[str, int] = field(default_factory=dict)
    alpha_patterns: Mapping[str, float] = field(default_factory=dict)
    saved: tuple[str, ...] = ()
    base: str = ""

    def rank_of(self, path: str) -> int:
        """The rank of the module with this path."""
        return self.rank_patterns.get(_first_match(self.rank_patterns, path), self.rank)

    def scale_of(self, path: str, rank: int) -> float:
        """What the product of a module's pair, which has this rank, is multiplied with."""
        alpha = self.alpha_patterns.get(_first_match(self.alpha_patterns, path), self.alpha)
        return float(alpha / rank**0.5 if self.rank_stabilized else alpha / rank)


def _first_match(patterns: Mapping[str, object], path: str) -> str:
    return next((each for each in patterns if re.match(rf"(.*\.)?({each})$", path)), "")


@dataclass(frozen=True, eq=False)
class LowRankPair:
    """What a module's weight gets added: scale * up @ down, [O, r] and [r, I].  magnitude: of DoRA, [O]."""

    down: NDArray[np.float32]
    up: NDArray[np.float32]
    scale: float
    magnitude: NDArray[np.float32] | None = None

    @property
    def rank(self) -> int:
        return len(self.down)


@dataclass(frozen=True, eq=False)
class Adapter:
    """pairs: by octavo's names of linear layers, as blk.0.attn_q.  saved: whole tensors, by their names."""

    path: Path
    config: AdapterConfig
    pairs: Mapping[str, LowRankPair]
    saved: Mapping[str, NDArray[np.float32]]


def read_adapter(folder: Path, model: ModelConfig) -> Adapter:
    """Read an adapter for a base of this configuration and check that it fits.

    Raises ModelNotFoundError where there is none, FormatError that names the tensor for one that is damaged
    or of another base, UnsupportedError for kinds of adapters that octavo does not have.
    """
    folder = Path(folder)
    if not (folder / TENSORS_NAME).is_file():
        why = "; only a pickle, which octavo never loads" if (folder / "adapter_model.bin").exists() else ""
        raise ModelNotFoundError(f"{folder}: no adapter here: {TENSORS_NAME} is missing{why}")
    config = read_adapter_config(folder / CONFIG_NAME)
    found: dict[str, dict[str, NDArray[np.float32]]] = {}
    saved: dict[str, NDArray[np.float32]] = {}
    where = folder / TENSORS_NAME
    for key, entry in read_safetensors(where).items():
        if not key.startswith(_PREFIX):
            raise FormatError(f"{where}: tensor {key}: does not begin with {_PREFIX}")
        path = key.removeprefix(_PREFIX)
        kind = next((each for each in _KINDS if path.endswith(f".{each}")), "")
        if kind:
            found.setdefault(path.removesuffix(f".{kind}"), {})[kind.split(".")[0]] = entry.tensor(
                key
            ).numpy()
        elif "lora_" in path:
            raise UnsupportedError(f"{where}: tensor {key}: this kind of adapter is not supported")
        else:
            saved[_runtime_name(model, path, where)] = entry.tensor(key).numpy()
    pairs = {}
    for path, parts in found.items():
        name = _runtime_name(model, f"{path}.weight", where).removesuffix(".weight")
        pairs[name] = _pair(where, path, parts, config)
        _check_shape(where, path, pairs[name], name, model)
    return Adapter(folder, config, pairs, saved)


def read_adapter_config(path: Path) -> AdapterConfig:
    """PEFT's configuration; keys that do not concern a plain LoRA are left alone.  Raises FormatError."""
    if not path.is_file():
        raise FormatError(f"{path}: missing: an adapter is {CONFIG_NAME} and {TENSORS_NAME}")
    fields = Fields(read_json(path), str(path))
    if (kind := fields.text("peft_type")) != "LORA":
        raise UnsupportedError(f"{path}: peft_type: {kind}; octavo has LORA")
    for name in ("target_parameters", "trainable_token_indices", "layer_replication", "lora_bias"):
        if fields.get(name):
            raise UnsupportedError(f"{path}: {name}: {fields.get(name)!r:.80}; octavo does not have that")
    if fields.get("bias") not in (None, "none"):
        raise UnsupportedError(f"{path}: bias: {fields.get('bias')!r:.80}; octavo has 'none'")
    targets = fields.get("target_modules")
    return AdapterConfig(
        rank=fields.integer("r", 8, most=_MOST_RANK),
        alpha=fields.number("lora_alpha", 8.0),
        dropout=fields.number("lora_dropout", 0.0, positive=False),
        rank_stabilized=fields.flag("use_rslora", False),
        decomposed=fields.flag("use_dora", False),
        targets=(targets,) if isinstance(targets, str) else _texts(fields, "target_modules"),
        rank_patterns={key: int(value) for key, value in _patterns(fields, "rank_pattern").items()},
        alpha_patterns=_patterns(fields, "alpha_pattern"),
        saved=_texts(fields, "modules_to_save"),
        base=fields.text("base_model_name_or_path", "") if fields.get("base_model_name_or_path") else "",
    )


def peft_config(config: AdapterConfig, architecture: str) -> dict[str, object]:
    """The content of adapter_config.json."""
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": config.base or None,
        "r": config.rank,
        "lora_alpha": config.alpha if config.alpha % 1 else int(config.alpha),
        "lora_dropout": config.dropout,
        "use_rslora": config.rank_stabilized,
        "use_dora": config.decomposed,
        "target_modules": list(config.targets),
        "rank_pattern": dict(config.rank_patterns),
        "alpha_pattern": dict(config.alpha_patterns),
        "modules_to_save": list(config.saved) or None,
        "bias": "none",
        "fan_in_fan_out": architecture == "gpt2",
        "inference_mode": True,
        "init_lora_weights": True,
    }


def tensor_names(architecture: str, name: str) -> tuple[str, str, str]:
    """PEFT's names of down, up and magnitude of the module that octavo calls `name`."""
    path = _PREFIX + huggingface_module(architecture, name)
    return f"{path}.lora_A.weight", f"{path}.lora_B.weight", f"{path}.lora_magnitude_vector"


def _runtime_name(model: ModelConfig, path: str, where: Path) -> str:
    name = runtime_name(model.architecture, path)
    if name is None or name == path:
        raise FormatError(
            f"{where}: {path}: a {model.architecture} model has no such module: is it for this base?"
        )
    return name


def _pair(
    where: Path, path: str, parts: Mapping[str, NDArray[np.float32]], config: AdapterConfig
) -> LowRankPair:
    if "lora_A" not in parts or "lora_B" not in parts:
        raise FormatError(f"{where}: {path}: only one of lora_A and lora_B is there")
    down, up, magnitude = parts["lora_A"], parts["lora_B"], parts.get("lora_magnitude_vector")
    if down.ndim != 2 or up.ndim != 2 or len(down) != up.shape[1] or not 1 <= len(down) <= _MOST_RANK:
        raise FormatError(f"{where}: {path}: lora_A {down.shape} and lora_B {up.shape} are no pair")
    if (rank := config.rank_of(path)) != len(down):
        raise FormatError(
            f"{where}: {path}: the tensors have rank {len(down)} and {CONFIG_NAME} says {rank}: "
            "the two files are of different adapters, or r / rank_pattern was edited"
        )
    if config.decomposed != (magnitude is not None):
        raise FormatError(
            f"{where}: {path}: use_dora is {config.decomposed}, but lora_magnitude_vector says not"
        )
    return LowRankPair(down, up, config.scale_of(path, len(down)), magnitude)


def _check_shape(where: Path, path: str, pair: LowRankPair, name: str, model: ModelConfig) -> None:
    expected = linear_shape(model, name)
    if (len(pair.up), pair.down.shape[1]) != expected:
        raise FormatError(
            f"{where}: {path}: it is for a layer of {len(pair.up)} x {pair.down.shape[1]} and this base has "
            f"{expected[0]} x {expected[1]}: an adapter fits only the model that it was trained on"
        )


def half_rope_rows(config: ModelConfig, name: str) -> NDArray[np.int64] | None:
    """Where the rows of a query or key lie in the file, in Hugging Face's order; None if just there.

    GGUF's llama files have the two halves of a head interleaved.
    """
    last = name.rpartition(".")[0].rpartition(".")[2]
    if config.rope is None or config.rope.style == "half" or last not in ("attn_q", "attn_k"):
        return None
    heads = config.heads if last == "attn_q" else config.key_value_heads
    width, turned = config.head_width, config.rope.width
    head = np.concatenate([np.arange(0, turned, 2), np.arange(1, turned, 2), np.arange(turned, width)])
    order: NDArray[np.int64] = (np.arange(heads)[:, None] * width + head[None, :]).reshape(-1)
    return order


def linear_shape(model: ModelConfig, name: str) -> tuple[int, int]:
    """(outputs, inputs) of a linear layer by octavo's name, fused ones included."""
    hidden, inner = model.hidden_size, model.feed_forward_size
    queries, keys = model.heads * model.head_width, model.key_value_heads * model.head_width
    last = name.rpartition(".")[2]
    if last == "ffn_up" and model.architecture == "phi3":
        return 2 * inner, hidden
    layer = int(name.split(".")[1]) if name.startswith("blk.") else 0
    shapes = {
        "attn_q": (queries, hidden), "attn_k": (keys, hidden), "attn_v": (keys, hidden),
        "attn_qkv": (queries + 2 * keys, hidden), "attn_output": (hidden, queries),
        "ffn_gate": (inner, hidden), "ffn_up": (inner, hidden), "ffn_down": (hidden, inner),
    }  # fmt: skip
    if last not in shapes or layer >= model.layers:
        raise FormatError(f"{name}: this base has {model.layers} layers and no such linear layer in them")
    return shapes[last]


def _texts(fields: Fields, name: str) -> tuple[str, ...]:
    value = fields.get(name)
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise fields.fail(name, "must be a list of names")
    return tuple(value)


def _patterns(fields: Fields, name: str) -> dict[str, float]:
    value = fields.get(name) or {}
    if not isinstance(value, dict) or len(value) > _MOST_PATTERNS:
        raise fields.fail(name, f"must be an object of at most {_MOST_PATTERNS} patterns")
    for pattern, number in value.items():
        if not _PATTERN.fullmatch(pattern) or not isinstance(number, int | float) or not number > 0:
            raise fields.fail(name, f"{pattern!r:.80}: only names, dots, [...], | and \\ with a number")
        try:
            re.compile(pattern)
        except re.error as error:
            raise fields.fail(name, f"{pattern!r:.80}: {error}") from error
    return dict(value)
