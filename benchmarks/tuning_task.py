"""A real task: SmolLM2 learns to read the numbers of a word problem into JSON, by LoRA, QLoRA and in full.

Rows are the questions of GSM8K (Cobbe et al. 2021) with the numbers that stand in them, as
{"numbers": [48, 2]}; rows that are held out give the loss and the share of exactly right answers, before and
after.  All methods see the same rows, 160 of them, once.  LoRA trains under 1 % of the parameters.  What
QLoRA loses is judged by the noise of the seeds: LoRA, QLoRA (NF4 of the 16-bit model) and QLoRA on the 4-bit
file as it is have three each.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import tempfile
import time
from dataclasses import dataclass, replace
from math import sqrt
from pathlib import Path
from statistics import mean, median, stdev, variance

import octavo
from benchmarks.report import Report, main
from benchmarks.workload import MissingModelError, Options, model_paths
from octavo.adapters.merge import save_like
from octavo.training import tuning
from octavo.training.tuning_config import TuningConfig
from octavo.weights.checkpoint import open_checkpoint
from octavo.weights.tensor import TensorType

MODEL = {"smollm2-135m": "SmolLM2-135M-Instruct.Q4_1.gguf"}
ROWS, HELD_OUT, STEPS, BATCH = 160, 32, 20, 8
ASK = 'Give all numbers of the text, in order, as JSON {"numbers": [...]}.'
LONGEST = 170  # characters of a question
NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?")
# Each method at a rate that suits it; LoRA of rank 4 on all layers is 0.9 % of the parameters.
RATES = {"lora": 2e-3, "qlora": 2e-3, "full": 1e-4}
ON_FILE = "qlora on the file"
SEEDS = {"lora": 3, "qlora": 3, ON_FILE: 3, "full": 1}


@dataclass(frozen=True, slots=True)
class Problem:
    """question: a text with numbers.  answer: those, as JSON."""

    question: str
    answer: str

    @property
    def asked(self) -> list[dict[str, str]]:
        """What the model is told."""
        return [{"role": "system", "content": ASK}, {"role": "user", "content": self.question}]


def problems(count: int) -> list[Problem]:
    """The shorter questions of GSM8K's training part that have two to six numbers."""
    folder = Path(os.environ.get("OCTAVO_SHARED", Path(__file__).resolve().parents[2] / "shared"))
    path = folder / "data" / "reasoning" / "gsm8k-train.jsonl"
    if not path.exists():
        raise MissingModelError(f"{path} is not there: set OCTAVO_SHARED to the folder of shared data")
    found = []
    with path.open(encoding="utf-8") as file:
        for line in file:
            question = json.loads(line)["question"]
            numbers = [float(each.replace(",", "")) for each in NUMBER.findall(question)]
            if 2 <= len(numbers) <= 6 and len(question) < LONGEST:
                answer = json.dumps(
                    {"numbers": [int(each) if each.is_integer() else each for each in numbers]}
                )
                found.append(Problem(question, answer))
            if len(found) == count:
                return found
    raise ValueError(f"{path}: only {len(found)} questions of the kind")


def write_base(path: Path, folder: Path) -> Path:
    """The model's values in 16 bits: what QLoRA quantizes, and the others train beside."""
    checkpoint = open_checkpoint(path)
    values = ((name, tensor.numpy()) for name, tensor in checkpoint.tensors.items())
    return save_like(checkpoint, values, folder / "base.gguf", TensorType.BF16)


