"""What a model said and the hidden states that it said it from, on disk: the data of a draft head.

states.bin holds float16 [N, H], tokens.bin int32 [N], places.bin int32 [N, 2]: row i is a state, the token
that was drawn from it, and the numbers of the prompt and of the answer that they belong to.  Rows of one
answer follow each other.

N: rows, H: hidden size.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from octavo.errors import FormatError

_LARGEST = 65504.0  # of float16


@dataclass(frozen=True, eq=False)
class HiddenStates:
    """states float16 [N, H], mapped; tokens int32 [N]; groups int32 [N], answers int32 [N]: their numbers."""

    states: NDArray[np.float16]
    tokens: NDArray[np.int32]
    groups: NDArray[np.int32]
    answers: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.tokens)

    def part(self, chosen: NDArray[np.bool_]) -> HiddenStates:
        """Only these rows, bool [N], copied where they are not all."""
        if chosen.all():
            return self
        return HiddenStates(
            self.states[chosen], self.tokens[chosen], self.groups[chosen], self.answers[chosen]
        )


class HiddenStatesWriter:
    """A context manager that appends answers; most: rows, after which it takes no more."""

    def __init__(self, folder: Path, hidden_size: int, *, most: int) -> None:
        self.folder, self.hidden_size, self.most = folder, hidden_size, most
        self.rows = self.answers = 0

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._files = [(self.folder / f"{name}.bin").open("wb") for name in ("states", "tokens", "places")]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in self._files:
            file.close()

    @property
    def is_full(self) -> bool:
        return self.rows >= self.most

    def add(self, states: NDArray[np.floating], tokens: NDArray[np.int32], group: int) -> None:
        """An answer to the prompt number `group`: states [T, H] and the tokens int32 [T] drawn from them."""
        count = min(len(tokens), self.most - self.rows)
        if count < 1:
            return
        halves = np.clip(states[:count], -_LARGEST, _LARGEST).astype(np.float16)
        places = np.full((count, 2), (group, self.answers), np.int32)
        for file, rows in zip(self._files, (halves, tokens[:count], places), strict=True):
            file.write(np.ascontiguousarray(rows).tobytes())
        self.rows += count
        self.answers += 1


def open_hidden_states(folder: Path, hidden_size: int) -> HiddenStates:
    """What a writer left.  Raises FormatError where there is nothing."""
    tokens = np.fromfile(folder / "tokens.bin", np.int32)
    if not len(tokens):
        raise FormatError(f"{folder}: no answer was recorded: are there any prompts?")
    places = np.fromfile(folder / "places.bin", np.int32).reshape(-1, 2)
    states = np.memmap(folder / "states.bin", np.float16, "r", shape=(len(tokens), hidden_size))
    return HiddenStates(states, tokens, places[:, 0].copy(), places[:, 1].copy())
