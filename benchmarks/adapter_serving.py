"""Adapters in one batch beside the base alone: tokens a second of 8 sequences, and whether outputs hold.

16 adapters of rank 16 on all linear layers, with random numbers, are loaded.  The 8 sequences of a batch
share one or four of them, or each has its own: the first eight and the last eight of the 16 in turn.  An
adapter's logits on a text are compared with those of the model that it was merged into (bfloat16).
"""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

import numpy as np
import torch

import octavo
from benchmarks.comparison import take_turns
from benchmarks.octavo_engine import speed_of
from benchmarks.report import Report, main
from benchmarks.workload import Options, Prompts, median, model_paths
from octavo.adapters.base import build_adapted
from octavo.adapters.files import save_adapter
from octavo.adapters.merge import merge, save_like
from octavo.api import Model
from octavo.decoding.sampling import SamplingOptions
from octavo.weights.adapter import AdapterConfig, read_adapter
from octavo.weights.checkpoint import open_checkpoint
from octavo.weights.tensor import TensorType

MODEL = {"smollm2-135m": "SmolLM2-135M-Instruct.Q4_1.gguf"}
SEQUENCES, LOADED, RANK = 8, 16, 16
COUNTS = (1, 4, 16)
PROMPT, TOKENS, JUDGED = 64, 48, 256
# Of the random numbers of `up`: enough to move every token's probabilities.
DEVIATION = 0.01


def make_adapters(base: Path, folder: Path) -> list[Path]:
    """Folders of adapters with random numbers."""
    checkpoint = open_checkpoint(base)
    config = AdapterConfig(rank=RANK, alpha=2 * RANK)
    _, adapters = build_adapted(checkpoint.config, checkpoint.tensors, config, method="qlora")
    made = []
    for number in range(LOADED):
        generator = torch.Generator().manual_seed(number)
        with torch.no_grad():
            for pair in adapters.pairs.values():
                pair.up.normal_(std=DEVIATION, generator=generator)
        made.append(folder / f"adapter{number}")
        save_adapter(adapters, made[-1])
    return made


class Server:
    """A model with its adapters, asked for the speed of a batch."""

    def __init__(self, model: Model) -> None:
        self._model, self._prompts, self._round = model, Prompts(), 0

    def speed(self, count: int) -> float:
        """Tokens a second of all sequences, of which sequence i has adapter i modulo `count`; 0: none."""
        self._round += 1
        first = SEQUENCES * (self._round % 2) if count > SEQUENCES else 0
        options = SamplingOptions(temperature=0.0)
        generations = []
        for index in range(SEQUENCES):
            number = self._model.adapters.number(f"a{(first + index) % count}") if count else -1
            prompt = self._prompts.next(PROMPT)
            generations.append(
                self._model.engine.submit(prompt, options, max_tokens=2 * TOKENS, adapter=number)
            )
        return speed_of(generations, TOKENS)


def divergence(expected: np.ndarray, found: np.ndarray) -> float:
    """The mean of KL(expected || found) over positions, in nats."""
    p, q = (torch.log_softmax(torch.from_numpy(logits).double(), -1) for logits in (expected, found))
    return float((p.exp() * (p - q)).sum(-1).mean())


def agreement(base: Path, adapter: Path, folder: Path, threads: int) -> list[str]:
    """Notes: how far an adapter is from the model it was merged into, and the base from its own floats.

    The second is what products with activations in 8 bits cost anyway: the twins multiply in float.  Keys and
    values are rounded on both sides, so a cache in 8 bits, which is not the default with adapters, adds to
    each distance.
    """
    checkpoint = open_checkpoint(base)
    read = read_adapter(adapter, checkpoint.config)
    values = ((name, tensor.numpy()) for name, tensor in checkpoint.tensors.items())
    merged = merge(checkpoint, read, folder / "merged.gguf", TensorType.F32)
    plain = save_like(checkpoint, values, folder / "base.gguf", TensorType.F32)
    tokens, notes = Prompts().next(JUDGED), []
    for cache in ("int8", "f16"):

        def logits(path: Path, adapter_name: str | None = None, cache: str = cache) -> np.ndarray:
            with octavo.load(
                path, threads=threads, draft="off", kv_type=cache, adapters={"a": adapter}
            ) as model:
                return model.logits(tokens, adapter=adapter_name)

        found = divergence(logits(merged), logits(base, "a"))
        itself = divergence(logits(plain), logits(base))
        notes.append(
            f"{JUDGED} tokens, cache in {cache}: mean KL of an adapter to the model it was merged into "
            f"{found:.5f}, of the base to its own weights in floats {itself:.5f}."
        )
    return notes


def run(options: Options) -> Report:
    report = Report("adapter_serving", "Many adapters cost one batch little", "tokens a second")
    for name, path in model_paths(options, MODEL).items():
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            adapters = {f"a{i}": each for i, each in enumerate(make_adapters(path, folder))}
            with octavo.load(
                path, threads=options.threads, max_sequences=SEQUENCES, draft="off", adapters=adapters
            ) as model:
                server = Server(model)
                contestants = {"the base alone": functools.partial(server.speed, 0)} | {
                    f"{count} adapters": functools.partial(server.speed, count) for count in COUNTS
                }
                samples = take_turns(contestants, options.rounds, name)
                report.add(name, f"{SEQUENCES} sequences, rank {RANK}", samples)
                alone = median(samples["the base alone"])
                for count in COUNTS:
                    share = median(samples[f"{count} adapters"]) / alone
                    report.notes.append(f"{name}, {count} adapters: {share:.2f} of the base's speed.")
            report.notes += agreement(path, adapters["a0"], folder, options.threads)
        print("\n".join(report.notes))
    return report


if __name__ == "__main__":
    main(run)
