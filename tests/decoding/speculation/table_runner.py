"""A runner whose logits are a table of the last two tokens: small enough to know the law of every text."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

VOCABULARY = 8


class TableRunner:
    """Reads the tokens before from the cache, so that a wrong rollback or a stale cache shows."""

    def __init__(self, seed: int, *, like: TableRunner | None = None, spread: float = 1.0) -> None:
        table = np.random.default_rng(seed).standard_normal((VOCABULARY, VOCABULARY, VOCABULARY))
        self.table = (table * spread + (0 if like is None else like.table)).astype(np.float32)
        self.vocabulary_size = VOCABULARY
        self.hidden_size = 16
        self.block_size = 4
        self.block_count = 1024
        self.max_step_tokens = 1024
        self.bytes_per_token = 0
        self.stored = np.zeros((self.block_count, self.block_size), np.int64)

    def step(
        self,
        tokens: NDArray[np.int32],
        positions: NDArray[np.int32],
        rows: NDArray[np.int32],
        block_tables: NDArray[np.int32],
        outputs: NDArray[np.int32],
        logits: NDArray[np.float32],
        hidden: None = None,
        shares: NDArray[np.int32] | None = None,
        /,
    ) -> None:
        size = self.block_size
        self.stored[block_tables[rows, positions // size], positions % size] = tokens
        for token, row in [] if shares is None else shares.tolist():
            block = block_tables[row, positions[token] // size]
            self.stored[block, positions[token] % size] = tokens[token]
        before = np.maximum(positions[outputs] - 1, 0)
        earlier = self.stored[block_tables[rows[outputs], before // size], before % size]
        logits[:] = self.table[earlier, tokens[outputs]]

    def copy_block(self, source: int, target: int, /) -> None:
        self.stored[target] = self.stored[source]

    def hidden(self, *arguments: NDArray[np.generic]) -> None:
        raise AssertionError("these tests embed nothing")

    def cancel(self) -> None:
        pass
