"""Lion: the sign of a mean of gradients (Chen et al. 2023, Symbolic Discovery of Optimization Algorithms)."""

from __future__ import annotations

from torch import Tensor
from torch.optim.optimizer import ParamsT

from octavo.training.optimizers.update_rule import Group, State, UpdateRule, zeros


class Lion(UpdateRule):
    """theta -= eta * (sign(beta_1 * m + (1 - beta_1) * g) + weight_decay * theta) (algorithm 2).

    Then m = beta_2 * m + (1 - beta_2) * g.  Every weight moves by eta: take a third to a tenth of AdamW's
    learning rate, and as many times its weight decay (section 5).  One mean: half of Adam's memory.
    """

    def __init__(
        self,
        parameters: ParamsT,
        learning_rate: float,
        *,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(
            parameters, {"lr": learning_rate, "betas": list(betas), "weight_decay": weight_decay}
        )

    def update(self, parameter: Tensor, gradient: Tensor, state: State, group: Group) -> None:
        beta_1, beta_2 = group["betas"]
        mean = zeros(state, "mean", parameter)
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.sub_(mean.lerp(gradient, 1 - beta_1).sign_(), alpha=group["lr"])
        mean.lerp_(gradient, 1 - beta_2)
