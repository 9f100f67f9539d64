"""What the engine needs of a model: one step for new tokens of any sequences.  The native plan has it.

T: new tokens of a step, R: outputs wanted, S: rows of the block tables, B: blocks in a row, V: vocabulary,
H: hidden.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Runner(Protocol):
    """A model with a pool of KV blocks.  One step runs at a time.

    block_size: tokens in a block.  block_count: blocks of the pool.  max_step_tokens: new tokens in one step.
    bytes_per_token: bytes of weights that a step reads, for measurements.
    """

    @property
    def vocabulary_size(self) -> int: ...
    @property
    def hidden_size(self) -> int: ...
    @property
    def block_size(self) -> int: ...
    @property
    def block_count(self) -> int: ...
    @property
    def max_step_tokens(self) -> int: ...
    @property
    def bytes_per_token(self) -> int: ...

    def step(
        self,
        tokens: NDArray[np.int32],
        positions: NDArray[np.int32],
        rows: NDArray[np.int32],
        block_tables: NDArray[np.int32],
        outputs: NDArray[np.int32],
        logits: NDArray[np.float32],
        hidden: NDArray[np.float32] | None = None,
        shares: None = None,
        adapters: NDArray[np.int32] | None = None,
        /,
    ) -> None:
        """Run tokens int32 [T] at positions [T]; rows [T] says whose row of block_tables [S, B] a token uses.

        Tokens of one sequence are consecutive and ascend in position.  Their keys and values are stored
        before any attention, so a chunk of a prompt is one call.  Logits float32 [R, V] are written for the
        tokens with the indices outputs [R], and beside them their last hidden states float32 [R, H]
        where `hidden` is given.  adapters int32 [S]: of each row of the block tables, or -1;
        shares are the native step's own.  Any exception, of `cancel` too, leaves the stored keys
        and values undefined.
        """

    def hidden(
        self,
        tokens: NDArray[np.int32],
        positions: NDArray[np.int32],
        rows: NDArray[np.int32],
        block_tables: NDArray[np.int32],
        outputs: NDArray[np.int32],
        out: NDArray[np.float32],
        /,
    ) -> None:
        """As `step`, but writes last hidden states float32 [R, H] instead of logits."""

    def cancel(self) -> None:
        """Ask the step that runs now, in another thread, to raise CancelledError soon, if there is one."""


class TreeRunner(Protocol):
    """What branches of drafts need besides (speculation/branches.py); a native model has it."""

    def step(
        self,
        tokens: NDArray[np.int32],
        positions: NDArray[np.int32],
        rows: NDArray[np.int32],
        block_tables: NDArray[np.int32],
        outputs: NDArray[np.int32],
        logits: NDArray[np.float32],
        hidden: NDArray[np.float32] | None = None,
        shares: NDArray[np.int32] | None = None,
        adapters: NDArray[np.int32] | None = None,
        /,
    ) -> None:
        """As `Runner.step`; shares int32 [n, 2]: a token by index, and one more row whose blocks store it."""

    def copy_block(self, source: int, target: int, /) -> None:
        """All keys and values of one block become another's."""
