"""A real task: SmolLM2 learns to read the numbers of a word problem into JSON, by LoRA, QLoRA and in full.

Rows are the questions of GSM8K (Cobbe et al. 2021) with the numbers that stand in them, as
{"numbers": [48, 2]}; rows that are held out give the loss and the share of exactly right answers, before and
after.  All methods see the same rows, 160 of them, once.  LoRA trains under 1 % of the parameters, with two
seeds: the distance between those is the noise that QLoRA (NF4) is judged by.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

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
RUNS = (("lora", 0), ("lora", 1), ("qlora", 0), ("full", 0))


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
            outcomes: dict[tuple[str, int], Outcome] = {}
            for method, seed in RUNS:
                out = folder / f"{method}{seed}"
                found = learn(method, seed, base, data, out, options)
                tuned = (out / "model.gguf", None) if method == "full" else (base, out)
                found = replace(found, score=score(*tuned, asked, options.threads))
                outcomes[method, seed] = found
                print(f"{method}, seed {seed}: {found}")
            _conclude(report, name, outcomes)
    return report


def _conclude(report: Report, name: str, outcomes: dict[tuple[str, int], Outcome]) -> None:
    for method in RATES:
        report.add(
            name,
            "held-out problems",
            {method: [each.score for (m, _), each in outcomes.items() if m == method]},
        )
    for (method, seed), each in outcomes.items():
        report.notes.append(
            f"{method}, seed {seed}: {each.parameters:,} parameters, loss {each.before:.3f} to "
            f"{each.after:.3f}, {each.score:.0%} right, {each.minutes:.1f} minutes."
        )
    full, lora = outcomes["full", 0], [outcomes["lora", seed] for seed in (0, 1)]
    share = lora[0].parameters / full.parameters
    kept = sum(each.drop for each in lora) / len(lora) / full.drop
    noise = abs(lora[0].after - lora[1].after)
    apart = outcomes["qlora", 0].after - sum(each.after for each in lora) / len(lora)
    report.notes.append(
        f"LoRA trains {share:.2%} of the parameters and reaches {kept:.1%} of the drop in loss of full "
        f"fine-tuning; its seeds are {noise:.4f} apart, QLoRA is {apart:+.4f} from its mean."
    )
    print("\n".join(report.notes))


if __name__ == "__main__":
    main(run)
