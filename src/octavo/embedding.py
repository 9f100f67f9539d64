"""Texts to vectors: the last hidden states of each text, pooled.

A text borrows KV blocks from the engine's pool for as long as its pass takes.  Short texts share a step.

N: tokens of all texts of a step, S: texts of a step, B: blocks of the longest, D: hidden size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from octavo.decoding.runner import Runner

# borrow(number of blocks) lends that many blocks of the KV pool, and the right to step, for a `with` block.
Borrow = Callable[[int], AbstractContextManager[Sequence[int]]]


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where each token of a group of texts goes: arrays of `Runner.step`."""

    tokens: NDArray[np.int32]  # [N]
    positions: NDArray[np.int32]  # [N]
    rows: NDArray[np.int32]  # [N]
    block_tables: NDArray[np.int32]  # [S, B]
    starts: NDArray[np.intp]  # [S]: index of the first token of each text


def _block_counts(texts: Sequence[Sequence[int]], block_size: int) -> list[int]:
    return [-(-len(text) // block_size) for text in texts]


def _lay_out(texts: Sequence[Sequence[int]], blocks: Sequence[int], block_size: int) -> _Layout:
    counts = _block_counts(texts, block_size)
    tables = np.zeros((len(texts), max(counts)), np.int32)
    taken = 0
    for row, count in enumerate(counts):
        tables[row, :count] = blocks[taken : taken + count]
        taken += count
    lengths = [len(text) for text in texts]
    return _Layout(
        tokens=np.concatenate([np.asarray(text, np.int32) for text in texts]),
        positions=np.concatenate([np.arange(length, dtype=np.int32) for length in lengths]),
        rows=np.repeat(np.arange(len(texts), dtype=np.int32), lengths),
        block_tables=tables,
        starts=np.cumsum([0, *lengths[:-1]]),
    )


def _chunks(total: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, total)) for start in range(0, total, size))


def groups_of_texts(lengths: Sequence[int], limit: int) -> Iterator[list[int]]:
    """Indices of consecutive texts that together have at most `limit` tokens; a longer text is alone."""
    group: list[int] = []
    total = 0
    for index, length in enumerate(lengths):
        if group and total + length > limit:
            yield group
            group, total = [], 0
        group.append(index)
        total += length
    if group:
        yield group


def pooled_states(
    runner: Runner, borrow: Borrow, texts: Sequence[Sequence[int]], *, pooling: str, normalize: bool
) -> NDArray[np.float32]:
    """One vector for each text, float32 [texts, D]: the mean of its last hidden states, or the first ("cls").

    An encoder's text must fit one step (`runner.max_step_tokens`), since each token attends to all.
    """
    vectors = np.empty((len(texts), runner.hidden_size), np.float32)
    for group in groups_of_texts([len(text) for text in texts], runner.max_step_tokens):
        members = [texts[index] for index in group]
        with borrow(sum(_block_counts(members, runner.block_size))) as blocks:
            layout = _lay_out(members, blocks, runner.block_size)
            states = _hidden_states(runner, layout)
        if pooling == "cls":
            vectors[group] = states[layout.starts]
        else:
            lengths = np.array([len(text) for text in members], np.float32)
            vectors[group] = np.add.reduceat(states, layout.starts, axis=0) / lengths[:, None]
    if normalize:
        vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.float32(1e-12))
    return vectors


def _hidden_states(runner: Runner, layout: _Layout) -> NDArray[np.float32]:
    total = len(layout.tokens)
    states = np.empty((total, runner.hidden_size), np.float32)
    for part in _chunks(total, runner.max_step_tokens):
        runner.hidden(
            layout.tokens[part],
            layout.positions[part],
            layout.rows[part],
            layout.block_tables,
            np.arange(part.stop - part.start, dtype=np.int32),
            states[part],
        )
    return states
