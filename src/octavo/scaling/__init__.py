"""Scaling laws: from your data, your machine and your hours to the model to train.

from octavo.scaling import fit_parametric

fit = fit_parametric(parameters, tokens, loss)
print(fit.law, fit.optimum(1e15), fit.bootstrap(1000).interval("a"))

Fitting and planning need numpy and scipy (pip install 'octavo[scaling]'); only workers need PyTorch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from octavo.scaling.fitting.isoflop import fit_envelope, fit_isoflop
    from octavo.scaling.fitting.parametric import fit_parametric
    from octavo.scaling.planning.plan import plan

__all__ = ["fit_envelope", "fit_isoflop", "fit_parametric", "plan"]

_HOMES = {
    "fit_envelope": "fitting.isoflop",
    "fit_isoflop": "fitting.isoflop",
    "fit_parametric": "fitting.parametric",
    "plan": "planning.plan",
}


if not TYPE_CHECKING:  # imported on first use: numpy and scipy are not free

    def __getattr__(name: str) -> object:
        if name not in _HOMES:
            raise AttributeError(f"module 'octavo.scaling' has no attribute {name!r}")
        return getattr(import_module(f"octavo.scaling.{_HOMES[name]}"), name)
