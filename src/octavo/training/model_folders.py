"""Encoders and translators as folders of safetensors and JSON: written whole or not at all, read with bounds.

A BERT is written as transformers' BertForMaskedLM, BertForPreTraining, BertForSequenceClassification or
BertForTokenClassification; a Seq2Seq, for which there is no such class, under octavo's own names.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from octavo.errors import FormatError
from octavo.model_config import ModelConfig
from octavo.models.bert import MaskedLanguageModel, SequenceClassifier, TokenClassifier
from octavo.models.saving import write_aside
from octavo.models.seq2seq import Seq2Seq, Seq2SeqConfig
from octavo.weights.huggingface_config import huggingface_config
from octavo.weights.safetensors import SafetensorsEntry, read_sharded
from octavo.weights.untrusted import read_json

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Encoder = MaskedLanguageModel | SequenceClassifier | TokenClassifier
SomeEncoder = TypeVar("SomeEncoder", MaskedLanguageModel, SequenceClassifier, TokenClassifier)

# --- BERT ---

_ACTIVATIONS = {"silu": "silu", "gelu": "gelu", "gelu_tanh": "gelu_pytorch_tanh"}
_BLOCK = {
    "attention.query": "attention.self.query",
    "attention.key": "attention.self.key",
    "attention.value": "attention.self.value",
    "attention.output": "attention.output.dense",
    "attention_output_norm": "attention.output.LayerNorm",
    "feed_forward.up": "intermediate.dense",
    "feed_forward.down": "output.dense",
    "layer_output_norm": "output.LayerNorm",
}
_OUTSIDE = {
    "bert.token_embedding": "bert.embeddings.word_embeddings",
    "bert.position_embedding": "bert.embeddings.position_embeddings",
    "bert.token_type_embedding": "bert.embeddings.token_type_embeddings",
    "bert.embedding_norm": "bert.embeddings.LayerNorm",
    "pooler.dense": "bert.pooler.dense",
    "transform": "cls.predictions.transform.dense",
    "transform_norm": "cls.predictions.transform.LayerNorm",
    "next_sentence": "cls.seq_relationship",
    "classifier": "classifier",
}
# Made from others, or renamed in old files.
_COPIES = ("cls.predictions.decoder.weight", "cls.predictions.decoder.bias", "bert.embeddings.position_ids")
_OLD_NAMES = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}


def huggingface_name(name: str) -> str:
    """transformers' name of a parameter of an Encoder."""
    if name == "output_bias":
        return "cls.predictions.bias"
    module, _, kind = name.rpartition(".")
    if not module.startswith("bert.blocks."):
        return f"{_OUTSIDE[module]}.{kind}"
    _, _, layer, inner = module.split(".", 3)
    return f"bert.encoder.layer.{layer}.{_BLOCK[inner]}.{kind}"


def save_encoder(
    model: Encoder,
    folder: Path,
    tokenizer: Tokenizer | None = None,
    *,
    padding_token: int = 0,
    labels: Iterable[str] = (),
) -> None:
    """Write config.json, model.safetensors and, if there is a tokenizer, tokenizer.json.

    labels: names of a classifier's labels, by default LABEL_0, LABEL_1, ...
    """
    tensors = {huggingface_name(name): each for name, each in model.named_parameters()}
    config = _encoder_config(model, padding_token, list(labels))
    _write_folder(folder, config, tensors, tokenizer)


def load_encoder(folder: Path, model_class: type[SomeEncoder], **options: Any) -> SomeEncoder:
    """A model of the class with the folder's weights; a new head where the folder has none (fine-tuning).

    options: of the class (labels, next_sentence, dropout).  Raises FormatError if a weight of the encoder is
    missing or any has another shape; a head that is there but not in the class is left aside.
    """
    model = model_class(huggingface_config(folder), **options)
    found = {_current_name(name): entry for name, entry in read_sharded(folder).items()}
    names = {name: huggingface_name(name) for name, _ in model.named_parameters()}
    missing = [theirs for theirs in names.values() if theirs not in found and _is_encoder(theirs)]
    if missing:
        raise FormatError(f"{folder}: tensor {missing[0]} is missing")
    there = {name: found[theirs] for name, theirs in names.items() if theirs in found}
    _fill(model, there, folder)
    return model


def _current_name(name: str) -> str:
    for old, new in _OLD_NAMES.items():
        name = name.replace(old, new)
    if name.startswith(("embeddings.", "encoder.", "pooler.")):  # a bare BertModel
        name = f"bert.{name}"
    return name


def _is_encoder(name: str) -> bool:
    return name.startswith(("bert.embeddings.", "bert.encoder."))


