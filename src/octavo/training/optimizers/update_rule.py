"""What the optimizers share: a loop over parameters, and rules that read like their papers.

Every value of `state` is a tensor and every value of `param_groups` but the parameters is plain JSON, so a
checkpoint needs no pickle.  Legend: theta a parameter, g its gradient, eta the learning rate.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

State = dict[str, Tensor]
Group = dict[str, Any]


class UpdateRule(torch.optim.Optimizer):
    """An optimizer that treats each parameter alone; a subclass says in `update` how."""

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One update of every parameter that has a gradient; gives the closure's loss, if there is one."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self.update(parameter, parameter.grad, self.state[parameter], group)
        return loss

    @abstractmethod
    def update(self, parameter: Tensor, gradient: Tensor, state: State, group: Group) -> None:
        """Changes the parameter and its state in place; neither the gradient nor the group."""


def count_step(state: State) -> float:
    """Adds one to the number of updates that a parameter has had, and gives it."""
    state.setdefault("step", torch.tensor(0.0)).add_(1)
    return state["step"].item()


def zeros(state: State, name: str, parameter: Tensor) -> Tensor:
    """A tensor of the state, made of zeros in the parameter's shape when it is first asked for."""
    if name not in state:
        state[name] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
    return state[name]


def with_l2(gradient: Tensor, parameter: Tensor, group: Group) -> Tensor:
    """g + weight_decay * theta: the gradient with a penalty of weight_decay / 2 * |theta|^2 in the loss."""
    decay: float = group["weight_decay"]
    return gradient.add(parameter, alpha=decay) if decay else gradient
