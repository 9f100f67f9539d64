"""Gradient descent, with momentum (Polyak 1964) and with Nesterov's (1983) look ahead."""

from __future__ import annotations

from torch import Tensor
from torch.optim.optimizer import ParamsT

from octavo.training.optimizers.update_rule import Group, State, UpdateRule, with_l2


class SGD(UpdateRule):
    """v = momentum * v + g;  theta -= eta * v.

    nesterov: theta -= eta * (g + momentum * v), the gradient as if momentum had been followed already
    (Sutskever et al. 2013, section 2, in the form of Bengio et al. 2012, section 3).
    """

    def __init__(
        self,
        parameters: ParamsT,
        learning_rate: float,
        *,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
    ) -> None:
        if nesterov and not momentum:
            raise ValueError("nesterov needs a momentum above 0")
        options = {"lr": learning_rate, "momentum": momentum, "nesterov": nesterov}
        super().__init__(parameters, {**options, "weight_decay": weight_decay})

    def update(self, parameter: Tensor, gradient: Tensor, state: State, group: Group) -> None:
        gradient = with_l2(gradient, parameter, group)
        momentum = group["momentum"]
        if not momentum:
            parameter.sub_(gradient, alpha=group["lr"])
            return
        if "velocity" not in state:
            state["velocity"] = gradient.clone()
        else:
            state["velocity"].mul_(momentum).add_(gradient)
        direction = state["velocity"]
        if group["nesterov"]:
            direction = gradient.add(direction, alpha=momentum)
        parameter.sub_(direction, alpha=group["lr"])
