"""The scores of GLUE (Wang et al. 2018, section 3): accuracy, F1, Matthews' correlation."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def classification_scores(
    found: NDArray[np.integer], wanted: NDArray[np.integer], labels: Sequence[str]
) -> dict[str, float]:
    """accuracy; of two labels also f1 (of the second) and matthews; of words f1 of all labels but "O".

    found, wanted: numbers of labels.
    """
    scores = {"accuracy": float((found == wanted).mean()) if len(wanted) else 0.0}
    if len(labels) == 2:
        scores["f1"] = f1(found == 1, wanted == 1)
        scores["matthews"] = matthews(found == 1, wanted == 1)
    elif "O" in labels:
        outside = labels.index("O")
        hits = int(((found == wanted) & (wanted != outside)).sum())
        sizes = int((found != outside).sum()) + int((wanted != outside).sum())
        scores["f1"] = 2.0 * hits / sizes if sizes else 0.0
    return scores


def f1(found: NDArray[np.bool_], wanted: NDArray[np.bool_]) -> float:
    """The harmonic mean of precision and recall: 2 hits / (found + wanted)."""
    sizes = int(found.sum()) + int(wanted.sum())
    return 2.0 * int((found & wanted).sum()) / sizes if sizes else 0.0


def matthews(found: NDArray[np.bool_], wanted: NDArray[np.bool_]) -> float:
    """The correlation of two binary variables (Matthews 1975); 0 where one is constant."""
    hits, rest = int((found & wanted).sum()), int((~found & ~wanted).sum())
    too_many, too_few = int((found & ~wanted).sum()), int((~found & wanted).sum())
    norm = math.sqrt(float(hits + too_many) * (hits + too_few) * (rest + too_many) * (rest + too_few))
    return (hits * rest - too_many * too_few) / norm if norm else 0.0
