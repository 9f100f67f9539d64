"""The paged KV cache as the scheduler sees it: which blocks are free, whose the others are, what they cost.

Token t of a sequence lies in block table[t // block_size] at row t % block_size (Kwon et al. 2023, "Efficient
memory management for large language model serving with PagedAttention").  The bytes themselves belong to the
native core.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from octavo.errors import OutOfMemoryError
from octavo.model_config import ModelConfig

KVType = Literal["f16", "int8"]
KVChoice = Literal["auto", "f16", "int8"]

# Their keys carry a bias far larger than what tells one key from another, so 8 bits for both are too few:
# int8 moves Qwen2.5-Coder 0.5B by 0.01 nats from its own distribution (f16: 0.0003), SmolLM2 by 0.0003.
BIASED_KEYS = frozenset({"gpt2", "qwen2"})


def resolve_kv_type(choice: KVChoice, config: ModelConfig, *, adapted: bool = False) -> KVType:
    """What "auto" means for a model: int8, but f16 where that costs accuracy, or where nothing is kept.

    adapted: it has adapters, whose outputs shall be those of merged models: int8 is a third of their distance
    (benchmarks/adapter_serving.py).
    """
    if choice not in ("auto", "f16", "int8"):
        raise ValueError(f"kv_type: {choice!r}, and it must be 'auto', 'f16' or 'int8'")
    if choice != "auto":
        return choice
    return "f16" if adapted or config.architecture in BIASED_KEYS or config.is_encoder else "int8"


def blocks_for(tokens: int, block_size: int) -> int:
    """Blocks that hold this many tokens."""
    return -(-tokens // block_size)


class BlockAllocator:
    """A pool of blocks with reference counts: a block is free when nobody refers to it.

    Sharing (`share`) is for prefixes that several sequences have in common.  Not safe from several threads by
    itself.
    """

    def __init__(self, block_count: int) -> None:
        if block_count < 1:
            raise ValueError(f"block_count: {block_count}, and a pool needs at least 1 block")
        self.block_count = block_count
        self.reset()

    def reset(self) -> None:
        """Free every block."""
        self._references = [0] * self.block_count
        # The last is taken first: low ids first, and what was used last is warm.
        self._free = list(range(self.block_count - 1, -1, -1))

    @property
    def free_count(self) -> int:
        return len(self._free)

    def allocate(self, count: int) -> list[int]:
        """`count` blocks with one reference each; where fewer are free, OutOfMemoryError and none taken."""
        if count > len(self._free):
            raise OutOfMemoryError(
                f"the KV cache has {len(self._free)} of {self.block_count} blocks free and {count} are needed"
            )
        if count == 0:
            return []
        blocks = self._free[-count:][::-1]
        del self._free[-count:]
        for block in blocks:
            self._references[block] = 1
        return blocks

    def share(self, blocks: Iterable[int]) -> None:
        """One more reference to each block, all of which are in use."""
        for block in blocks:
            assert self._references[block] > 0, f"block {block} is free and cannot be shared"
            self._references[block] += 1

    def release(self, blocks: Iterable[int]) -> None:
        """One reference less to each block; those without any are free again."""
        for block in blocks:
            assert self._references[block] > 0, f"block {block} is free already"
            self._references[block] -= 1
            if self._references[block] == 0:
                self._free.append(block)


def kv_bytes(config: ModelConfig, kv_type: KVType = "f16") -> int:
    """Bytes of one token's keys and values: 2 * layers * key-value heads * head width * bytes of an element.

    int8 adds a float32 scale for each key and value of a head.  An encoder sees a text in one step, and its
    layers share one layer of cache.
    """
    if kv_type not in ("f16", "int8"):
        raise ValueError(f"kv_type: {kv_type!r}, and it must be 'f16' or 'int8'")
    per_head = 2 * config.head_width if kv_type == "f16" else config.head_width + 4
    layers = config.layers if config.causal else 1
    return 2 * layers * config.key_value_heads * per_head


def blocks_that_fit(
    config: ModelConfig,
    tokens: int,
    *,
    block_size: int,
    available_bytes: int,
    kv_type: KVType = "f16",
) -> int:
    """Blocks of a pool for `tokens` tokens, before any memory is taken.

    Raises OutOfMemoryError, which says what is needed, what is there and how many tokens would fit.
    """
    per_token = kv_bytes(config, kv_type)
    blocks = blocks_for(tokens, block_size)
    needed = blocks * block_size * per_token
    if needed > available_bytes:
        fitting = max(available_bytes, 0) // (per_token * block_size) * block_size
        smaller = " or kv_type='int8' (about half the memory)" if kv_type == "f16" else ""
        raise OutOfMemoryError(
            f"a KV cache of {tokens} tokens needs {needed / 2**20:,.0f} MiB and "
            f"{available_bytes / 2**20:,.0f} MiB are available: ask for {fitting} tokens or fewer{smaller}"
        )
    return blocks