def _encoder_config(model: Encoder, padding_token: int, labels: list[str]) -> dict[str, Any]:
    config: ModelConfig = model.bert.config
    content: dict[str, Any] = {
        "architectures": ["BertForMaskedLM"],
        "model_type": "bert",
        "vocab_size": config.vocabulary_size,
        "hidden_size": config.hidden_size,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "intermediate_size": config.feed_forward_size,
        "hidden_act": _ACTIVATIONS[config.activation],
        "hidden_dropout_prob": model.bert.dropout.probability,
        "attention_probs_dropout_prob": 0.0,
        "max_position_embeddings": config.learned_positions,
        "type_vocab_size": config.token_types,
        "layer_norm_eps": config.norm_epsilon,
        "pad_token_id": padding_token,
        "position_embedding_type": "absolute",
        "tie_word_embeddings": True,
        "dtype": "float32",
        "torch_dtype": "float32",
    }
    if isinstance(model, MaskedLanguageModel):
        if model.next_sentence is not None:
            content["architectures"] = ["BertForPreTraining"]
        return content
    kind = "Sequence" if isinstance(model, SequenceClassifier) else "Token"
    content["architectures"] = [f"BertFor{kind}Classification"]
    names = labels or [f"LABEL_{number}" for number in range(model.classifier.out_features)]
    if len(names) != model.classifier.out_features:
        raise ValueError(f"{len(names)} names for {model.classifier.out_features} labels")
    content["id2label"] = {str(number): name for number, name in enumerate(names)}
    content["label2id"] = {name: number for number, name in enumerate(names)}
    return content


# --- the 2017 Transformer ---


def save_seq2seq(model: Seq2Seq, folder: Path, tokenizer: Tokenizer | None = None) -> None:
    """Write config.json, model.safetensors and, if there is a tokenizer, tokenizer.json."""
    config = {"model_type": "octavo_seq2seq", **dataclasses.asdict(model.config)}
    _write_folder(folder, config, dict(model.named_parameters()), tokenizer)


def load_seq2seq(folder: Path) -> Seq2Seq:
    """What `save_seq2seq` wrote.  Raises FormatError that names the key or tensor that is wrong."""
    path = folder / "config.json"
    values = read_json(path)
    if values.pop("model_type", None) != "octavo_seq2seq":
        raise FormatError(f"{path}: model_type: is not octavo_seq2seq; is this a translator's folder?")
    fields = {each.name: type(each.default) for each in dataclasses.fields(Seq2SeqConfig)}
    fields["vocabulary_size"] = int
    for name, value in values.items():
        if name not in fields:
            raise FormatError(f"{path}: {name}: is not known; there are {', '.join(fields)}")
        whole = type(value) is int and 0 <= value < 1 << 24
        number = fields[name] is float and type(value) in (int, float)
        if not (whole if fields[name] is int else number or type(value) is fields[name]):
            raise FormatError(f"{path}: {name}: {str(value)[:40]} is not possible")
    if "vocabulary_size" not in values:
        raise FormatError(f"{path}: vocabulary_size: is missing")
    config = Seq2SeqConfig(**values)  # type: ignore[arg-type]
    entries = read_sharded(folder)
    _check_size(folder, config, entries)
    model = Seq2Seq(config)
    missing = [name for name, _ in model.named_parameters() if name not in entries]
    foreign = [name for name in entries if name not in dict(model.named_parameters())]
    if missing or foreign:
        problem = f"{missing[0]} is missing" if missing else f"{foreign[0]} has no place in this model"
        raise FormatError(f"{folder}: tensor {problem}")
    _fill(model, entries, folder)
    return model


def _check_size(folder: Path, config: Seq2SeqConfig, entries: Mapping[str, SafetensorsEntry]) -> None:
    """Before memory is taken: are the file's sizes those that the config asks for?"""
    expected = {
        "embedding.weight": (config.vocabulary_size, config.hidden_size),
        f"encoder.{config.encoder_layers - 1}.feed_forward.up.weight": (
            config.feed_forward_size,
            config.hidden_size,
        ),
        f"decoder.{config.decoder_layers - 1}.feed_forward.up.weight": (
            config.feed_forward_size,
            config.hidden_size,
        ),
    }
    for name, shape in expected.items():
        if name not in entries or entries[name].shape != shape:
            raise FormatError(f"{folder}: tensor {name} must be there with the shape {shape}")


# --- both ---


@torch.no_grad()
def _fill(model: nn.Module, entries: Mapping[str, SafetensorsEntry], folder: Path) -> None:
    for name, parameter in model.named_parameters():
        if name not in entries:
            continue
        entry = entries[name]
        if entry.shape != tuple(parameter.shape):
            raise FormatError(
                f"{folder}: tensor {entry.name} has the shape {entry.shape}, not {tuple(parameter.shape)}"
            )
        parameter.copy_(torch.from_numpy(entry.tensor(name).numpy().copy()))


def _write_folder(
    folder: Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor], tokenizer: Tokenizer | None
) -> None:
    from safetensors.torch import save

    folder.mkdir(parents=True, exist_ok=True)
    whole = {name: each.detach().float().contiguous() for name, each in tensors.items()}
    write_aside(folder / "model.safetensors", save(whole, metadata={"format": "pt"}))
    write_aside(folder / "config.json", (json.dumps(config, indent=2) + "\n").encode())
    if tokenizer is not None:
        write_aside(folder / "tokenizer.json", tokenizer.to_str(pretty=True).encode())
