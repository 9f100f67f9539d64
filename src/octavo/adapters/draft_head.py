"""A draft head on disk: a small network that guesses a model's next tokens from its last hidden state.

A folder with config.json and model.safetensors.  The network is a recurrent multilayer perceptron in the
manner of Wertheimer et al. 2024 and Hydra (Ankner et al. 2024).  With e the model's embedding of the newest
token, s the state before it, and every norm an RMS norm with a weight of its own:

    x = input [token_norm(e); state_norm(s)]
    x = x + down (silu(gate n) * (up n)),  n = inner_norm(x)
    s' = output_norm(x),  logits = output s'

The first s is the model's own last hidden state, after its final norm, times state_scale: some of its
dimensions are hundreds of times larger than others, and so all become alike.

Its vocabulary is the part of the model's that texts use most (FR-Spec, Zhao et al. 2025).  The file is a
stranger's: sizes are checked before anything is made of them.

H: hidden size of the model, F: inner size, D: tokens that the head can say, V: vocabulary of the model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from octavo.errors import FormatError, ModelNotFoundError, OctavoError, UnsupportedError
from octavo.weights.checkpoint import Checkpoint
from octavo.weights.safetensors import read_safetensors
from octavo.weights.untrusted import Fields, read_json

KIND = "octavo-draft-head"
VERSION = 1
CONFIG_NAME = "config.json"
TENSORS_NAME = "model.safetensors"
NORM_EPSILON = 1e-6
_MOST_DEPTHS = 64


@dataclass(frozen=True, slots=True)
class DraftHeadConfig:
    """config.json.  fingerprint: of the model that it was made for.  depths: tokens ahead that it was trained
    on.  acceptance: at each depth, the share of tokens of texts kept back that it had right."""

    model: str
    fingerprint: str
    hidden_size: int
    vocabulary_size: int
    inner_size: int
    draft_tokens: int
    depths: int
    acceptance: tuple[float, ...] = ()

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of each tensor of the file."""
        hidden, inner = self.hidden_size, self.inner_size
        norms = dict.fromkeys(("token_norm", "state_norm", "inner_norm", "output_norm"), (hidden,))
        return {
            **{f"{name}.weight": shape for name, shape in norms.items()},
            "input.weight": (hidden, 2 * hidden),
            "gate.weight": (inner, hidden),
            "up.weight": (inner, hidden),
            "down.weight": (hidden, inner),
            "output.weight": (self.draft_tokens, hidden),
            "state_scale": (hidden,),
        }


@dataclass(frozen=True, eq=False)
class DraftHead:
    """weights: float32, by the names of `DraftHeadConfig.shapes`.  tokens int32 [D]: rising ids."""

    config: DraftHeadConfig
    weights: Mapping[str, NDArray[np.float32]]
    tokens: NDArray[np.int32]


def is_draft_head(folder: Path) -> bool:
    """Whether a folder says that it is one; never raises."""
    try:
        return read_json(folder / CONFIG_NAME).get("model_type") == KIND
    except (OSError, OctavoError):
        return False


def read_draft_head(folder: Path) -> DraftHead:
    """Read a head and check every size of it.

    Raises ModelNotFoundError where there is none, FormatError that names file and field for a damaged one,
    UnsupportedError for one of a later version.
    """
    if not is_draft_head(folder):
        raise ModelNotFoundError(f"{folder}: no draft head here: octavo train-draft makes one")
    config = _read_config(folder / CONFIG_NAME)
    path = folder / TENSORS_NAME
    if not path.is_file():
        raise FormatError(f"{folder}: {TENSORS_NAME} is missing: is the head complete?")
    entries = read_safetensors(path)
    shapes = config.shapes() | {"tokens": (config.draft_tokens,)}
    if odd := sorted(entries.keys() ^ shapes.keys()):
        raise FormatError(f"{path}: tensor {odd[0]}: is missing, or has no place in a draft head")
    weights: dict[str, NDArray[np.float32]] = {}
    for name, shape in shapes.items():
        entry = entries[name]
        if entry.shape != shape:
            raise FormatError(f"{path}: tensor {name}: is {list(entry.shape)}, and must be {list(shape)}")
        if name != "tokens":
            weights[name] = np.ascontiguousarray(entry.tensor(name).numpy(), np.float32)
            if not np.isfinite(weights[name]).all():
                raise FormatError(f"{path}: tensor {name}: holds NaN or infinity")
    if entries["tokens"].dtype != "I32":
        raise FormatError(f"{path}: tensor tokens: is {entries['tokens'].dtype}, and must be I32")
    tokens = entries["tokens"].data.view(np.dtype("<i4")).astype(np.int32)
    if (np.diff(tokens) <= 0).any() or tokens[0] < 0 or tokens[-1] >= config.vocabulary_size:
        raise FormatError(f"{path}: tensor tokens: must be rising ids below {config.vocabulary_size}")
    return DraftHead(config, weights, tokens)


