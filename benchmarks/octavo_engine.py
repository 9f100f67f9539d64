"""octavo's side of each comparison: the engine as a user has it, and the native step alone.

B: sequences of a batch.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

import octavo
from benchmarks.workload import Prompts, median
from octavo.decoding.engine import Generation
from octavo.decoding.sampling import SamplingOptions

_GREEDY = SamplingOptions(temperature=0.0)


class Octavo:
    """A loaded model.  Speeds are tokens a second, of all sequences together."""

    def __init__(self, path: Path, *, threads: int, sequences: int = 1) -> None:
        # Its context is 4,096 tokens by default, or the model's own: the same that the peer is given.
        self._model = octavo.load(path, threads=threads, max_sequences=sequences)
        self._prompts = Prompts()

    def prompt(self, tokens: int) -> float:
        """From handing in the prompt to its first token."""
        prompt = self._prompts.next(tokens)
        began = time.perf_counter()
        generation = self._submit(prompt, 1)
        next(generation)
        return tokens / (time.perf_counter() - began)

    def generate(self, tokens: int, batch: int = 1, depth: int = 0) -> float:
        """Greedy generation after `depth` tokens, from when all sequences run until the first has ended."""
        prompts = [self._prompts.next(max(depth, 1)) for _ in range(batch)]
        generations = [self._submit(prompt, tokens + 2 * batch) for prompt in prompts]
        for generation in generations:
            next(generation)
        already = sum(len(generation.tokens) for generation in generations)
        began = time.perf_counter()
        while all(generation.finish_reason is None for generation in generations):
            for generation in generations:
                next(generation, None)
        seconds = time.perf_counter() - began
        made = sum(len(generation.tokens) for generation in generations) - already
        for generation in generations:
            generation.cancel()
        return made / seconds

    def step_seconds(self, batch: int, steps: int = 32) -> float:
        """Median time of one native step of one new token for each of B sequences: no engine, no sampling."""
        runner = self._model.runner
        blocks_each = -(-(steps + 2) // runner.block_size)
        # Nothing else runs in this process now, so that the whole pool is ours.
        tables = np.arange(batch * blocks_each, dtype=np.int32).reshape(batch, blocks_each)
        rows = np.arange(batch, dtype=np.int32)
        tokens = np.asarray(self._prompts.next(batch), np.int32)
        logits = np.empty((batch, runner.vocabulary_size), np.float32)
        seconds = []
        for position in range(steps + 2):
            positions = np.full(batch, position, np.int32)
            began = time.perf_counter()
            runner.step(tokens, positions, rows, tables, rows, logits)
            seconds.append(time.perf_counter() - began)
        return median(seconds[2:])

    def _submit(self, prompt: list[int], tokens: int) -> Generation:
        return self._model.engine.submit(prompt, _GREEDY, max_tokens=tokens)


class OctavoEmbedder:
    """An encoder loaded by octavo."""

    def __init__(self, path: Path, *, threads: int) -> None:
        self._model = octavo.load(path, threads=threads)

    def embed_seconds(self, texts: list[str]) -> float:
        """Time to embed all the texts, tokenizing included."""
        began = time.perf_counter()
        self._model.embed(texts)
        return time.perf_counter() - began
