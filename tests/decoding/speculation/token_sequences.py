"""Sequences for tests that need no engine."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from octavo.decoding.sampling import SamplingOptions
from octavo.decoding.sequences import TokenSequence


def sequence_of(tokens: Sequence[int], room: int = 64) -> TokenSequence:
    ids = np.zeros(len(tokens) + room, np.int32)
    ids[: len(tokens)] = tokens
    return TokenSequence(
        ids=ids,
        prompt_length=len(tokens),
        options=SamplingOptions(temperature=0),
        seed=0,
        end_ids=(),
        submitted=0.0,
        length=len(tokens),
    )
