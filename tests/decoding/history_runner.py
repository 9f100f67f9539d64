"""A runner without weights: its logits are a pure function of the token history as the KV blocks hold it.

A wrong block table, position, chunk or release changes the history that it reads, and with it the tokens.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

FREE = -1


class HistoryRunner:
    def __init__(self, *, block_count: int = 16, max_step_tokens: int = 8, vocabulary_size: int = 32) -> None:
        self.vocabulary_size = vocabulary_size
        self.hidden_size = 16
        self.block_size = 4
        self.block_count = block_count
        self.max_step_tokens = max_step_tokens
        self.bytes_per_token = 0
        self.stored = np.full((block_count, self.block_size), FREE, np.int64)
        self.steps = 0
        self.largest_company = 0
        self.before_step: Callable[[], None] = lambda: None

    def history_logits(self, history: NDArray[np.int64]) -> NDArray[np.float32]:
        assert (history != FREE).all(), "a token looks at a place of the cache that nobody wrote"
        generator = np.random.default_rng(zlib.crc32(history.tobytes()))
        return generator.standard_normal(self.vocabulary_size).astype(np.float32) * 3

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
        assert 0 < len(tokens) <= self.max_step_tokens
        self.before_step()
        self.steps += 1
        self.largest_company = max(self.largest_company, len(set(rows.tolist())))
        for token, position, row in zip(tokens, positions, rows, strict=True):
            block = block_tables[row, position // self.block_size]
            self.stored[block, position % self.block_size] = token
        for token, row in [] if shares is None else shares.tolist():
            block = block_tables[row, positions[token] // self.block_size]
            self.stored[block, positions[token] % self.block_size] = tokens[token]
        for index, output in enumerate(outputs):
            length = int(positions[output]) + 1
            blocks = block_tables[rows[output], : -(-length // self.block_size)]
            logits[index] = self.history_logits(self.stored[blocks].reshape(-1)[:length])

    def copy_block(self, source: int, target: int) -> None:
        self.stored[target] = self.stored[source]

    def hidden(self, *arguments: NDArray[np.generic]) -> None:
        raise AssertionError("these tests embed nothing")

    def cancel(self) -> None:
        pass
