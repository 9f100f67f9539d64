"""The engine's texts have exactly the model's distribution, whatever drafts and judges: chi-square over the
512 texts of three tokens of a vocabulary of eight, corrected for the number of configurations (Holm).

OCTAVO_SPECULATION_SAMPLES: texts of each configuration; 200000 is what docs/speculation.md reports.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from guessing import speculation_of
from numpy.typing import NDArray
from table_runner import VOCABULARY, TableRunner

from octavo.decoding.engine import Engine
from octavo.decoding.sampling import SamplingOptions, distribution, flatten, sampling_batch
from octavo.decoding.speculation import draft_model
from octavo.decoding.speculation.controller import Estimates
from octavo.decoding.speculation.draft_model import ModelSource
from octavo.decoding.speculation.speculation import Rule, Speculation
from octavo.decoding.speculation.suffix import SuffixSource

SAMPLES = int(os.environ.get("OCTAVO_SPECULATION_SAMPLES", "1000"))
PROMPT = [1, 2, 3, 1, 2]  # its end stands in it before: the suffix source has something to say
LENGTH = 3
PLAIN = SamplingOptions(temperature=1, top_k=0, top_p=1, min_p=0)
SAMPLERS = {
    "temperature 1": PLAIN,
    "temperature 0.6": replace(PLAIN, temperature=0.6),
    "top-k, top-p, min-p": replace(PLAIN, top_k=6, top_p=0.95, min_p=0.02),
    "penalties": replace(PLAIN, repetition_penalty=1.4, presence_penalty=0.3, frequency_penalty=0.2),
    "bias": replace(PLAIN, logit_bias={2: 1.5, 5: -math.inf}),
}
MODEL = TableRunner(1)
SMALL = TableRunner(2, like=MODEL, spread=0.7)  # agrees with it about as often as real ones do


def text_law(options: SamplingOptions) -> NDArray[np.float64]:
    """The probability of each text by plain, sequential decoding; float64 [V ** LENGTH]."""
    laws = np.ones((VOCABULARY,) * LENGTH)
    for depth in range(LENGTH):
        for text in itertools.product(range(VOCABULARY), repeat=depth):
            history = [*PROMPT, *text]
            batch = sampling_batch([options], [0], [0])
            if options.has_penalties:
                batch.history, batch.history_offsets = flatten([np.array(history, np.int32)])
            logits = MODEL.table[history[-2], history[-1]][None].copy()
            law = distribution(logits, batch)[0]
            laws[text] *= law.reshape((VOCABULARY, *(1,) * (LENGTH - depth - 1)))
    return laws.reshape(-1)


def speculation(source: str, rule: Rule) -> Speculation | None:
    if source == "none":
        return None
    estimates = Estimates()
    if source == "suffix":
        made = speculation_of(SuffixSource(estimates, earlier=False))
    else:
        made = speculation_of()
        made.model = ModelSource(SMALL, made.estimates, VOCABULARY, own_noise=rule != "equality")
    made.rule = rule
    made.most_nodes = 512
    return made


def sampled(options: SamplingOptions, speculating: Speculation | None, samples: int) -> NDArray[np.int64]:
    """How often each text came, every one with a seed of its own."""
    engine = Engine(MODEL, max_sequences=64, speculation=speculating)
    counts = np.zeros(VOCABULARY**LENGTH, np.int64)
    places = VOCABULARY ** np.arange(LENGTH - 1, -1, -1)
    for first in range(0, samples, 64):
        seeds = range(first, min(first + 64, samples))
        generations = [
            # A token more than is counted, so that all of these can be drafted.
            engine.submit(PROMPT, replace(options, seed=seed), max_tokens=LENGTH + 1)
            for seed in seeds
        ]
        for generation in generations:
            counts[int(np.dot(list(generation)[:LENGTH], places))] += 1
    return counts


def p_value(counts: NDArray[np.int64], law: NDArray[np.float64]) -> float:
    """Chi-square with cells of less than 5 expected pooled; the tail by Wilson and Hilferty's cube root."""
    expected = law * counts.sum()
    assert not counts[expected == 0].any(), "a text that the model cannot write"
    large = expected >= 5
    seen = np.append(counts[large], counts[~large].sum())
    wanted = np.append(expected[large], expected[~large].sum())
    seen, wanted = seen[wanted > 0], wanted[wanted > 0]
    freedom = len(seen) - 1
    statistic = float(((seen - wanted) ** 2 / wanted).sum())
    z = ((statistic / freedom) ** (1 / 3) - (1 - 2 / (9 * freedom))) / math.sqrt(2 / (9 * freedom))
    return 0.5 * math.erfc(z / math.sqrt(2))


