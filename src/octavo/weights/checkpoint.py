"""A model on disk, opened: its configuration, its tensors under octavo's names, its template and defaults.

`open_checkpoint` takes a GGUF file or a Hugging Face folder and checks everything before it returns: a
checkpoint that opens has every tensor that its architecture needs, in the right shape and inside the file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from octavo.errors import FormatError, ModelNotFoundError, UnsupportedError
from octavo.model_config import ModelConfig
from octavo.weights.architectures import check_tensors, runtime_name
from octavo.weights.gguf import read_gguf
from octavo.weights.gguf_config import CONSUMED, gguf_config, gguf_name
from octavo.weights.huggingface_config import huggingface_config
from octavo.weights.safetensors import INDEX_NAME, SINGLE_NAME, read_sharded
from octavo.weights.tensor import Tensor
from octavo.weights.untrusted import Fields, read_bounded, read_json

if TYPE_CHECKING:
    from octavo.text.tokenizer import Tokenizer

MAX_TEMPLATE_BYTES = 1 << 20

# GPT-2's linear layers are stored as [inputs, outputs] (transformers' Conv1D).
_CONV1D = re.compile(r"blk\.\d+\.(attn_qkv|attn_output|ffn_up|ffn_down)\.weight")


@dataclass(frozen=True, slots=True)
class GenerationDefaults:
    """Sampling options that the model's makers recommend; None where they say nothing."""

    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A model file or folder that was opened and checked.

    tensors: by octavo's names, which are GGUF's.
    metadata: `name`, `license` and `format` where known; of a GGUF file also every key and value in it.
    chat_template: Jinja source, or None.
    """

    path: Path
    config: ModelConfig
    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, object]
    chat_template: str | None
    generation: GenerationDefaults

    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer.  Raises FormatError or UnsupportedError if it is damaged or unknown."""
        from octavo.text.tokenizer import Tokenizer

        if not self.path.is_dir():
            return Tokenizer.from_gguf(self.metadata)
        tokenizer_json = self.path / "tokenizer.json"
        if not tokenizer_json.exists():
            raise FormatError(
                f"{self.path}: no tokenizer.json; without it the folder's text cannot be encoded"
            )
        config = _optional_json(self.path / "tokenizer_config.json")
        return Tokenizer.from_file(tokenizer_json, {**config, "eos_token_id": list(self.config.end_tokens)})


def open_checkpoint(path: Path, *, long_context: bool = False) -> Checkpoint:
    """Open a GGUF file or a Hugging Face folder (config.json and safetensors).

    long_context: a LongRoPE model (Phi 3) has two sets of frequencies, one for texts up to its original
        context and one for longer ones.  By default the first is taken, with the original context length.
    Raises ModelNotFoundError if nothing is there, FormatError that names file and field if it is damaged
    or hostile, UnsupportedError if it is of a kind that octavo does not have.
    """
    path = Path(path)
    if not path.exists():
        raise ModelNotFoundError(f"{path}: no such file or folder")
    try:
        if path.is_dir():
            return _open_folder(path, long_context)
        return _open_gguf(path, long_context)
    except OSError as error:
        raise FormatError(f"{error.filename or path}: cannot be read: {error.strerror or error}") from error


def _open_gguf(path: Path, long_context: bool) -> Checkpoint:
    file = read_gguf(path)
    config = gguf_config(file, long_context=long_context)
    tensors = {name: tensor for name, tensor in file.tensors.items() if name not in CONSUMED}
    check_tensors(str(path), config, tensors)
    metadata: dict[str, object] = {"name": gguf_name(file), "format": f"GGUF version {file.version}"}
    if isinstance(file.metadata.get("general.license"), str):
        metadata["license"] = file.metadata["general.license"]
    template = file.metadata.get("tokenizer.chat_template")
    if template is not None and (not isinstance(template, str) or len(template) > MAX_TEMPLATE_BYTES):
        raise FormatError(
            f"{path}: tokenizer.chat_template: must be a string of at most {MAX_TEMPLATE_BYTES} bytes"
        )
    return Checkpoint(
        path=path,
        config=config,
        tensors=MappingProxyType(tensors),
        metadata=MappingProxyType(metadata | dict(file.metadata)),
        chat_template=template,
        generation=_defaults(
            Fields(file.metadata, str(path), "general.sampling."),
            temperature="temp",
            penalty="penalty_repeat",
        ),
    )