def score(model: Path, adapter: Path | None, asked: list[Problem], threads: int) -> float:
    """The share of problems whose numbers are exactly right."""
    adapters = {} if adapter is None else {"tuned": adapter}
    right = 0
    with octavo.load(model, threads=threads, adapters=adapters, draft="off") as loaded:
        streams = [
            loaded.stream_chat(
                each.asked,
                max_tokens=48,
                temperature=0,
                adapter="tuned" if adapter else None,
            )
            for each in asked
        ]
        for stream, problem in zip(streams, asked, strict=True):
            text = "".join(stream)
            with contextlib.suppress(ValueError):
                right += json.loads(text) == json.loads(problem.answer)
    return right / len(asked)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run gave: loss on rows held out, before and after, and the share of right answers there."""

    parameters: int
    before: float
    after: float
    score: float
    minutes: float

    @property
    def drop(self) -> float:
        return self.before - self.after


def learn(method: str, seed: int, base: Path, data: Path, out: Path, options: Options) -> Outcome:
    """One run of `octavo tune`, as its command makes it."""
    config = TuningConfig(
        out=str(out), base=str(base), data=(str(data),), method=method, rank=4, alpha=8.0, seed=seed,
        steps=STEPS, batch=BATCH, context=256, validation=0.0, learning_rate=RATES[method],
        optimizer="adamw", weight_decay=0.0, schedule="cosine", warmup=0.1, threads=options.threads,
        save_minutes=0,
    )  # fmt: skip
    task = tuning.prepare(config)
    # Of all runs the same ones: `prepare` would draw them by the seed.
    task.rows = replace(
        task.rows, training=task.rows.training[:-HELD_OUT], kept=task.rows.training[-HELD_OUT:]
    )
    begun = task.validate(task.module, whole=True)
    count = sum(each.numel() for each in task.model.parameters())
    began = time.perf_counter()
    result = tuning.tune(task)
    minutes = (time.perf_counter() - began) / 60
    assert begun is not None and result.validation is not None
    return Outcome(count, begun.loss, result.validation.loss, 0.0, minutes)


def run(options: Options) -> Report:
    report = Report("tuning_task", "A small model learns a task in minutes", "share of right answers")
    for name, path in model_paths(options, MODEL).items():
        made = problems(ROWS + HELD_OUT)
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            base = write_base(path, folder)
            data = folder / "rows.jsonl"
            rows = [
                {"messages": [*each.asked, {"role": "assistant", "content": each.answer}]} for each in made
            ]
            data.write_text("".join(json.dumps(row) + "\n" for row in rows))
            asked = made[-HELD_OUT:]
            plain = score(base, None, asked, options.threads)
            report.add(name, "held-out problems", {"before": [plain]})
            runs: dict[str, list[Outcome]] = {method: [] for method in SEEDS}
            for method, seed in [(method, seed) for method, count in SEEDS.items() for seed in range(count)]:
                out, model = folder / f"{method}{seed}", path if method == ON_FILE else base
                found = learn("qlora" if method == ON_FILE else method, seed, model, data, out, options)
                tuned = (out / "model.gguf", None) if method == "full" else (model, out)
                found = replace(found, score=score(*tuned, asked, options.threads))
                runs[method].append(found)
                print(f"{method}, seed {seed}: {found}")
            _conclude(report, name, runs)
    return report


def _conclude(report: Report, name: str, runs: dict[str, list[Outcome]]) -> None:
    for method, found in runs.items():
        report.add(name, "held-out problems", {method: [each.score for each in found]})
        losses = ", ".join(f"{each.before:.3f} to {each.after:.4f}" for each in found)
        right = ", ".join(f"{each.score:.0%}" for each in found)
        report.notes.append(
            f"{method}: {found[0].parameters:,} parameters, loss {losses}; right {right}; "
            f"{median([each.minutes for each in found]):.1f} minutes."
        )
    lora, full = runs["lora"], runs["full"][0]
    share = lora[0].parameters / full.parameters
    kept = mean(each.drop for each in lora) / full.drop
    noise = stdev(each.after for each in lora)
    report.notes.append(
        f"LoRA trains {share:.2%} of the parameters and reaches {kept:.1%} of the drop in loss of full "
        f"fine-tuning; its loss has a standard deviation of {noise:.4f} over seeds."
    )
    for method in ("qlora", ON_FILE):
        apart = mean(each.after for each in runs[method]) - mean(each.after for each in lora)
        error = sqrt(sum(variance(each.after for each in runs[m]) / SEEDS[m] for m in ("lora", method)))
        report.notes.append(
            f"{method} ends {apart:+.4f} +- {error:.4f} (standard error) from LoRA, "
            f"{abs(apart) / mean(each.drop for each in lora):.2%} of the drop."
        )
    print("\n".join(report.notes))


if __name__ == "__main__":
    main(run)
