"""The limits of this machine: how fast memory is read, and how fast numbers are multiplied.

A step takes at least the time to read its bytes and the time of its operations, whichever is longer
(Williams et al. 2009, "Roofline").  Generating one sequence reads every weight for one token: its limit is
bandwidth / bytes per token.  A prompt shares the reading among its tokens: its limit is arithmetic.
"""

from __future__ import annotations

import json
import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from octavo.decoding.kv_cache import KVType, kv_bytes
from octavo.model_config import ModelConfig

if TYPE_CHECKING:
    from octavo.decoding.runner import Runner

_FILE_NAME = "bandwidth.json"
# Far beyond a last-level cache; less where memory is short.
_MEGABYTES = 512


@dataclass(frozen=True, slots=True)
class StepCost:
    """What a step must at least do: bytes to read and operations (a multiplication and an addition are 2)."""

    bytes: float
    operations: float


@dataclass(frozen=True, slots=True)
class Roofline:
    """bandwidth_gb_s: 10^9 bytes a second.  operations_per_second: of 8-bit dot products, 0 if unknown."""

    bandwidth_gb_s: float
    operations_per_second: float = 0.0

    def seconds(self, cost: StepCost) -> float:
        """The least time that a step can take."""
        reading = cost.bytes / (self.bandwidth_gb_s * 1e9)
        return (
            max(reading, cost.operations / self.operations_per_second)
            if self.operations_per_second
            else reading
        )


def step_cost(
    runner: Runner, config: ModelConfig, *, new: int, batch: int, depth: int, kv_type: KVType = "f16"
) -> StepCost:
    """Cost of `new` tokens for each of `batch` sequences that have `depth` tokens in the KV cache.

    Weights are read once however many tokens share the step; keys and values once for each sequence.
    Operations: the matrices of the blocks for each token, and the output matrix for one token a sequence.
    """
    rows = config.heads + 2 * config.key_value_heads
    attention = config.hidden_size * config.head_width * (rows + config.heads)
    feed_forward = config.hidden_size * config.feed_forward_size * (3 if config.gated else 2)
    output = config.hidden_size * config.vocabulary_size
    operations = 2.0 * batch * (new * config.layers * (attention + feed_forward) + output)
    cached = sum(min(depth, config.window(layer) or depth) for layer in range(config.layers))
    cache_bytes = cached * kv_bytes(config, kv_type) / config.layers
    return StepCost(bytes=runner.bytes_per_token + batch * cache_bytes, operations=operations)


def measure(threads: int, *, seconds: float = 0.3) -> Roofline:
    """Measure this machine now, with `threads` threads together, for about `seconds` each."""
    from octavo import _native

    measure_operations = getattr(_native, "measure_operations", None)
    operations = float(measure_operations(threads, seconds)) if measure_operations else 0.0
    return Roofline(_measure_bandwidth(threads, seconds), operations)


def _measure_bandwidth(threads: int, seconds: float) -> float:
    from octavo import _native, machine

    megabytes = max(64, min(_MEGABYTES, machine.available_memory() // 4 // 2**20))
    return float(_native.measure_bandwidth(threads, megabytes, seconds))


def instruction_set() -> str:
    """The instruction set that native steps use: OCTAVO_ISA, or the best of this machine."""
    from octavo import _native

    return str(_native.isa())


def memory_bandwidth(threads: int, *, seen: float = 0.0) -> float:
    """GB/s, measured once on this machine for this number of threads and kept in the cache folder.

    seen: GB/s that were really reached.  Where that is more than what is kept, the machine was busy with
    other things when it was measured: it is measured again.
    """
    path = _cache_file()
    known = _read(path)
    key = f"{platform.node()} {os.cpu_count()} {threads}"
    found = known.get(key)
    if isinstance(found, int | float) and seen <= found < 1e6 and found > 0:
        return float(found)
    bandwidth = max(_measure_bandwidth(threads, 0.3), seen)
    _write(path, known | {key: round(bandwidth, 2)})
    return bandwidth


def _cache_file() -> Path:
    from octavo.weights import hub

    return hub.cache_folder() / _FILE_NAME


def _read(path: Path) -> dict[str, Any]:
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _write(path: Path, known: dict[str, Any]) -> None:
    # One rename, so that Ctrl-C or a second process never leaves half a file; a cache that cannot be
    # written is measured again next time.
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(known), encoding="utf-8")
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
