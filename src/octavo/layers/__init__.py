"""The blocks that models are built from, each once, in PyTorch.  Training and the reference use them."""

from octavo.layers.diagnosis import Diagnosis, diagnose

__all__ = ["Diagnosis", "diagnose"]
