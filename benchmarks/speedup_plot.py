"""Predicted and seen gain of speculation against acceptance and length: a figure, and the figures behind it.

Drafts are made to be right with a given chance: the model's own greedy answer, each token changed with the
chance 1 - a.  They cost nothing, so what is seen is the verifying step alone, beside the prediction
(1 - a^(g+1)) / (1 - a) / (T(g + 1) / T(1)) from the measured T.  Runs by itself:

    python -m benchmarks.speedup_plot --models qwen2.5-coder-1.5b
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Sequence
from datetime import date

import octavo
from benchmarks.workload import GENERATORS, add_arguments, model_paths, parse_options
from octavo.decoding.sampling import SamplingOptions
from octavo.decoding.sequences import TokenSequence
from octavo.decoding.speculation.controller import Estimates, speedup
from octavo.decoding.speculation.draft import ROOT, Draft
from octavo.decoding.speculation.speculation import Speculation

ACCEPTANCES = (0.3, 0.5, 0.7, 0.8, 0.9, 1.0)
LENGTHS = (1, 3, 5, 7, 11)
TOKENS, ROUNDS = 64, 5  # of an answer; answers for each dot
TARGET = "qwen2.5-coder-1.5b"


class Guesser:
    """A source that is right with a known chance."""

    name = "guesser"

    def __init__(self, answer: list[int]) -> None:
        self.answer = answer
        self.acceptance, self.length = 0.0, 0
        self._random = random.Random(0)

    def propose(self, sequences: Sequence[TokenSequence], limits: Sequence[int]) -> list[Draft]:
        drafts = []
        for sequence in sequences:
            draft, done = Draft(), len(sequence.generated)
            for token in self.answer[done : done + self.length]:
                wrong = self._random.random() > self.acceptance
                draft.add(token + wrong, len(draft) - 1 if len(draft) else ROOT, 0.5, self.name)
            drafts.append(draft)
        return drafts

    def forget(self, sequence: TokenSequence) -> None:
        pass

    def restart(self) -> None:
        pass


def measure(model: octavo.Model) -> list[dict[str, float]]:
    engine, greedy = model.engine, SamplingOptions(temperature=0)
    prompt = model.tokenizer.encode("def quick_sort(values):\n    ")

    def seconds(count: int) -> tuple[list[int], float]:
        generation = engine.submit(prompt, greedy, max_tokens=count)
        return list(generation), generation.timings.generation_seconds

    engine.speculation = None
    answer, _ = seconds(TOKENS + max(LENGTHS) + 2)
    guesser = Guesser(answer)
    forced = Speculation([guesser], Estimates(), draft_max=max(LENGTHS), least_gain=0.0)
    engine.speculation, guesser.acceptance, guesser.length = forced, 1.0, 1
    seconds(TOKENS)  # measures what steps cost
    rows = []
    for acceptance in ACCEPTANCES:
        for length in LENGTHS:
            guesser.acceptance, guesser.length = acceptance, length
            plain = drafted = 0.0
            for _ in range(ROUNDS):  # in turns, so that a slow moment is in both
                engine.speculation = None
                plain += seconds(TOKENS)[1]
                engine.speculation = forced
                drafted += seconds(TOKENS)[1]
            assert forced.costs is not None
            rows.append(
                {
                    "acceptance": acceptance,
                    "length": length,
                    "seen": plain / drafted,
                    "predicted": speedup(acceptance, length, forced.costs),
                }
            )
            print(rows[-1], flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser)
    options = parse_options(parser.parse_args())
    from matplotlib import pyplot

    known = GENERATORS if options.models else {TARGET: GENERATORS[TARGET]}
    for name, path in model_paths(options, known).items():
        with octavo.load(path, threads=options.threads, max_sequences=1, context=1024) as model:
            rows = measure(model)
        figure, axes = pyplot.subplots(figsize=(7, 4.5))
        for length in LENGTHS:
            of_length = [row for row in rows if row["length"] == length]
            acceptances = [row["acceptance"] for row in of_length]
            line = axes.plot(acceptances, [row["predicted"] for row in of_length], label=f"{length} drafted")
            axes.plot(acceptances, [row["seen"] for row in of_length], "o", color=line[0].get_color())
        axes.set(xlabel="acceptance", ylabel="times as fast", title=f"{name}: predicted (lines), seen (dots)")
        axes.axhline(1, color="grey", linewidth=0.5)
        axes.legend()
        place = options.results / f"{date.today().isoformat()}-speedup-{name}"
        figure.savefig(f"{place}.png", dpi=120, bbox_inches="tight")
        place.with_suffix(place.suffix + ".json").write_text(json.dumps(rows, indent=1) + "\n")
        print(f"written to {place}.png")


if __name__ == "__main__":
    main()
