"""Time between the tokens of an answer while other requests bring grammars made to hang a server."""

from __future__ import annotations

import re
import threading
import time
from typing import Any

import octavo
from benchmarks.report import Report, main
from benchmarks.workload import GENERATORS, Options, model_paths
from octavo.grammar import GrammarError

MODELS = ("smollm2-135m",)
TOKENS = 128
ROUNDS = 4


def combinations(count: int) -> dict[str, Any]:
    """anyOf within anyOf: two to the power of `count` cases."""
    definitions: dict[str, Any] = {"d0": {"type": "object"}}
    for index in range(1, count):
        before = {"$ref": f"#/$defs/d{index - 1}"}
        either = [{"properties": {f"p{index}": {"type": "integer"}}}, {"required": [f"q{index}"]}]
        definitions[f"d{index}"] = {"anyOf": [{"allOf": [before, one]} for one in either]}
    return {"$defs": definitions, "$ref": f"#/$defs/d{count - 1}"}


def hostile(turn: int) -> list[Any]:
    """Grammars that no earlier turn has compiled."""
    return [
        combinations(30 + turn),
        {"enum": [f"{turn} and {number}" for number in range(10_000)]},
        {"allOf": [{"pattern": f"a.{{{30 + turn}}}$"}, {"not": {"pattern": "c.{29}$"}}], "type": "string"},
        re.compile(f"(a?){{{20_000 + turn}}}a{{20000}}"),
        re.compile(f".*a.{{{200 + turn}}}"),
    ]


def attack(model: octavo.Model, grammars: list[Any], errors: list[str]) -> None:
    """Ask for a text within each; an error is what should come."""
    for grammar in grammars:
        try:
            model.generate("x", grammar=grammar, max_tokens=16)
        except GrammarError as error:
            errors.append(type(error).__name__)


def gaps(model: octavo.Model) -> list[float]:
    """Milliseconds between the tokens of one answer."""
    never = dict.fromkeys(model.tokenizer.end_ids, -1e4)
    times = []
    for _ in model.stream("The sea", max_tokens=TOKENS, temperature=0, logit_bias=never):
        times.append(time.perf_counter())
    return [1000 * (after - before) for before, after in zip(times, times[1:], strict=False)]


def run(options: Options) -> Report:
    report = Report(
        "hostile_grammar", "Others do not wait for a grammar", "ms between tokens", more_is_better=False
    )
    for name, path in model_paths(options, {name: GENERATORS[name] for name in MODELS}).items():
        with octavo.load(path, threads=1, max_sequences=4, context=1024, draft="off") as model:
            gaps(model)
            samples: dict[str, list[float]] = {"alone": [], "octavo": []}
            errors: list[str] = []
            for turn in range(ROUNDS):
                samples["alone"] += gaps(model)
                attacker = threading.Thread(target=attack, args=(model, hostile(turn), errors))
                attacker.start()
                samples["octavo"] += gaps(model)
                attacker.join()
        report.add(name, "beside hostile grammars", samples)
        for key, values in samples.items():
            ordered = sorted(values)
            at = {share: ordered[int(share * (len(ordered) - 1))] for share in (0.5, 0.9, 0.99, 1)}
            report.notes.append(
                f"{name}: {key}: " + ", ".join(f"p{100 * s:g} {v:.1f} ms" for s, v in at.items())
            )
        report.notes.append(f"{name}: {len(errors)} of {5 * ROUNDS} grammars refused: {sorted(set(errors))}")
    return report


if __name__ == "__main__":
    main(run)
