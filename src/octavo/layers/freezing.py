"""Transfer learning: train the new top of a model first, then ever more of what lies under it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from octavo.errors import UnsupportedError


def freeze(module: nn.Module) -> None:
    """No parameter of the module gets a gradient: none is computed, and nothing that it knows is lost."""
    module.requires_grad_(False)


def unfreeze(module: nn.Module) -> None:
    """All parameters of the module are trained."""
    module.requires_grad_(True)


def layer_groups(model: nn.Module) -> list[list[nn.Parameter]]:
    """The parameters from input to output: what comes before the blocks, each block, what comes after.

    The blocks are the model's longest ModuleList or Sequential; before and after go by the order in which the
    model defines its parts.  Raises UnsupportedError where there is none.
    """
    stacks = [each for each in model.named_modules() if isinstance(each[1], nn.ModuleList | nn.Sequential)]
    if not stacks:
        raise UnsupportedError("the model has no stack of layers (ModuleList or Sequential) to unfreeze by")
    prefix, stack = max(stacks, key=lambda each: len(each[1]))
    blocks = [list(block.parameters()) for block in stack]
    inside = {id(parameter) for block in blocks for parameter in block}
    before: list[nn.Parameter] = []
    after: list[nn.Parameter] = []
    passed = False
    for parameter in model.parameters():
        if id(parameter) in inside:
            passed = True
        else:
            (after if passed else before).append(parameter)
    return [group for group in (before, *blocks, after) if group]


@dataclass
class GradualUnfreezing:
    """First only the last group is trained; each call of `advance` adds the one under it.

    Howard and Ruder 2018, ULMFiT, section 3.3: one group more each epoch.
    """

    groups: Sequence[Sequence[nn.Parameter]]
    trained: int = field(default=1)

    def __post_init__(self) -> None:
        self._apply()

    def advance(self) -> bool:
        """Unfreezes one group more; False if all are unfrozen already."""
        if self.trained >= len(self.groups):
            return False
        self.trained += 1
        self._apply()
        return True

    def _apply(self) -> None:
        first = len(self.groups) - self.trained
        for index, group in enumerate(self.groups):
            for parameter in group:
                parameter.requires_grad_(index >= first)


def discriminative_rates(
    groups: Sequence[Sequence[nn.Parameter]], learning_rate: float, factor: float = 2.6
) -> list[dict[str, Any]]:
    """Optimizer groups: the last has the learning rate, each under it that of the one above / factor.

    Howard and Ruder 2018, section 3.2: lower layers are more general and need less change.
    """
    top = len(groups) - 1
    return [
        {"params": list(group), "lr": learning_rate / factor ** (top - index)}
        for index, group in enumerate(groups)
    ]
