"""octavo's side of each comparison: the engine as a user has it, and the native step alone.

B: sequences of a batch.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import octavo
from benchmarks.workload import Prompts, median
from octavo.decoding.generation import Generation
from octavo.decoding.sampling import SamplingOptions

_GREEDY = SamplingOptions(temperature=0.0)


def speed_of(generations: Sequence[Generation], tokens: int) -> float:
    """Tokens a second of all, from when all run and over `tokens` of the last; then they are cancelled."""
    for generation in generations:
        next(generation)
    began = time.perf_counter()
    for _ in range(tokens):
        next(generations[-1])
    seconds = time.perf_counter() - began
    for generation in generations:
        generation.cancel()
    return len(generations) * tokens / seconds


class Octavo:
    """A loaded model.  Speeds are tokens a second, of all sequences together."""

    def __init__(self, path: Path, *, threads: int, sequences: int = 1) -> None:
        # Its context is 4,096 tokens by default, or the model's own: the same that the peer is given.
        self._model = octavo.load(path, threads=threads, max_sequences=sequences, draft="off")
        self._prompts = Prompts()

    def prompt(self, tokens: int) -> float:
        """From handing in the prompt to its first token."""
        prompt = self._prompts.next(tokens)
        began = time.perf_counter()
        generation = self._submit(prompt, 1)
        next(generation)
        return tokens / (time.perf_counter() - began)

    def generate(self, tokens: int, batch: int = 1, depth: int = 0) -> float:
        """Greedy generation after `depth` tokens, from when all B sequences run; B tokens a step.

        The sequence that began last is timed: of the others the engine may hold tokens from steps before.
        """
        room = tokens + 64  # so that all still run when the last has made its tokens
        return speed_of([self._submit(self._prompts.next(max(depth, 1)), room) for _ in range(batch)], tokens)

    def step_seconds(self, batch: int, steps: int = 32) -> float:
        """Median time of one native step of one new token for each of B sequences: no engine, no sampling."""
        runner = self._model.runner
        blocks_each = -(-(steps + 2) // runner.block_size)
        rows = np.arange(batch, dtype=np.int32)
        tokens = np.asarray(self._prompts.next(batch), np.int32)
        logits = np.empty((batch, runner.vocabulary_size), np.float32)
        seconds = []
        with self._model.engine.borrow(batch * blocks_each) as blocks:
            tables = np.asarray(blocks, np.int32).reshape(batch, blocks_each)
            for position in range(steps + 2):
                positions = np.full(batch, position, np.int32)
                began = time.perf_counter()
                runner.step(tokens, positions, rows, tables, rows, logits)
                seconds.append(time.perf_counter() - began)
        return median(seconds[2:])

    def cache_bytes(self, tokens: int) -> int:
        """What a sequence touches of a KV cache in float16: keys and values of each layer, for 256 tokens at
        once, and at most those of the pool."""
        runner, config = self._model.runner, self._model.config
        each = 2 * 2 * config.layers * config.key_value_heads * config.head_width
        pool = runner.block_count * runner.block_size
        return each * min(pool, -(-tokens // 256) * 256)

    def _submit(self, prompt: list[int], tokens: int) -> Generation:
        return self._model.engine.submit(prompt, _GREEDY, max_tokens=tokens)


class OctavoEmbedder:
    """An encoder loaded by octavo."""

    def __init__(self, path: Path, *, threads: int) -> None:
        self._model = octavo.load(path, threads=threads, draft="off")

    def embed_seconds(self, texts: list[str]) -> float:
        """Time to embed all the texts, tokenizing included."""
        began = time.perf_counter()
        self._model.embed(texts)
        return time.perf_counter() - began