def _read_config(path: Path) -> DraftHeadConfig:
    fields = Fields(read_json(path), str(path))
    version = fields.integer("version", most=1 << 20)
    if version != VERSION:
        raise UnsupportedError(f"{path}: version: {version}; this octavo reads {VERSION}")
    acceptance = fields.get("acceptance")
    shares = acceptance if isinstance(acceptance, list) else []
    if not all(isinstance(share, int | float) and 0 <= share <= 1 for share in shares[:_MOST_DEPTHS]):
        raise fields.fail("acceptance", "must be a list of shares from 0 to 1")
    config = DraftHeadConfig(
        model=fields.text("model"),
        fingerprint=fields.text("fingerprint"),
        hidden_size=fields.integer("hidden_size", most=1 << 16),
        vocabulary_size=fields.integer("vocabulary_size", most=1 << 20),
        inner_size=fields.integer("inner_size", most=1 << 18),
        draft_tokens=fields.integer("draft_tokens", most=1 << 20),
        depths=fields.integer("depths", most=_MOST_DEPTHS),
        acceptance=tuple(float(share) for share in shares[:_MOST_DEPTHS]),
    )
    for name in ("hidden_size", "inner_size", "draft_tokens"):
        if getattr(config, name) % 16:
            raise fields.fail(name, f"is {getattr(config, name)}; the kernels need a multiple of 16")
    if config.draft_tokens > config.vocabulary_size:
        raise fields.fail("draft_tokens", "is more than the vocabulary has")
    return config


def fingerprint(checkpoint: Checkpoint, vocabulary: Sequence[str]) -> str:
    """What tells a model from others, as 32 hexadecimal digits: its vocabulary, the sizes of its weights and
    its final norm.  Models that differ in quantization alone have one, and can share a head."""
    import hashlib  # only where it is used: it brings all of OpenSSL

    digest = hashlib.sha256("\0".join(vocabulary).encode("utf-8", "surrogatepass"))
    for name in sorted(checkpoint.tensors):
        digest.update(f"\n{name} {checkpoint.tensors[name].shape}".encode())
    if "output_norm.weight" in checkpoint.tensors:
        norm = checkpoint.tensors["output_norm.weight"].numpy()
        digest.update(norm.astype(np.float16).tobytes())
    return digest.hexdigest()[:32]


def check_pair(head: DraftHead, checkpoint: Checkpoint, vocabulary: Sequence[str], *, folder: Path) -> None:
    """OctavoError unless the head was made for this model."""
    made, config = head.config, checkpoint.config
    why = ""
    if made.hidden_size != config.hidden_size or made.vocabulary_size != config.vocabulary_size:
        why = (
            f"it reads hidden states of {made.hidden_size} numbers and tokens of {made.vocabulary_size:,}, "
            f"and the model has {config.hidden_size} and {config.vocabulary_size:,}"
        )
    elif made.fingerprint != fingerprint(checkpoint, vocabulary):
        why = "the sizes agree, but vocabulary, weights or final norm are another model's"
    if why:
        raise OctavoError(
            f"{folder}: this head was trained for {made.model[:80]!r} and cannot draft for "
            f"{checkpoint.path.name}: {why}; octavo train-draft makes one for it"
        )
