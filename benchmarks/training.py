"""Training beside the same model in plain PyTorch: tokens a second, and seconds to a loss.

Speed: GPTs of 10.6 M parameters, 16 rows of 256 tokens, the peer in float32 with AdamW as it comes; where
OCTAVO_NANOGPT is a folder of nanoGPT, its own model and optimizer settings too.
Race: characters of tiny Shakespeare to a validation loss of 1.88 nats, against the small recipe that people
run on a laptop (4 layers, 128 wide, 12 rows of 64, 2,000 steps at 1e-3).  Both sides are measured alike: on
all windows of 64 characters of the last tenth, and the clock stands still meanwhile.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import math
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.comparison import take_turns
from benchmarks.report import Report, main
from benchmarks.training_baseline import PlainConfig, PlainGPT, plain_optimizer, plain_step, random_batch
from benchmarks.workload import Options
from octavo.data.shards import TokenCorpus
from octavo.training.causal import LanguageModelling
from octavo.training.config import TrainingConfig, complete
from octavo.training.loop import Trainer

VOCABULARY, ROWS, CONTEXT = 65, 16, 256
TARGET_LOSS = 1.88
RACE_CONTEXT, RACE_ROWS, RACE_STEPS = 64, 12, 2000
# How often the racers are looked at; the loss between two looks is not known.
PLAIN_LOOK, OCTAVO_LOOK = 100, 5
_STEPS_A_SAMPLE = 3


def corpus() -> TokenCorpus:
    """Tiny Shakespeare as characters."""
    text = shakespeare()
    number = {character: place for place, character in enumerate(sorted(set(text)))}
    ids = np.array([number[character] for character in text], np.uint32)
    return TokenCorpus(ids, np.array([0, len(ids)], np.int64), len(ids), "tinyshakespeare")


def shakespeare() -> str:
    """The text itself."""
    folder = Path(os.environ.get("OCTAVO_SHARED", Path(__file__).parents[2] / "shared"))
    return (folder / "data/text/tinyshakespeare.txt").read_text()


@contextlib.contextmanager
def apart(build: Callable[[TokenCorpus], Callable[[], Any]], threads: int) -> Iterator[Callable[[], Any]]:
    """What `build` makes of the corpus, in a process of its own: each side has its own memory."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(there, build, threads), daemon=True)
    process.start()

    def ask() -> Any:
        here.send(True)
        return here.recv()

    try:
        yield ask
    finally:
        process.terminate()
        process.join()


def _serve(connection: Connection, build: Callable[[TokenCorpus], Callable[[], Any]], threads: int) -> None:
    torch.set_num_threads(threads)
    sample = build(corpus())
    while connection.recv():
        connection.send(sample())


def run(options: Options) -> Report:
    report = Report("training", "Training outruns plain PyTorch", "tokens a second")
    builds = {
        "octavo": functools.partial(octavo_speed, architecture="gpt2", optimizer="adamw"),
        "octavo, RoPE, QK-norm and Muon": functools.partial(
            octavo_speed, architecture="qwen3", optimizer="muon"
        ),
        "PyTorch": plain_speed,
    }
    if folder := os.environ.get("OCTAVO_NANOGPT"):
        builds["nanoGPT"] = functools.partial(nanogpt_speed, folder=folder)
    with contextlib.ExitStack() as stack:
        asked = {name: stack.enter_context(apart(build, options.threads)) for name, build in builds.items()}
        report.add("GPT 10.6M", f"{ROWS} x {CONTEXT} tokens", take_turns(asked, options.rounds, "speed"))
    found = {}
    for name, racer in (("octavo", octavo_seconds_to_loss), ("PyTorch", plain_seconds_to_loss)):
        with apart(functools.partial(_later, racer=racer), options.threads) as ask:
            found[name] = ask()
    ours, plain = found["octavo"], found["PyTorch"]
    report.notes.append(
        f"Seconds to a validation loss of {TARGET_LOSS} on tiny Shakespeare's characters, once each: PyTorch "
        f"{plain[0]:.1f} ({plain[1]} steps, {plain[2]:.3f}), octavo {ours[0]:.1f} ({ours[1]} steps, "
        f"{ours[2]:.3f}): {plain[0] / ours[0]:.1f} times as fast."
    )
    print(report.notes[-1])
    return report


def _later(text: TokenCorpus, racer: Callable[[TokenCorpus], Any]) -> Callable[[], Any]:
    return lambda: racer(text)


def octavo_speed(text: TokenCorpus, architecture: str, optimizer: str) -> Callable[[], float]:
    """Tokens a second of a few updates, with all that an update of the loop does."""
    config = complete(
        TrainingConfig(
            out="", architecture=architecture, optimizer=optimizer, layers=6, hidden_size=384, heads=6,
            context=CONTEXT, batch_tokens=ROWS * CONTEXT, rows=ROWS, steps=10_000, validation=0.1,
        )
    )  # fmt: skip
    trainer = Trainer(config, LanguageModelling.of_corpus(config, text, VOCABULARY))

    def sample() -> float:
        began = time.perf_counter()
        for _ in range(_STEPS_A_SAMPLE):
            trainer.update()
        return _STEPS_A_SAMPLE * ROWS * CONTEXT / (time.perf_counter() - began)

    return sample


