"""The optimizers, each a rule of a few lines beside its paper; `build_optimizer` makes one by its name."""

from octavo.training.optimizers.adam import Adam, AdaMax, AdamW, NAdam
from octavo.training.optimizers.adaptive import AdaGrad, RMSProp
from octavo.training.optimizers.build import OPTIMIZERS, build_optimizer, hidden_matrices
from octavo.training.optimizers.lion import Lion
from octavo.training.optimizers.muon import Muon, orthogonalize
from octavo.training.optimizers.sgd import SGD

__all__ = [
    "OPTIMIZERS",
    "SGD",
    "AdaGrad",
    "AdaMax",
    "Adam",
    "AdamW",
    "Lion",
    "Muon",
    "NAdam",
    "RMSProp",
    "build_optimizer",
    "hidden_matrices",
    "orthogonalize",
]
