"""What a grammar saves: tokens a second of filling in a schema with forced tokens and drafts, beside masks
alone and beside no grammar, and how many values come out right.

The sentences are in extraction.txt.  Contestants take turns at each; each has its own memory for drafts.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import octavo
from benchmarks.report import Report, main
from benchmarks.workload import GENERATORS, Options, model_paths
from octavo.decoding.speculation.controller import Estimates
from octavo.decoding.speculation.grammar_states import GrammarSource
from octavo.decoding.speculation.speculation import Speculation
from octavo.decoding.speculation.suffix import SuffixSource

MODELS = ("smollm2-135m", "qwen2.5-coder-0.5b")
WISH = (
    "Extract the {kind} from the text as JSON with the keys {keys}. "
    "Answer with the JSON only.\n\nText: {text}"
)
MOST_TOKENS = 96
# name -> forced tokens (None: no grammar), whether drafts are made
CONTESTANTS: dict[str, tuple[str | None, bool]] = {
    "octavo": ("canonical", True),
    "octavo, without drafts": ("canonical", False),
    "masks only": ("off", False),
    "no grammar, drafts": (None, True),
    "no grammar": (None, False),
}


@dataclass(frozen=True, slots=True)
class Task:
    """One sentence: what to ask, the schema to fill in, and the values that are right."""

    prompt: str
    schema: dict[str, Any]
    values: list[Any]


def tasks() -> list[Task]:
    """The sentences of extraction.txt, one kind after another in turn."""
    kinds: list[list[Task]] = []
    kind, properties = "", {}
    for line in (Path(__file__).parent / "extraction.txt").read_text(encoding="utf-8").splitlines()[1:]:
        text, *values = (part.strip() for part in line.split("|"))
        if not values:
            kind, _, fields = line.partition(": ")
            properties = dict(_property(field) for field in fields.split(", "))
            kinds.append([])
            continue
        schema = {
            "type": "object",
            "properties": properties,
            "required": list(properties),
            "additionalProperties": False,
        }
        typed = [
            value if "enum" in rule or rule["type"] == "string" else json.loads(value)
            for value, rule in zip(values, properties.values(), strict=True)
        ]
        prompt = WISH.format(kind=kind, keys=", ".join(properties), text=text)
        kinds[-1].append(Task(prompt, schema, typed))
    return [task for together in zip(*kinds, strict=True) for task in together]


def _property(field: str) -> tuple[str, dict[str, Any]]:
    name, parenthesis, options = field.partition("(")
    if parenthesis:
        return name, {"enum": options.rstrip(")").split()}
    if name in ("age", "quantity", "day"):
        return name, {"type": "integer", "minimum": 0, "maximum": 999}
    return name, {"type": "boolean"} if name == "free" else {"type": "string", "maxLength": 40}


def right_values(task: Task, text: str) -> int:
    """How many values of an answer are right; of free text, the first JSON object in it counts."""
    found = re.search(r"\{[^{}]*\}", text)
    try:
        answer = json.loads(found[0]) if found else {}
    except ValueError:
        return 0
    pairs = zip(task.schema["properties"], task.values, strict=True)
    return sum(_same(answer.get(name), value) for name, value in pairs)


def _same(given: Any, wanted: Any) -> bool:
    if isinstance(wanted, str):
        return isinstance(given, str) and given.strip().casefold() == wanted.casefold()
    return type(given) is type(wanted) and given == wanted


class Contestant:
    """One way to generate, with what it has counted so far."""

    def __init__(self, model: octavo.Model, forced: str | None, drafts: bool) -> None:
        estimates = Estimates()
        engine = model.engine
        known = engine.speculation
        assert known is not None
        sources = [GrammarSource(estimates), SuffixSource(estimates)]
        self._speculation = Speculation(sources, estimates, costs=known.costs) if drafts else None
        self._model, self._forced = model, forced
        self.tokens, self.seconds, self.right = 0, 0.0, 0

    def answer(self, task: Task) -> float:
        """Tokens a second after the first that was drawn; tokens that were there before it do not count."""
        self._model.engine.speculation = self._speculation
        options: dict[str, Any] = {"temperature": 0, "max_tokens": MOST_TOKENS}
        if self._forced is not None:
            self._model._structured.compile(task.schema)
            options |= {"grammar": task.schema, "forced_tokens": self._forced}
        stream = self._model.stream_chat([{"role": "user", "content": task.prompt}], **options)
        begun = len(stream._generation._sequence.generated)
        text = "".join(stream)
        tokens, seconds = len(stream.tokens) - begun - 1, stream.timings.generation_seconds
        self.right += right_values(task, text)
        self.tokens, self.seconds = self.tokens + tokens, self.seconds + seconds
        return tokens / seconds if seconds else 0.0


def run(options: Options) -> Report:
    report = Report("skips", "A schema makes generation faster, and no worse", "tokens a second")
    work = tasks()
    total = sum(len(task.values) for task in work)
    for name, path in model_paths(options, {name: GENERATORS[name] for name in MODELS}).items():
        with octavo.load(path, threads=options.threads, max_sequences=1, context=1024) as model:
            model.generate("Once upon a time", max_tokens=8)  # measures what steps cost
            contestants = {key: Contestant(model, *how) for key, how in CONTESTANTS.items()}
            samples: dict[str, list[float]] = {key: [] for key in contestants}
            for turn, task in enumerate(work):
                for key in list(contestants)[:: 1 if turn % 2 else -1]:
                    samples[key].append(contestants[key].answer(task))
        report.add(name, "extraction", samples)
        speeds = {key: one.tokens / one.seconds for key, one in contestants.items()}
        for key, one in contestants.items():
            share = 100 * one.right / total
            report.notes.append(
                f"{name}: {key}: {speeds[key]:.1f} tokens a second over all, {one.right} of "
                f"{total} values right ({share:.1f} %), octavo {speeds['octavo'] / speeds[key]:.2f} x as fast"
            )
    return report


if __name__ == "__main__":
    main(run)
