"""A learning rate for each weight, from the squares of its gradients: AdaGrad and RMSProp."""

from __future__ import annotations

from torch import Tensor
from torch.optim.optimizer import ParamsT

from octavo.training.optimizers.update_rule import Group, State, UpdateRule, with_l2, zeros


class AdaGrad(UpdateRule):
    """s += g^2;  theta -= eta * g / (sqrt(s) + epsilon) (Duchi, Hazan and Singer 2011, section 1.1).

    The sum only grows, so the rate only falls: fine for convex problems, too soon for deep networks.
    """

    def __init__(
        self, parameters: ParamsT, learning_rate: float, *, epsilon: float = 1e-10, weight_decay: float = 0.0
    ) -> None:
        super().__init__(parameters, {"lr": learning_rate, "eps": epsilon, "weight_decay": weight_decay})

    def update(self, parameter: Tensor, gradient: Tensor, state: State, group: Group) -> None:
        gradient = with_l2(gradient, parameter, group)
        squares = zeros(state, "squares", parameter).addcmul_(gradient, gradient)
        parameter.addcdiv_(gradient, squares.sqrt().add_(group["eps"]), value=-group["lr"])


class RMSProp(UpdateRule):
    """s = decay * s + (1 - decay) * g^2;  theta -= eta * g / (sqrt(s) + epsilon).

    AdaGrad that forgets (Hinton 2012, Neural Networks for Machine Learning, lecture 6e).
    """

    def __init__(
        self,
        parameters: ParamsT,
        learning_rate: float,
        *,
        decay: float = 0.99,
        epsilon: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        options = {"lr": learning_rate, "decay": decay, "eps": epsilon, "weight_decay": weight_decay}
        super().__init__(parameters, options)

    def update(self, parameter: Tensor, gradient: Tensor, state: State, group: Group) -> None:
        gradient = with_l2(gradient, parameter, group)
        decay = group["decay"]
        squares = zeros(state, "squares", parameter).mul_(decay).addcmul_(gradient, gradient, value=1 - decay)
        parameter.addcdiv_(gradient, squares.sqrt().add_(group["eps"]), value=-group["lr"])
