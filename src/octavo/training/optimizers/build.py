"""From a name and a model to an optimizer whose groups are right: what decays, what Muon takes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from octavo.errors import UnsupportedError
from octavo.training.optimizers.adam import Adam, AdaMax, AdamW, NAdam
from octavo.training.optimizers.adaptive import AdaGrad, RMSProp
from octavo.training.optimizers.lion import Lion
from octavo.training.optimizers.muon import Muon
from octavo.training.optimizers.sgd import SGD

# Name -> the class, and what differs from its defaults.
_RULES: Mapping[str, tuple[Callable[..., torch.optim.Optimizer], Mapping[str, Any]]] = {
    "sgd": (SGD, {}),
    "momentum": (SGD, {"momentum": 0.9}),
    "nesterov": (SGD, {"momentum": 0.9, "nesterov": True}),
    "adagrad": (AdaGrad, {}),
    "rmsprop": (RMSProp, {}),
    "adam": (Adam, {}),
    "adamax": (AdaMax, {}),
    "nadam": (NAdam, {}),
    "adamw": (AdamW, {}),
    "lion": (Lion, {}),
}
OPTIMIZERS = (*_RULES, "muon")


def build_optimizer(
    name: str, model: nn.Module, *, learning_rate: float, weight_decay: float, **options: Any
) -> torch.optim.Optimizer:
    """An optimizer over the parameters of a model that are not frozen.

    name: one of OPTIMIZERS; "muon" is Muon for `hidden_matrices`, AdamW for all else.
    Weight decay is left out for parameters of fewer than two dimensions (gains and biases).
    options: keywords of the class (momentum, betas, epsilon, ...).
    Raises UnsupportedError for an unknown name or option, and where there is nothing to train.
    """
    if name not in OPTIMIZERS:
        raise UnsupportedError(f"optimizer {name!r} is not known; there are {', '.join(OPTIMIZERS)}")
    trained = {key: each for key, each in model.named_parameters() if each.requires_grad}
    if not trained:
        raise UnsupportedError("the model has no parameter to train: all are frozen")
    if name == "muon":
        _check_options(name, Muon, options)
        chosen = hidden_matrices(model)
        matrices = [each for key, each in trained.items() if key in chosen]
        others = [each for key, each in trained.items() if key not in chosen]
        return Muon(matrices, others, learning_rate=learning_rate, weight_decay=weight_decay, **options)
    rule, defaults = _RULES[name]
    _check_options(name, rule, options)
    groups = [
        {"params": [each for each in trained.values() if each.ndim > 1], "weight_decay": weight_decay},
        {"params": [each for each in trained.values() if each.ndim < 2], "weight_decay": 0.0},
    ]
    return rule([group for group in groups if group["params"]], learning_rate, **{**defaults, **options})


def _check_options(name: str, rule: Callable[..., object], options: Mapping[str, object]) -> None:
    known = [key for key in inspect.signature(rule).parameters if key not in _GIVEN]
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise UnsupportedError(f"optimizer {name} has no option {unknown[0]!r}; it has {', '.join(known)}")


_GIVEN = ("parameters", "matrices", "others", "learning_rate", "weight_decay")


def hidden_matrices(model: nn.Module) -> set[str]:
    """Names of the matrices that map hidden states to hidden states: those of linear layers in a stack.

    A stack is a ModuleList or Sequential, as the blocks of every model here.  A matrix that is also an
    embedding (tied) is none of them.
    """
    embeddings: set[Tensor] = {each.weight for each in model.modules() if isinstance(each, nn.Embedding)}
    stacks = [key for key, each in model.named_modules() if isinstance(each, nn.ModuleList | nn.Sequential)]
    found = set()
    for key, module in model.named_modules():
        in_stack = any(not stack or key.startswith(f"{stack}.") for stack in stacks)
        if isinstance(module, nn.Linear) and in_stack and module.weight not in embeddings:
            found.add(f"{key}.weight")
    return found
