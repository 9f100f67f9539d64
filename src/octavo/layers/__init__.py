"""The blocks that models are built from, each once, in PyTorch.  Training and the reference use them.

More than a dozen files: each is one idea with its source, and fast paths stand beside what they speed up.
"""

from octavo.layers.diagnosis import Diagnosis, diagnose

__all__ = ["Diagnosis", "diagnose"]
