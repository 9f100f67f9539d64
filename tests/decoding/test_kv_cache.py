"""The block allocator against a plain model, and memory that is refused before it is taken."""

from __future__ import annotations

import dataclasses
import random

import pytest

from octavo.decoding.kv_cache import BlockAllocator, blocks_for, blocks_that_fit, kv_bytes, resolve_kv_type
from octavo.errors import OutOfMemoryError
from octavo.model_config import ModelConfig

CONFIG = ModelConfig(
    architecture="llama",
    vocabulary_size=100,
    context_length=64,
    hidden_size=64,
    layers=3,
    heads=4,
    key_value_heads=2,
    head_width=16,
    feed_forward_size=128,
    attention_scale=0.25,
)


@pytest.mark.parametrize("seed", range(5))
def test_references_against_a_plain_model(seed: int) -> None:
    chance = random.Random(seed)
    allocator, references = BlockAllocator(10), [0] * 10
    held: list[list[int]] = []
    for _ in range(500):
        action = chance.randrange(3)
        if action == 0:
            count = chance.randint(0, 5)
            if count > references.count(0):
                with pytest.raises(OutOfMemoryError, match="blocks free"):
                    allocator.allocate(count)
            else:
                blocks = allocator.allocate(count)
                assert len(set(blocks)) == count and all(references[block] == 0 for block in blocks)
                held.append(blocks)
                for block in blocks:
                    references[block] += 1
        elif held and action == 1:
            shared = chance.choice(held)
            allocator.share(shared)
            held.append(list(shared))
            for block in shared:
                references[block] += 1
        elif held:
            released = held.pop(chance.randrange(len(held)))
            allocator.release(released)
            for block in released:
                references[block] -= 1
        assert allocator.free_count == references.count(0)


def test_blocks_are_rounded_up() -> None:
    assert [blocks_for(tokens, 32) for tokens in (0, 1, 32, 33)] == [0, 1, 1, 2]


def test_bytes_of_a_token() -> None:
    assert kv_bytes(CONFIG) == 2 * 3 * 2 * 16 * 2
    assert kv_bytes(CONFIG, "int8") == 2 * 3 * 2 * (16 + 4)
    with pytest.raises(ValueError, match="kv_type"):
        kv_bytes(CONFIG, "f8")  # type: ignore[arg-type]


def test_a_pool_that_does_not_fit_is_refused_with_what_would() -> None:
    per_block = 32 * kv_bytes(CONFIG)
    assert blocks_that_fit(CONFIG, 64, block_size=32, available_bytes=2 * per_block) == 2
    with pytest.raises(OutOfMemoryError, match="ask for 32 tokens or fewer or kv_type='int8'"):
        blocks_that_fit(CONFIG, 64, block_size=32, available_bytes=2 * per_block - 1)


def test_auto_keeps_biased_keys_at_16_bits() -> None:
    assert resolve_kv_type("auto", CONFIG) == "int8"
    assert resolve_kv_type("auto", dataclasses.replace(CONFIG, architecture="qwen2")) == "f16"
    assert resolve_kv_type("auto", CONFIG, adapted=True) == "f16"
    assert resolve_kv_type("int8", CONFIG, adapted=True) == "int8"
    assert resolve_kv_type("f16", CONFIG) == "f16"
    with pytest.raises(ValueError, match="'auto', 'f16' or 'int8'"):
        resolve_kv_type("f64", CONFIG)  # type: ignore[arg-type]
