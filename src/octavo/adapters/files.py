"""Adapters written as PEFT writes them: PEFT loads the folder, and so does `octavo run --adapter`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from octavo.adapters.base import Adapters
from octavo.models.saving import write_aside
from octavo.weights.adapter import CONFIG_NAME, TENSORS_NAME, peft_config, tensor_names
from octavo.weights.architectures import huggingface_module


def save_adapter(adapters: Adapters, folder: Path) -> None:
    """Write adapter_config.json and adapter_model.safetensors, each aside and then renamed."""
    from safetensors.torch import save

    tensors: dict[str, Tensor] = {}
    paths = []
    for name, pair in adapters.pairs.items():
        down, up, magnitude = tensor_names(adapters.architecture, name)
        tensors[down], tensors[up] = pair.down.detach(), pair.up.detach()
        if pair.magnitude is not None:
            tensors[magnitude] = pair.magnitude.detach()
        paths.append(huggingface_module(adapters.architecture, name))
    for name, parameter in adapters.saved.items():
        module, _, kind = name.rpartition(".")
        tensors[f"base_model.model.{huggingface_module(adapters.architecture, module)}.{kind}"] = (
            parameter.detach()
        )
    folder.mkdir(parents=True, exist_ok=True)
    # PEFT's own meaning of all-linear would take in what is not in the blocks, so the modules are named.
    short = sorted({".".join(path.split(".")[-2:]) for path in paths})
    config = replace(adapters.config, targets=tuple(short if _covers_all(adapters, paths) else sorted(paths)))
    content = {name: tensor.contiguous() for name, tensor in tensors.items()}
    write_aside(folder / TENSORS_NAME, save(content, metadata={"format": "pt"}))
    text = json.dumps(peft_config(config, adapters.architecture), indent=2) + "\n"
    write_aside(folder / CONFIG_NAME, text.encode())


def _covers_all(adapters: Adapters, paths: list[str]) -> bool:
    """Whether each kind of module is adapted in every layer, so that its last name says all."""
    kinds: dict[str, int] = {}
    for path in paths:
        kinds[path.rpartition(".")[2]] = kinds.get(path.rpartition(".")[2], 0) + 1
    layers = len({name.split(".")[1] for name in adapters.pairs})
    return adapters.config.targets == ("all-linear",) or all(not count % layers for count in kinds.values())