def plain_speed(text: TokenCorpus) -> Callable[[], float]:
    model = PlainGPT(PlainConfig(VOCABULARY, CONTEXT, layers=6, heads=6, width=384))
    optimizer = plain_optimizer(model, 1e-3, (0.9, 0.99))
    ids, generator = torch.from_numpy(text.tokens.astype(np.int64)), torch.Generator().manual_seed(0)

    def sample() -> float:
        began = time.perf_counter()
        for _ in range(_STEPS_A_SAMPLE):
            plain_step(model, optimizer, *random_batch(ids, ROWS, CONTEXT, generator))
        return _STEPS_A_SAMPLE * ROWS * CONTEXT / (time.perf_counter() - began)

    return sample


def nanogpt_speed(text: TokenCorpus, folder: str) -> Callable[[], float]:
    """nanoGPT's own model.py, without dropout, as its train.py steps it on a processor."""
    sys.path.insert(0, folder)
    module = importlib.import_module("model")
    shape = module.GPTConfig(
        block_size=CONTEXT, vocab_size=VOCABULARY, n_layer=6, n_head=6, n_embd=384, dropout=0.0, bias=False
    )
    model = module.GPT(shape)
    optimizer = model.configure_optimizers(0.1, 1e-3, (0.9, 0.99), "cpu")
    ids, generator = torch.from_numpy(text.tokens.astype(np.int64)), torch.Generator().manual_seed(0)

    def sample() -> float:
        began = time.perf_counter()
        for _ in range(_STEPS_A_SAMPLE):
            _, loss = model(*random_batch(ids, ROWS, CONTEXT, generator))
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return _STEPS_A_SAMPLE * ROWS * CONTEXT / (time.perf_counter() - began)

    return sample


def validation_windows(ids: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """All whole windows of 64 characters of the part kept back, in batches of 256."""
    count = (len(ids) - 1) // RACE_CONTEXT
    inputs = ids[: count * RACE_CONTEXT].view(count, RACE_CONTEXT)
    targets = ids[1 : count * RACE_CONTEXT + 1].view(count, RACE_CONTEXT)
    yield from zip(inputs.split(256), targets.split(256), strict=True)


def race(
    step: Callable[[int], object], measure: Callable[[], float], steps: int, look: int
) -> tuple[float, int, float]:
    """(seconds of training until the target, steps, loss then)."""
    seconds, loss = 0.0, math.inf
    for number in range(steps):
        began = time.perf_counter()
        step(number)
        seconds += time.perf_counter() - began
        if (number + 1) % look == 0:
            loss = measure()
            if loss <= TARGET_LOSS:
                return seconds, number + 1, loss
    return seconds, steps, loss


def plain_seconds_to_loss(text: TokenCorpus) -> tuple[float, int, float]:
    torch.manual_seed(0)
    ids = torch.from_numpy(text.tokens.astype(np.int64))
    training, kept = ids[: int(0.9 * len(ids))], ids[int(0.9 * len(ids)) :]
    model = PlainGPT(PlainConfig(VOCABULARY, RACE_CONTEXT, layers=4, heads=4, width=128))
    optimizer = plain_optimizer(model, 1e-3, (0.9, 0.99))
    generator = torch.Generator().manual_seed(0)

    def step(number: int) -> None:
        # A warm-up of 100 steps and a cosine to a tenth, as the recipe has it.
        part = max(0, number - 100) / (RACE_STEPS - 100)
        rate = 1e-3 * min((number + 1) / 100, 0.55 + 0.45 * math.cos(math.pi * part))
        for group in optimizer.param_groups:
            group["lr"] = rate
        plain_step(model, optimizer, *random_batch(training, RACE_ROWS, RACE_CONTEXT, generator))

    @torch.no_grad()
    def measure() -> float:
        batches = list(validation_windows(kept))
        total = sum(float(model(inputs, targets)) * len(inputs) for inputs, targets in batches)
        return total / sum(len(inputs) for inputs, _ in batches)

    return race(step, measure, RACE_STEPS, PLAIN_LOOK)


def octavo_seconds_to_loss(text: TokenCorpus) -> tuple[float, int, float]:
    config = complete(
        TrainingConfig(
            out="", layers=4, hidden_size=128, heads=4, context=RACE_CONTEXT, batch_tokens=4096, rows=64,
            steps=180, validation=0.1, optimizer="muon", learning_rate=0.02, warmup=0.05, decay=0.7,
            final=0.0,
        )
    )  # fmt: skip
    task = LanguageModelling.of_corpus(config, text, VOCABULARY)
    trainer = Trainer(config, task)
    kept = torch.from_numpy(text.tokens.astype(np.int64))[int(0.9 * len(text)) :]

    @torch.no_grad()
    def measure() -> float:
        trainer.compute.refresh()
        total, count = 0.0, 0
        for inputs, targets in validation_windows(kept):
            logits = trainer.compute.module(inputs).float()
            losses = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
            total, count = total + float(losses) * len(inputs), count + len(inputs)
        return total / count

    return race(lambda number: trainer.update(), measure, config.steps, OCTAVO_LOOK)


if __name__ == "__main__":
    main(run)
