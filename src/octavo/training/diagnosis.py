"""Where a number stopped being one: which layer's output, or which parameter's gradient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


def first_broken_layer(module: nn.Module, task: Any, batches: Sequence[Any]) -> str:
    """The first layer in the order of computation whose output is not finite; else a parameter's name.

    The forward pass is taken again with a look at every layer: this is only called when training has failed.
    """
    found: list[str] = []

    def look(name: str) -> Any:
        def hook(layer: nn.Module, inputs: Any, output: Any) -> None:
            if not found and isinstance(output, Tensor) and not bool(torch.isfinite(output).all()):
                found.append(f"the output of {name}")

        return hook

    for name, parameter in task.model.named_parameters():
        if not bool(torch.isfinite(parameter).all()):
            return f"the weights {name}"
    handles = [layer.register_forward_hook(look(name)) for name, layer in module.named_modules() if name]
    try:
        with torch.no_grad():
            for batch in batches:
                task.loss(module, batch, 1.0)
    finally:
        for handle in handles:
            handle.remove()
    for name, parameter in task.model.named_parameters():
        if parameter.grad is not None and not bool(torch.isfinite(parameter.grad).all()):
            found.append(f"the gradient of {name}")
    return found[0] if found else "the loss"
