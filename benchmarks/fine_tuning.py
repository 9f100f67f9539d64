"""Fine-tuning all parameters beside transformers' Trainer: tokens a second, and the peak of memory.

SmolLM2-135M, read from its GGUF file and written as a folder for transformers; steps of 4 rows of 256 tokens
of tiny Shakespeare, AdamW, no checkpointing of activations on either side.  The Trainer runs as it comes
(float32), and with its own switch for bfloat16.
"""

from __future__ import annotations

import contextlib
import functools
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.agreement import LazyTensors
from benchmarks.comparison import take_turns
from benchmarks.report import Report, main
from benchmarks.training import apart, shakespeare
from benchmarks.workload import Options, model_paths
from octavo.data.shards import TokenCorpus
from octavo.models.loading import build_trainable
from octavo.models.saving import save_model
from octavo.training.causal import LanguageModelling
from octavo.training.config import TrainingConfig, complete
from octavo.training.loop import Trainer
from octavo.weights.checkpoint import open_checkpoint

MODEL = {"SmolLM2-135M": "SmolLM2-135M-Instruct.Q4_1.gguf"}
ROWS, CONTEXT, STEPS = 4, 256, 2
LEARNING_RATE = 1e-5
Sample = tuple[float, float]  # tokens a second, peak MiB


def run(options: Options) -> Report:
    report = Report(
        "fine_tuning", "Fine-tuning outruns transformers' Trainer in no more memory", "tokens a second"
    )
    for name, path in model_paths(options, MODEL).items():
        with contextlib.ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            write_folder(path, folder)
            builds = {
                "octavo": functools.partial(octavo_tuning, path=path),
                "Trainer": functools.partial(trainer_tuning, folder=folder, bfloat16=False),
                "Trainer, bf16=True": functools.partial(trainer_tuning, folder=folder, bfloat16=True),
            }
            peaks: dict[str, float] = {}
            asked = {
                side: functools.partial(
                    _speed, side, stack.enter_context(apart(build, options.threads)), peaks
                )
                for side, build in builds.items()
            }
            report.add(
                name, f"all parameters, {ROWS} x {CONTEXT} tokens", take_turns(asked, options.rounds, "speed")
            )
        memory = ", ".join(f"{side} {peak:,.0f} MiB" for side, peak in peaks.items())
        report.notes.append(f"{name}: peak resident memory of a process that did nothing else: {memory}.")
        print(report.notes[-1], file=sys.stderr)
    return report


def _speed(side: str, ask: Callable[[], Sample], peaks: dict[str, float]) -> float:
    speed, peaks[side] = ask()
    return speed


def peak() -> float:
    """Of this process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def write_folder(path: Path, folder: Path) -> None:
    """The checkpoint's weights as a Hugging Face folder."""
    checkpoint = open_checkpoint(path)
    save_model(build_trainable(checkpoint.config, LazyTensors(checkpoint)), folder)
    np.save(folder / "ids.npy", token_ids(path).tokens)


def token_ids(path: Path) -> TokenCorpus:
    """Tiny Shakespeare in the model's own tokens."""
    ids = np.array(open_checkpoint(path).tokenizer().encode(shakespeare()), np.uint32)
    return TokenCorpus(ids, np.array([0, len(ids)], np.int64), len(shakespeare()), "tinyshakespeare")


def octavo_tuning(_: TokenCorpus, path: Path) -> Callable[[], Sample]:
    checkpoint = open_checkpoint(path)
    config = complete(
        TrainingConfig(
            out="", architecture="llama", optimizer="adamw", layers=1, hidden_size=64, context=CONTEXT,
            batch_tokens=ROWS * CONTEXT, rows=ROWS, steps=10_000, learning_rate=LEARNING_RATE, validation=0.1,
        )
    )  # fmt: skip
    model = build_trainable(checkpoint.config, LazyTensors(checkpoint))
    task = LanguageModelling.of_corpus(config, token_ids(path), model.config.vocabulary_size, model)
    trainer = Trainer(config, task)

    def sample() -> Sample:
        began = time.perf_counter()
        for _ in range(STEPS):
            trainer.update()
        return STEPS * ROWS * CONTEXT / (time.perf_counter() - began), peak()

    return sample


def trainer_tuning(_: TokenCorpus, folder: Path, bfloat16: bool) -> Callable[[], Sample]:
    """The Trainer's own loop, one call of train() a sample; the first step of each does not count."""
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    ids = token_ids_of_folder(folder)
    data = [{"input_ids": row, "labels": row} for row in ids.view(-1, CONTEXT)]
    clock = _Clock()
    arguments = transformers.TrainingArguments(
        output_dir=str(folder / "trainer"), per_device_train_batch_size=ROWS, max_steps=STEPS + 1,
        bf16=bfloat16, learning_rate=LEARNING_RATE, use_cpu=True, report_to="none", save_strategy="no",
        disable_tqdm=True, logging_strategy="no",
    )  # fmt: skip
    trainer = transformers.Trainer(
        model=model, args=arguments, train_dataset=data, callbacks=[_callback(clock)]
    )

    def sample() -> Sample:
        clock.times.clear()
        trainer.train()
        return STEPS * ROWS * CONTEXT / (clock.times[-1] - clock.times[0]), peak()

    return sample


def token_ids_of_folder(folder: Path) -> torch.Tensor:
    """As many whole rows of the corpus's ids as there are, from the file beside the model."""
    ids = np.load(folder / "ids.npy")
    return torch.from_numpy(ids[: len(ids) // CONTEXT * CONTEXT].astype(np.int64))


class _Clock:
    """When each step was over."""

    def __init__(self) -> None:
        self.times: list[float] = []


def _callback(clock: _Clock) -> Any:
    import transformers

    class Watch(transformers.TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *arguments: Any, **keywords: Any) -> None:
            clock.times.append(time.perf_counter())

    return Watch()


if __name__ == "__main__":
    main(run)
