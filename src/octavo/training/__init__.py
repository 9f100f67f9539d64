"""Training: one loop, exact resume, and the parts around it.  Needs PyTorch: pip install 'octavo[train]'.

from octavo.training import TrainingConfig, train

result = train(TrainingConfig(out="my-gpt", minutes=2))

More than a dozen files: the loop is one, and each part that it asks is another.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from octavo.training.config import TrainingConfig
    from octavo.training.loop import TrainingResult, train

__all__ = ["TrainingConfig", "TrainingResult", "train"]

_HOMES = {"TrainingConfig": "config", "TrainingResult": "loop", "train": "loop"}


if not TYPE_CHECKING:  # imported on first use: the configuration alone needs no PyTorch

    def __getattr__(name: str) -> object:
        if name not in _HOMES:
            raise AttributeError(f"module 'octavo.training' has no attribute {name!r}")
        return getattr(import_module(f"octavo.training.{_HOMES[name]}"), name)
