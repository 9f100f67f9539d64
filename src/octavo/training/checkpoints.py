"""Checkpoints that a crash cannot spoil: a folder of their own each, written aside, synced, renamed.

    checkpoints/step-00000100/model.safetensors      the float32 weights
                              optimizer.safetensors  its state, "number.name"
                              state.json             step, tokens, plan, fingerprint of the data, versions

Random numbers are functions of seed and step, and so is the order of the data: no generator needs saving.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from octavo.errors import FormatError
from octavo.training import distributed
from octavo.training.config import TrainingError
from octavo.training.distributed import World

FOLDER = "checkpoints"
SHARDS = "shards"
_PREFIX = "step-"


@dataclass(slots=True)
class TrainingState:
    """Where a run stands.  steps: the planned number.  seconds: of training so far, over all sessions."""

    step: int = 0
    steps: int = 0
    tokens: int = 0
    seconds: float = 0.0
    best_loss: float | None = None
    precision: str = ""
    fingerprint: str = ""
    threads: int = 0
    torch_version: str = field(default_factory=lambda: str(torch.__version__))


def save_checkpoint(
    out: Path,
    state: TrainingState,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    keep: int,
    world: World | None = None,
) -> Path:
    """Write one and remove all but the newest `keep`.  Raises TrainingError if the disk does not take it.

    Several processes write their shards into a folder of their own, shards/, and the first one the rest.
    """
    folder = out / FOLDER
    final = folder / f"{_PREFIX}{state.step:08d}"
    temporary = folder / f".{final.name}"
    facts: dict[str, Any] = {}
    if world is not None and world.size > 1:
        distributed.save_shards(temporary / SHARDS, model, optimizer)  # all are written when this returns
        if not world.first:
            return final
    try:
        if world is None or world.size == 1:
            _remove_unfinished(folder)
            temporary.mkdir(parents=True)
            tensors, facts = _optimizer_state(optimizer)
            weights = {name: parameter.detach().contiguous() for name, parameter in model.named_parameters()}
            write_tensors(temporary / "model.safetensors", weights)
            write_tensors(temporary / "optimizer.safetensors", tensors)
        content = {"state": asdict(state), "optimizer": facts}
        write_synced(temporary / "state.json", (json.dumps(content, indent=1) + "\n").encode())
        sync(temporary)
        if final.exists():
            shutil.rmtree(final)
        os.replace(temporary, final)
        sync(folder)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise TrainingError(
            f"{final}: the checkpoint could not be written: {error}; the ones before it are untouched"
        ) from error
    for old in list_checkpoints(out)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return final


def list_checkpoints(out: Path) -> list[Path]:
    """Whole checkpoints of a run, oldest first."""
    return sorted(path for path in (out / FOLDER).glob(f"{_PREFIX}*") if (path / "state.json").is_file())


def load_checkpoint(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> TrainingState:
    """Fill model and optimizer; the state.  Raises FormatError for a damaged or foreign checkpoint."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        content = json.loads((path / "state.json").read_text(encoding="utf-8"))
        state = TrainingState(**content["state"])
        if (path / SHARDS).is_dir():
            distributed.load_shards(path / SHARDS, model, optimizer)
            return state
        weights = load_file(path / "model.safetensors")
        tensors = load_file(path / "optimizer.safetensors")
    except (OSError, ValueError, TypeError, KeyError, SafetensorError) as error:
        raise FormatError(
            f"{path}: a damaged checkpoint: {error}; remove it to use the one before"
        ) from error
    parameters = dict(model.named_parameters())
    if weights.keys() != parameters.keys():
        odd = sorted(weights.keys() ^ parameters.keys())[0]
        raise FormatError(f"{path}: not a checkpoint of this model: {odd} is only in one of the two")
    with torch.no_grad():
        for name, parameter in parameters.items():
            if parameter.shape != weights[name].shape:
                raise FormatError(f"{path}: {name} has the shape {tuple(weights[name].shape)}")
            parameter.copy_(weights[name])
    optimizer.load_state_dict(_with_tensors(content["optimizer"], tensors))
    return state


def _optimizer_state(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors as "parameter.name", and all that is not a tensor."""
    whole = optimizer.state_dict()
    tensors, numbers = {}, {}
    for parameter, values in whole["state"].items():
        for name, value in values.items():
            key = f"{parameter}.{name}"
            if isinstance(value, Tensor):
                tensors[key] = value.detach().contiguous()
            else:
                numbers[key] = value
    return tensors, {"groups": whole["param_groups"], "numbers": numbers}


def _with_tensors(facts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    state: dict[int, dict[str, Any]] = {}
    for key, value in {**facts["numbers"], **tensors}.items():
        parameter, _, name = key.partition(".")
        state.setdefault(int(parameter), {})[name] = value
    return {"state": state, "param_groups": facts["groups"]}


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """A safetensors file, synced to disk."""
    from safetensors.torch import save

    write_synced(path, save(dict(tensors), metadata={"format": "pt"}))


def write_synced(path: Path, content: bytes) -> None:
    """Written and on the disk when this returns."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def sync(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove_unfinished(folder: Path) -> None:
    for left in folder.glob(f".{_PREFIX}*"):
        shutil.rmtree(left, ignore_errors=True)
