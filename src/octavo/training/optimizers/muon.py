"""Muon: momentum whose every direction counts the same.

Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks".

The momentum of a matrix, U S V^T, is replaced by about U V^T: the steepest step under the spectral norm
(Bernstein and Newhouse 2024).  It is for the matrices between hidden states; embeddings, the output layer,
gains and biases get AdamW (Jordan et al., "Usage"), here by the same optimizer, in groups of their own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from octavo.training.optimizers.adam import adam_update, fused_adamw
from octavo.training.optimizers.update_rule import zeros
from octavo.training.precision import DTYPES

# a x + b x^3 + c x^5, applied to every singular value: five rounds bring all from about 0.02 to 1 to within
# about 0.7 to 1.2 (Jordan et al., "Newton-Schulz iteration").
COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def orthogonalize(matrices: Tensor, *, steps: int = 5, dtype: torch.dtype = torch.float32) -> Tensor:
    """[N, rows, columns] -> about U V^T of each U S V^T, in dtype: the quintic Newton-Schulz iteration.

    All matrices go through each product at once.  A tall matrix is turned, so that the square products are
    of the smaller side.
    """
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = (matrices.mT if tall else matrices).to(dtype)
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    a, b, c = COEFFICIENTS
    for _ in range(steps):
        square = x @ x.mT
        polynomial = torch.baddbmm(square, square, square, beta=b, alpha=c)  # b A + c A^2
        x = torch.baddbmm(x, polynomial, x, beta=a)
    return x.mT if tall else x


def update_scale(rows: int, columns: int, matching: Literal["adam", "spectral"]) -> float:
    """What the learning rate of a matrix is multiplied by.

    "adam": 0.2 sqrt(larger side), so that updates have the root mean square that Adam's usually have and one
        learning rate serves both (Liu et al. 2025, Muon is Scalable for LLM Training, equation 4).
    "spectral": sqrt(max(1, rows / columns)), Jordan's own, for learning rates of about 0.02.
    """
    if matching == "adam":
        return 0.2 * math.sqrt(max(rows, columns))
    return math.sqrt(max(1.0, rows / columns))


class Muon(torch.optim.Optimizer):
    """Muon for `matrices` and AdamW for `others`, in one optimizer with ordinary groups and state.

    learning_rate: of both, unless other_learning_rate is given.  momentum, nesterov, steps, matching, dtype
    ("float32" or "bfloat16", of the iteration) are Muon's; betas and epsilon AdamW's.
    Weight decay is decoupled in both and left out for others of fewer than two dimensions (norms, biases).
    Raises ValueError for a matrix that has not two dimensions.
    """

    def __init__(
        self,
        matrices: Iterable[Tensor],
        others: Iterable[Tensor] = (),
        *,
        learning_rate: float,
        other_learning_rate: float | None = None,
        weight_decay: float = 0.0,
        momentum: float = 0.95,
        nesterov: bool = True,
        steps: int = 5,
        matching: Literal["adam", "spectral"] = "adam",
        dtype: str = "float32",
        betas: tuple[float, float] = (0.9, 0.95),
        epsilon: float = 1e-8,
        fused: bool = True,
    ) -> None:
        if dtype not in DTYPES:
            raise ValueError(f"dtype is {dtype!r}; Muon's iteration runs in {' or '.join(DTYPES)}")
        if matching not in ("adam", "spectral"):
            raise ValueError(f"matching is {matching!r}; it is 'adam' or 'spectral'")
        matrices = list(matrices)
        muon = {"rule": "muon", "lr": learning_rate, "weight_decay": weight_decay, "momentum": momentum}
        muon |= {"nesterov": nesterov, "steps": steps, "matching": matching, "dtype": dtype}
        rate = learning_rate if other_learning_rate is None else other_learning_rate
        adam = {"rule": "adamw", "lr": rate, "betas": list(betas), "eps": epsilon, "fused": fused}
        rest = list(others)
        groups: list[dict[str, Any]] = [
            {"params": matrices, **muon},
            {"params": [each for each in rest if each.ndim > 1], "weight_decay": weight_decay, **adam},
            {"params": [each for each in rest if each.ndim < 2], "weight_decay": 0.0, **adam},
        ]
        wrong = [tuple(matrix.shape) for matrix in groups[0]["params"] if matrix.ndim != 2]
        if wrong:
            raise ValueError(f"Muon is for matrices; one parameter has the shape {wrong[0]}")
        super().__init__([group for group in groups if group["params"]], {})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One update of every parameter that has a gradient; gives the closure's loss, if there is one."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            if group["rule"] == "muon":
                self._muon(group)
            elif group["fused"]:
                fused_adamw(group, self.state)
            else:
                self._adamw(group)
        return loss

    def _muon(self, group: Mapping[str, Any]) -> None:
        by_shape: dict[torch.Size, list[Tensor]] = {}
        for parameter in group["params"]:
            if parameter.grad is not None:
                by_shape.setdefault(parameter.shape, []).append(parameter)
        for (rows, columns), parameters in by_shape.items():
            direction = torch.stack(list(self._momentum(parameters, group)))
            turned = orthogonalize(direction, steps=group["steps"], dtype=DTYPES[group["dtype"]])
            scale = update_scale(rows, columns, group["matching"])
            torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
            updates = turned.to(parameters[0].dtype).unbind()
            torch._foreach_add_(parameters, updates, alpha=-group["lr"] * scale)

    def _momentum(self, parameters: Sequence[Tensor], group: Mapping[str, Any]) -> Sequence[Tensor]:
        """m = momentum * m + (1 - momentum) * g of each; with nesterov the same once more on top of g."""
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        means = [zeros(self.state[parameter], "mean", parameter) for parameter in parameters]
        torch._foreach_lerp_(means, gradients, 1 - group["momentum"])
        if not group["nesterov"]:
            return means
        return torch._foreach_lerp(gradients, means, group["momentum"])

    def _adamw(self, group: dict[str, Any]) -> None:
        for parameter in group["params"]:
            if parameter.grad is not None:
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                adam_update(parameter, parameter.grad, self.state[parameter], group)
