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
from typing import Literal

import numpy as np
import pytest
from guessing import speculation_of
from numpy.typing import NDArray
from table_runner import VOCABULARY, TableRunner

from octavo.decoding import engine as engine_module
from octavo.decoding.engine import Engine
from octavo.decoding.sampling import SamplingOptions, distribution, flatten, sample, sampling_batch
from octavo.decoding.sequences import Drawing
from octavo.decoding.speculation import drawn, verification
from octavo.decoding.speculation import speculation as speculation_module
from octavo.decoding.speculation.branches import chain_of
from octavo.decoding.speculation.controller import Estimates, Outlook
from octavo.decoding.speculation.costs import StepCosts
from octavo.decoding.speculation.draft_model import ModelSource
from octavo.decoding.speculation.speculation import Rule, Speculation
from octavo.decoding.speculation.suffix import SuffixSource

SAMPLES = int(os.environ.get("OCTAVO_SPECULATION_SAMPLES", "1000"))
PROMPT = [0, 3, 6, 1, 4, 7, 2, 5, 0, 3]  # holds every token: the suffix source always has something to say
LENGTH = 3
TOGETHER = 4  # texts at once where the controller chooses among their tokens
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
    if source in ("controlled", "eager"):
        return controlled(rule, EagerOutlook if source == "eager" else Outlook)
    estimates = Estimates()
    made = speculation_of(
        *([SuffixSource(estimates, earlier=False, least_chance=0.0)] if source != "model" else [])
    )
    if source != "suffix":
        made.model = ModelSource(SMALL, made.estimates, VOCABULARY, own_noise=rule != "equality")
    made.rule = rule
    made.most_nodes = 512
    return made


class FixedCosts(StepCosts):
    """These steps take no time: what they cost is what the test says."""

    are_current = True

    def observe(self, tokens: int, seconds: float, *, plain: bool) -> None:
        pass

    def doubt(self, taken: int, most: int) -> None:
        pass


class EagerOutlook(Outlook):
    """The model drafts always, and to the limits."""

    gain = 9.0

    def going_on(self, reaches: Sequence[float]) -> list[int]:
        return list(range(len(reaches)))


def controlled(rule: Rule, outlook: type[Outlook]) -> Speculation:
    """Not all that is proposed is worth its step."""
    estimates = Estimates()
    made = Speculation(
        [SuffixSource(estimates, earlier=False, least_chance=0.0)],
        estimates,
        model=ModelSource(SMALL, estimates, VOCABULARY, own_noise=True),
        costs=FixedCosts(StepCosts.linear(1.0, 0.1).seconds),
        rule=rule,
        draft_max=4,
    )
    made.trial.observe = lambda *seconds: None  # type: ignore[method-assign]
    made._outlook = lambda sequences, costs: outlook(sequences, costs, 0.0, 0.7, 1.03)  # type: ignore[method-assign]
    made.most_nodes = 512
    return made


def sampled(
    options: SamplingOptions, speculating: Speculation | None, samples: int, together: int = 64
) -> NDArray[np.int64]:
    """How often each text came, every one with a seed of its own."""
    engine = Engine(MODEL, max_sequences=64, speculation=speculating)
    counts = np.zeros(VOCABULARY**LENGTH, np.int64)
    places = VOCABULARY ** np.arange(LENGTH - 1, -1, -1)
    for first in range(0, samples, together):
        seeds = range(first, min(first + together, samples))
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
    made += [(name, "both", "token") for name in ("temperature 1", "penalties")]  # trees
    made += [("temperature 1", who, rule) for who in ("controlled", "eager") for rule in ("token", "block")]
    return made


def test_every_configuration_has_the_models_distribution(capsys: pytest.CaptureFixture[str]) -> None:
    values = []
    for sampler, source, rule in configurations():
        speculating = speculation(source, rule)
        together = TOGETHER if source in ("controlled", "eager") else 64
        counts = sampled(SAMPLERS[sampler], speculating, SAMPLES, together)
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


def test_branches_are_followed_by_the_rule_for_trees(monkeypatch: pytest.MonkeyPatch) -> None:
    followed, real = [], verification.judge

    def judge(drawing: Drawing, laws: NDArray[np.float64], rule: Literal["token", "block"]) -> list[int]:
        emitted = real(drawing, laws, rule)
        followed.append(chain_of(drawing.draft, drawing.accepted))
        return emitted

    monkeypatch.setattr(engine_module, "judge", judge)
    sampled(PLAIN, speculation("both", "token"), 2560)
    assert sum(chain > 0 for chain in followed) > 15


# Mutants


def rejected(speculating: Speculation, together: int = 64) -> bool:
    """By the whole texts, or by their first two tokens: fewer cells show more of what is wrong there."""
    counts, law = sampled(PLAIN, speculating, max(SAMPLES, 4000), together), text_law(PLAIN)
    pairs = (VOCABULARY**2, -1)
    of_pairs = p_value(counts.reshape(pairs).sum(1), law.reshape(pairs).sum(1))
    return min(p_value(counts, law), of_pairs) < 1e-6


@pytest.mark.parametrize("rule", ["token", "block"])
def test_a_wrong_law_of_the_draft_is_found(rule: Rule, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawn, "distribution", lambda logits, batch: np.full(logits.shape, 1 / VOCABULARY))
    assert rejected(speculation("model", rule))  # type: ignore[arg-type]


def test_reused_noise_with_the_ratio_test_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The draft draws with the text's own noise, and what follows a rejection is drawn with it again."""
    judged: list[Drawing] = []
    real = verification.judge

    def judge(drawing: Drawing, laws: NDArray[np.float64], rule: Literal["token", "block"]) -> list[int]:
        judged.append(drawing)
        return real(drawing, laws, rule)

    def draw(law: NDArray[np.float64], uniform: object) -> int:
        drawing = judged[-1]
        position = drawing.sequence.length + len(drawing.draft.path(drawing.accepted))
        logits = np.log(np.maximum(law, 1e-30)).astype(np.float32)[None]
        return int(sample(logits, sampling_batch([PLAIN], [drawing.sequence.seed], [position]))[0])

    monkeypatch.setattr(engine_module, "judge", judge)
    monkeypatch.setattr(verification, "draw", draw)
    monkeypatch.setattr(drawn, "noise_of_draft", lambda sequence: sequence.seed)
    for name, law in (("MODEL", (0.1, 0.3, 0.6)), ("SMALL", (0.5, 0.1, 0.4))):  # the bias is larger here
        runner = TableRunner(0)
        runner.table[:] = np.log([*law, *(1e-9,) * (VOCABULARY - 3)])
        monkeypatch.setitem(globals(), name, runner)
    assert rejected(speculation("model", "token"))  # type: ignore[arg-type]


@pytest.mark.parametrize("rule", ["token", "block"])
def test_dropping_drawn_tokens_that_are_unlikely_is_found(
    rule: Rule, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speculation_module, "_with_drawn", lambda draft, nodes: nodes)
    assert rejected(controlled(rule, EagerOutlook), TOGETHER)


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
    real = ModelSource.begin

    def begin(self, sequence, limit):  # type: ignore[no-untyped-def]
        cached = self._cached.get(id(sequence))
        stale = [] if cached is None else cached.tokens[sequence.length - 1 : sequence.length]
        guess = real(self, sequence, limit)
        if guess is not None and stale:
            guess.pending[-1:] = stale  # a rejected token's keys and values pass for the new token's
        return guess

    monkeypatch.setattr(ModelSource, "begin", begin)
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
