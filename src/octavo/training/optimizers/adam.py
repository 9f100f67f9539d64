"""Adam and its kin (Kingma and Ba 2015): a mean of gradients over the root of a mean of their squares.

Legend: m and v these two means, which start at 0; divided by 1 - beta^t they are unbiased (section 3).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from octavo.training.optimizers.update_rule import Group, State, UpdateRule, count_step, with_l2, zeros

BETAS = (0.9, 0.999)


def _options(learning_rate: float, betas: tuple[float, float], epsilon: float, decay: float) -> Group:
    return {"lr": learning_rate, "betas": list(betas), "eps": epsilon, "weight_decay": decay}


class Adam(UpdateRule):
    """theta -= eta * m' / (sqrt(v') + epsilon) (algorithm 1); weight_decay is an l2 penalty."""

    def __init__(
        self,
        parameters: ParamsT,
        learning_rate: float,
        *,
        betas: tuple[float, float] = BETAS,
        epsilon: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(parameters, _options(learning_rate, betas, epsilon, weight_decay))

    def update(self, parameter: Tensor, gradient: Tensor, state: State, group: Group) -> None:
        adam_update(parameter, with_l2(gradient, parameter, group), state, group)


def adam_update(parameter: Tensor, gradient: Tensor, state: State, group: Group) -> None:
    """Algorithm 1 of the paper, for one parameter."""
    step = count_step(state)
    beta_1, beta_2 = group["betas"]
    mean = zeros(state, "mean", parameter).lerp_(gradient, 1 - beta_1)
    squares = zeros(state, "squares", parameter).mul_(beta_2).addcmul_(gradient, gradient, value=1 - beta_2)
    root = (squares / (1 - beta_2**step)).sqrt_().add_(group["eps"])
    parameter.addcdiv_(mean, root, value=-group["lr"] / (1 - beta_1**step))


class AdaMax(UpdateRule):
    """Adam with a maximum for the mean of squares: u = max(beta_2 * u, |g| + epsilon) (section 7.1)."""

    def __init__(
        self,
        parameters: ParamsT,
        learning_rate: float,
        *,
        betas: tuple[float, float] = BETAS,
        epsilon: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(parameters, _options(learning_rate, betas, epsilon, weight_decay))

    def update(self, parameter: Tensor, gradient: Tensor, state: State, group: Group) -> None:
        gradient = with_l2(gradient, parameter, group)
        step = count_step(state)
        beta_1, beta_2 = group["betas"]
        mean = zeros(state, "mean", parameter).lerp_(gradient, 1 - beta_1)
        largest = zeros(state, "largest", parameter).mul_(beta_2)
        torch.maximum(largest, gradient.abs().add_(group["eps"]), out=largest)
        parameter.addcdiv_(mean, largest, value=-group["lr"] / (1 - beta_1**step))


class NAdam(UpdateRule):
    """Adam with Nesterov's look ahead (Dozat 2016, algorithm 2), the momentum warmed up as in its section 4.

    mu_t = beta_1 * (1 - 0.96^(t * momentum_decay) / 2); the product of all mu so far unbiases the mean.
    """

    def __init__(
        self,
        parameters: ParamsT,
        learning_rate: float,
        *,
        betas: tuple[float, float] = BETAS,
        epsilon: float = 1e-8,
        weight_decay: float = 0.0,
        momentum_decay: float = 0.004,
    ) -> None:
        options = _options(learning_rate, betas, epsilon, weight_decay)
        super().__init__(parameters, {**options, "momentum_decay": momentum_decay})

    def update(self, parameter: Tensor, gradient: Tensor, state: State, group: Group) -> None:
        gradient = with_l2(gradient, parameter, group)
        step = count_step(state)
        beta_1, beta_2 = group["betas"]
        momentum, following = (
            beta_1 * (1 - 0.5 * 0.96 ** (t * group["momentum_decay"])) for t in (step, step + 1)
        )
        product = state.setdefault("momentum_product", torch.tensor(1.0, dtype=torch.float64)).mul_(momentum)
        mean = zeros(state, "mean", parameter).lerp_(gradient, 1 - beta_1)
        squares = zeros(state, "squares", parameter).mul_(beta_2)
        squares.addcmul_(gradient, gradient, value=1 - beta_2)
        root = (squares / (1 - beta_2**step)).sqrt_().add_(group["eps"])
        parameter.addcdiv_(gradient, root, value=-group["lr"] * (1 - momentum) / (1 - product.item()))
        unbiased = 1 - product.item() * following
        parameter.addcdiv_(mean, root, value=-group["lr"] * following / unbiased)


class AdamW(UpdateRule):
    """Adam with weight decay apart from the gradient: theta -= eta * weight_decay * theta first.

    Loshchilov and Hutter 2019, algorithm 2.  fused: all parameters of a group go to torch's kernel at once,
    which reads and writes each number once; else the rule is applied tensor by tensor, as it is written.
    """

    def __init__(
        self,
        parameters: ParamsT,
        learning_rate: float,
        *,
        betas: tuple[float, float] = BETAS,
        epsilon: float = 1e-8,
        weight_decay: float = 0.01,
        fused: bool = True,
    ) -> None:
        options = _options(learning_rate, betas, epsilon, weight_decay)
        super().__init__(parameters, {**options, "fused": fused})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One update of every parameter that has a gradient; gives the closure's loss, if there is one."""
        if not all(group["fused"] for group in self.param_groups):
            return super().step(closure)
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            fused_adamw(group, self.state)
        return loss

    def update(self, parameter: Tensor, gradient: Tensor, state: State, group: Group) -> None:
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        adam_update(parameter, gradient, state, group)


def fused_adamw(group: Group, states: Any) -> None:
    """AdamW for all parameters of a group in one call; states: parameter -> its state, filled when empty."""
    parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
    if not parameters:
        return
    for parameter in parameters:
        state = states[parameter]
        zeros(state, "mean", parameter)
        zeros(state, "squares", parameter)
        state.setdefault("step", torch.tensor(0.0))
    held = [states[parameter] for parameter in parameters]
    steps = [state["step"] for state in held]
    torch._foreach_add_(steps, 1)
    torch._fused_adamw_(
        parameters,
        [parameter.grad for parameter in parameters],
        [state["mean"] for state in held],
        [state["squares"] for state in held],
        [],
        steps,
        lr=float(group["lr"]),
        beta1=group["betas"][0],
        beta2=group["betas"][1],
        weight_decay=group["weight_decay"],
        eps=group["eps"],
        amsgrad=False,
        maximize=False,
    )
