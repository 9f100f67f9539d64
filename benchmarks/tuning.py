"""LoRA and QLoRA beside PEFT and PEFT with bitsandbytes: tokens a second and peak memory, in the same run.

A model of SmolLM2-135M's shape with random weights, 4 rows of 256 tokens, rank 16 on all layers, AdamW;
every token learned.  PEFT has plain weights, and NF4 with double quantization.  Both sides compute in what is
fastest on this processor: bfloat16, or float32 where it has no bfloat16 products.  Where octavo multiplies
with frozen layers in int8, as `octavo tune` does by itself, it is measured in bfloat16 alone too.
Each side has a process of its own; memory is the largest that it ever had, loading included.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.comparison import take_turns
from benchmarks.report import Report, main
from benchmarks.workload import Options

ROWS, CONTEXT, RANK, VOCABULARY, WIDTH = 4, 256, 16, 49152, 576
Build = Callable[[Path], Callable[[], float]]


def save_model(folder: Path) -> None:
    """The base, as transformers saves it."""
    import transformers

    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        hidden_size=WIDTH, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
        num_key_value_heads=3, vocab_size=VOCABULARY, tie_word_embeddings=True, max_position_embeddings=2048,
    )  # fmt: skip
    transformers.AutoModelForCausalLM.from_config(config).to(torch.bfloat16).save_pretrained(folder)


def batch() -> torch.Tensor:
    return torch.randint(0, VOCABULARY, (ROWS, CONTEXT + 1), generator=torch.Generator().manual_seed(1))


def octavo_step(folder: Path, method: Any, precision: str, in_bytes: bool) -> Callable[[], float]:
    from octavo.adapters.base import build_adapted
    from octavo.data.conversations import Example
    from octavo.training.allocation import prepare_process
    from octavo.training.held_out import batch_loss, micro_batches
    from octavo.training.optimizers import build_optimizer
    from octavo.training.precision import DTYPES
    from octavo.weights.adapter import AdapterConfig
    from octavo.weights.checkpoint import open_checkpoint

    checkpoint = open_checkpoint(folder)
    config = AdapterConfig(rank=RANK, alpha=2 * RANK)
    model, adapters = build_adapted(
        checkpoint.config,
        checkpoint.tensors,
        config,
        method=method,
        dtype=DTYPES[precision],
        in_bytes=in_bytes,
    )
    optimizer = build_optimizer("adamw", adapters, learning_rate=2e-4, weight_decay=0.0)
    prepare_process(torch.get_num_threads())
    learned = np.ones(CONTEXT + 1, bool)
    rows = [Example(row.numpy(), learned, "random") for row in batch()]

    def step() -> float:
        began = time.perf_counter()
        for part in micro_batches(rows):
            batch_loss(model, part, 1 / (ROWS * CONTEXT)).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return ROWS * CONTEXT / (time.perf_counter() - began)

    return step


def peft_step(folder: Path, quantized: bool, precision: str) -> Callable[[], float]:
    warnings.simplefilter("ignore")
    import peft
    import transformers

    dtype = getattr(torch, precision)
    options: dict[str, Any] = {"dtype": dtype}
    if quantized:
        options["quantization_config"] = transformers.BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        )  # fmt: skip
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, **options)
    config = peft.LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules="all-linear", task_type="CAUSAL_LM")
    model = peft.get_peft_model(model, config, autocast_adapter_dtype=False)
    model.train()
    optimizer = torch.optim.AdamW([each for each in model.parameters() if each.requires_grad], lr=2e-4)
    tokens = batch()

    def step() -> float:
        began = time.perf_counter()
        model(input_ids=tokens[:, :-1], labels=tokens[:, :-1]).loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return ROWS * CONTEXT / (time.perf_counter() - began)

    return step


@contextlib.contextmanager
def apart(build: Build, folder: Path, threads: int) -> Iterator[Callable[[], tuple[float, float]]]:
    """(tokens a second, MB at most so far) of a step, in a process of its own."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(there, build, folder, threads), daemon=True)
    process.start()

    def ask() -> tuple[float, float]:
        here.send(True)
        found: tuple[float, float] = here.recv()
        return found

    try:
        yield ask
    finally:
        process.terminate()
        process.join()


def _serve(connection: Connection, build: Build, folder: Path, threads: int) -> None:
    torch.set_num_threads(threads)
    step = build(folder)
    while connection.recv():
        speed = step()
        connection.send((speed, peak_memory()))


def peak_memory() -> float:
    """MB that this process had in memory at most.

    Not getrusage's figure: that begins with what the parent had when it started this process.
    """
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1e3


def run(options: Options) -> Report:
    report = Report("tuning", "LoRA and QLoRA outrun PEFT", "tokens a second")
    from octavo.layers import byte_product
    from octavo.training.precision import choose_precision

    precision = choose_precision("auto", WIDTH)
    in_bytes = precision == "bfloat16" and byte_product.available()

    def ours(method: str) -> dict[str, Build]:
        step = partial(octavo_step, method=method, precision=precision)
        plain = {"octavo, bfloat16 products": partial(step, in_bytes=False)} if in_bytes else {}
        return {"octavo": partial(step, in_bytes=in_bytes), **plain}

    plain, packed = (partial(peft_step, quantized=each, precision=precision) for each in (False, True))
    pairs: list[tuple[str, dict[str, Build]]] = [
        (f"LoRA, {precision}", {**ours("lora"), "PEFT": plain}),
        (f"QLoRA, NF4, {precision}", {**ours("qlora"), "PEFT, bitsandbytes": packed}),
    ]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_model(folder)
        for work, builds in pairs:
            memory: dict[str, float] = {}

            def sample(side: str, ask: Callable[[], tuple[float, float]], into: dict[str, float]) -> float:
                speed, into[side] = ask()
                return speed

            with contextlib.ExitStack() as stack:
                asked = {
                    side: partial(
                        sample, side, stack.enter_context(apart(build, folder, options.threads)), memory
                    )
                    for side, build in builds.items()
                }
                samples = take_turns(asked, options.rounds, "speed")
            report.add("SmolLM2-135M's shape", f"{work}, {ROWS} x {CONTEXT} tokens, rank {RANK}", samples)
            *sides, peer = builds
            for side in sides:
                ratio = np.median(samples[side]) / np.median(samples[peer])
                report.notes.append(
                    f"{work}: {side} is {ratio:.2f} times as fast as {peer}; peak memory "
                    f"{memory[side]:,.0f} and {memory[peer]:,.0f} MB, "
                    f"{memory[side] / memory[peer]:.2f} of it."
                )
                print(report.notes[-1])
    return report


if __name__ == "__main__":
    main(run)