def holm_rejects(values: Sequence[float], level: float = 0.01) -> bool:
    return any(value < level / (len(values) - rank) for rank, value in enumerate(sorted(values)))


def configurations() -> list[tuple[str, str, Rule]]:
    made: list[tuple[str, str, Rule]] = [(name, "model", "equality") for name in SAMPLERS]
    made += [(name, "model", rule) for name in SAMPLERS for rule in ("token", "block")]
    made += [("temperature 1", "none", "equality"), ("penalties", "suffix", "equality")]
    made += [("temperature 1", "suffix", "token"), ("top-k, top-p, min-p", "suffix", "block")]
    return made


def test_every_configuration_has_the_models_distribution(capsys: pytest.CaptureFixture[str]) -> None:
    values = []
    for sampler, source, rule in configurations():
        speculating = speculation(source, rule)
        counts = sampled(SAMPLERS[sampler], speculating, SAMPLES)
        values.append(p_value(counts, text_law(SAMPLERS[sampler])))
        with capsys.disabled():
            if SAMPLES > 10_000:
                print(f"\n{sampler}, {source}, {rule}: p = {values[-1]:.3f}", end="")
    assert not holm_rejects(values), values


def test_equality_gives_the_same_texts_with_and_without_drafts() -> None:
    for options in SAMPLERS.values():
        plain = sampled(options, None, 640)
        assert (sampled(options, speculation("model", "equality"), 640) == plain).all()
        assert (sampled(options, speculation("suffix", "equality"), 640) == plain).all()


# Mutants


def rejected(speculating: Speculation) -> bool:
    return p_value(sampled(PLAIN, speculating, max(SAMPLES, 4000)), text_law(PLAIN)) < 1e-6


def test_a_wrong_law_of_the_draft_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        draft_model, "distribution", lambda logits, batch: np.full(logits.shape, 1 / VOCABULARY)
    )
    assert rejected(speculation("model", "token"))  # type: ignore[arg-type]


def acceptance(small: TableRunner) -> float:
    made = speculation_of()
    made.model = ModelSource(small, made.estimates, VOCABULARY)
    engine = Engine(MODEL, speculation=made)
    generations = [engine.submit(PROMPT, replace(PLAIN, seed=seed), max_tokens=100) for seed in range(20)]
    for generation in generations:
        list(generation)
    return sum(g.timings.accepted for g in generations) / sum(g.timings.drafted for g in generations)


def test_a_stale_draft_cache_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """It cannot change a text, only how much is accepted: of a model by itself, all."""
    assert acceptance(TableRunner(1)) == 1.0
    honest = acceptance(SMALL)
    real = ModelSource._begin

    def begin(self, sequence, limit):  # type: ignore[no-untyped-def]
        cached = self._cached.get(id(sequence))
        stale = [] if cached is None else cached.tokens[sequence.length - 1 : sequence.length]
        guess = real(self, sequence, limit)
        if guess is not None and stale:
            guess.pending[-1:] = stale  # a rejected token's keys and values pass for the new token's
        return guess

    monkeypatch.setattr(ModelSource, "_begin", begin)
    assert acceptance(SMALL) < honest - 0.05


def test_a_rollback_by_one_too_few_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    from octavo.decoding.scheduler import Scheduler

    real = Scheduler.commit

    def commit(self, step, tokens, now):  # type: ignore[no-untyped-def]
        real(self, step, tokens, now)
        for drawing in step.drawings:
            accepted = len(drawing.draft.path(drawing.accepted))
            if accepted < len(drawing.draft) and not drawing.sequence.ended:
                # The rejected token's keys and values are taken for those of the token in its place.
                drawing.sequence.ids[drawing.sequence.length - 1] = drawing.draft.tokens[accepted]

    monkeypatch.setattr(Scheduler, "commit", commit)
    assert rejected(speculation("model", "equality"))  # type: ignore[arg-type]