def _open_folder(folder: Path, long_context: bool) -> Checkpoint:
    if not (folder / "config.json").exists():
        ggufs = sorted(entry.name for entry in folder.glob("*.gguf"))
        hint = f"; open one of its GGUF files: {', '.join(ggufs[:8])}" if ggufs else ""
        raise FormatError(f"{folder}: no config.json: this is no Hugging Face model folder{hint}")
    config = huggingface_config(folder, long_context=long_context)
    tensors = _folder_tensors(folder, config)
    check_tensors(str(folder), config, tensors)
    metadata: dict[str, object] = {"name": folder.resolve().name, "format": "safetensors"}
    licence = _licence(folder / "README.md")
    if licence:
        metadata["license"] = licence
    generation = Fields(
        _optional_json(folder / "generation_config.json"), str(folder / "generation_config.json")
    )
    return Checkpoint(
        path=folder,
        config=config,
        tensors=MappingProxyType(tensors),
        metadata=MappingProxyType(metadata),
        chat_template=_folder_template(folder),
        generation=_defaults(generation, temperature="temperature", penalty="repetition_penalty"),
    )


def _folder_tensors(folder: Path, config: ModelConfig) -> dict[str, Tensor]:
    """The safetensors of a folder under octavo's names."""
    if not (folder / SINGLE_NAME).exists() and not (folder / INDEX_NAME).exists():
        pickles = sorted(
            entry.name for pattern in ("*.bin", "*.pt", "*.pth") for entry in folder.glob(pattern)
        )
        why = (
            f"only {pickles[0]}, a pickle: loading one can run any code, so octavo never does; "
            "take a version of the model in safetensors, or convert it with transformers' save_pretrained"
            if pickles
            else f"neither {SINGLE_NAME} nor {INDEX_NAME}; is the download complete?"
        )
        raise UnsupportedError(f"{folder}: no weights in safetensors: {why}")
    tensors: dict[str, Tensor] = {}
    for name, entry in read_sharded(folder).items():
        runtime = runtime_name(config.architecture, name)
        if runtime is None or (runtime == "output.weight" and config.tied_embeddings):
            continue  # transformers ties by configuration, whatever else is in the file
        if runtime in tensors:
            raise FormatError(f"{entry.path}: tensor {name}: there is another one for {runtime}")
        tensor = entry.tensor(runtime)
        conv1d = config.architecture == "gpt2" and len(tensor.shape) == 2 and _CONV1D.fullmatch(runtime)
        tensors[runtime] = _transposed(tensor) if conv1d else tensor
    return tensors


def _transposed(tensor: Tensor) -> Tensor:
    """The tensor with rows and columns exchanged, as a copy."""
    item = np.dtype((np.void, tensor.type.block_bytes))
    matrix = np.ascontiguousarray(tensor.data).view(item).reshape(tensor.shape)
    data = np.ascontiguousarray(matrix.T).reshape(-1).view(np.uint8)
    return Tensor(tensor.name, tensor.type, tensor.shape[::-1], data)


def _defaults(fields: Fields, *, temperature: str, penalty: str) -> GenerationDefaults:
    def number(name: str) -> float | None:
        return None if fields.get(name) is None else fields.number(name, positive=False)

    top_k = None if fields.get("top_k") is None else fields.integer("top_k", least=0)
    return GenerationDefaults(number(temperature), top_k, number("top_p"), number("min_p"), number(penalty))


def _optional_json(path: Path) -> dict[str, object]:
    return read_json(path) if path.exists() else {}


def _folder_template(folder: Path) -> str | None:
    """chat_template.jinja, or what tokenizer_config.json or chat_template.json has under `chat_template`."""
    path = folder / "chat_template.jinja"
    if path.exists():
        try:
            return read_bounded(path, MAX_TEMPLATE_BYTES).decode()
        except UnicodeDecodeError:
            raise FormatError(f"{path}: is not UTF-8") from None
    for path in (folder / "tokenizer_config.json", folder / "chat_template.json"):
        template = _optional_json(path).get("chat_template")
        if isinstance(template, list):  # several, each an object with a name
            named = {
                entry.get("name"): entry.get("template") for entry in template if isinstance(entry, dict)
            }
            template = named.get("default")
        if template is None:
            continue
        if not isinstance(template, str) or len(template) > MAX_TEMPLATE_BYTES:
            raise FormatError(
                f"{path}: chat_template: must be a string of at most {MAX_TEMPLATE_BYTES} bytes"
            )
        return template
    return None


def _licence(readme: Path) -> str | None:
    """The licence in the front matter of a model card."""
    if not readme.is_file():
        return None
    with readme.open("rb") as file:
        head = file.read(1 << 16).decode(errors="replace")
    found = re.match(r"---\n(?:.*\n)*?license:[ ]*([\w.+-]{1,60})[ ]*\n", head)
    return found[1] if found else None
