"""The plan: of all shapes that fit, the one whose predicted loss is lowest when time is over.

The objective is time, not FLOPs: small models compute slower, so the two optima differ.  The law is that of a
sweep on the same corpus and tokenizer; published E, A and B belong to others and are never used.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from octavo.scaling.counting import ModelCount
from octavo.scaling.fitting.pitfalls import extrapolation_warning
from octavo.scaling.fitting.uncertainty import Prediction, predict_run, profile
from octavo.scaling.laws import RepetitionLaw, Values, effective_parameters_of_bits, serving_optimum
from octavo.scaling.planning.throughput import Throughput
from octavo.scaling.sweeping.held_out import LadderFit
from octavo.scaling.sweeping.ladder import FINAL, WARMUP, Ladder, PlannedRun, planned

# Shapes that are considered: (hidden size, layers), layers about an eighth to a half of hidden / 16.
SHAPES = tuple(
    (hidden, layers)
    for hidden in (16, 32, 48, 64, 80, 96, 128, 160, 192, 256, 320, 384, 512, 640, 768)
    for layers in range(1, 25)
    if hidden / 48 <= layers <= hidden / 16
)
# What validation, samples and checkpoints leave of the time.
_TRAINING_SHARE = 0.95
# Of the search for a budget that fills the time: each turn leaves at most 0.57 of its logarithm's error.
_TURNS = 16
# Float32 weights, gradients and AdamW's two means; activations kept for the backward pass, floats a token,
# layer and unit of width (Korthikanti et al. 2022, section 4.1, without recomputation).
_BYTES_A_PARAMETER, _FLOATS_A_UNIT = 16, 17
_MOST_ERROR, _MOST_EPOCHS = 0.05, 40.0
LEVEL = 0.8


@dataclass(frozen=True, slots=True)
class Candidate:
    """A run that fills the time."""

    run: PlannedRun
    count: ModelCount
    loss: float
    effective_tokens: float


@dataclass(frozen=True, slots=True)
class BitsChoice:
    """The best size where weights are kept in `bits`."""

    bits: int
    parameters: int
    loss: float
    tokens_per_parameter: float


@dataclass(frozen=True, slots=True)
class Plan:
    """The answer.

    flat: least and most parameters within 1 % of the best loss.  twice_wrong: loss with half or twice the
    size.  curve: parameters and predicted loss of every shape that fits.  refusals: why it must not be
    trusted.  next_run: what would help most (hidden size, layers, FLOPs).
    """

    run: PlannedRun
    count: ModelCount
    epochs: float
    hours: float
    memory_bytes: int
    prediction: Prediction
    bits_per_byte: float
    flat: tuple[int, int]
    twice_wrong: float
    one_hour_more: float
    ten_percent_data: float
    serving: tuple[float, float, float] | None
    bits: tuple[BitsChoice, ...]
    next_run: tuple[int, int, float] | None
    curve: tuple[tuple[int, float], ...]
    warnings: tuple[str, ...] = field(default=())
    refusals: tuple[str, ...] = field(default=())

    @property
    def perplexity(self) -> float:
        return math.exp(self.prediction.loss)


def plan(
    ladder: Ladder,
    found: LadderFit,
    speed: Throughput,
    *,
    corpus: str,
    unique_tokens: float,
    bytes_per_token: float,
    hours: float,
    serve_tokens: float = 0.0,
    bits: Sequence[int] = (),
    most_memory: float = math.inf,
) -> Plan:
    """found: the law of a sweep on this corpus.  Raises ValueError where no shape fits time and memory."""

    def all_of(hours: float, unique: float) -> list[Candidate]:
        return candidates(ladder, found, speed, corpus, unique, hours, most_memory)

    table = all_of(hours, unique_tokens)
    if not table:
        raise ValueError(
            f"no model fits {hours:.3g} hours and {most_memory / 1e9:.3g} GB: give more of either"
        )
    best = min(table, key=lambda each: each.loss)
    size = best.count.active
    near = [each.count.active for each in table if each.loss <= 1.01 * best.loss]
    wrong = [min(table, key=lambda each: abs(math.log(each.count.active / (f * size)))) for f in (0.5, 2.0)]
    largest = float(found.table.compute.max())
    prediction = predict_run(
        found.fit,
        size,
        best.effective_tokens,
        level=LEVEL,
        ratio=best.run.budget / largest,
        noise=found.noise,
        hold_out=found.hold_out,
        other=found.other,
    )
    # What is said of losses is said between the two forms; shapes are ranked by the law with a floor.
    between = prediction.loss / float(found.fit.predict(size, best.effective_tokens))
    epochs = best.run.config.tokens / unique_tokens
    serving = serving_optimum(found.fit.law, best.loss, serve_tokens) if serve_tokens else None
    return Plan(
        best.run,
        best.count,
        epochs,
        hours,
        memory(best),
        replace(prediction, loss=between * best.loss),
        between * best.loss / math.log(2) / bytes_per_token,
        (min(near), max(near)),
        between * max(each.loss for each in wrong),
        between * min(each.loss for each in all_of(hours + 1, unique_tokens)),
        between * min(each.loss for each in all_of(hours, 1.1 * unique_tokens)),
        serving,
        tuple(_bits(k, table, found, most_memory, between) for k in bits),
        next_run(ladder, found, best, corpus),
        tuple(sorted((each.count.active, between * each.loss) for each in table)),
        tuple(_warnings(best, largest, epochs, bits)),
        tuple(_refusals(found, table, best, epochs)),
    )


def candidates(
    ladder: Ladder,
    found: LadderFit,
    speed: Throughput,
    corpus: str,
    unique: float,
    hours: float,
    most_memory: float,
) -> list[Candidate]:
    """Every shape with the tokens that the time pays for, and its loss by the law of repeated data."""
    law = RepetitionLaw(found.fit.law)
    table = []
    for shape in SHAPES:
        run = _filling(ladder, corpus, shape, speed, hours * 3600 * _TRAINING_SHARE)
        count = run.config.count()
        effective = float(law.effective_tokens(run.config.tokens, unique))
        if run.config.tokens < count.active / 2 or run.config.steps < 100:
            continue
        each = Candidate(run, count, float(found.fit.predict(count.active, effective)), effective)
        if memory(each) <= most_memory:
            table.append(each)
    return table


def _filling(
    ladder: Ladder, corpus: str, shape: tuple[int, int], speed: Throughput, seconds: float
) -> PlannedRun:
    """The run of a shape that takes so long.  Batches grow with tokens, so its updates are found by turns."""

    def of(budget: float) -> PlannedRun:
        run = planned(ladder, corpus, shape, budget, role="plan")
        assert run is not None  # only ladders leave runs out
        return run

    run = of(1e9)
    for _ in range(_TURNS):
        run = of(
            run.budget * seconds / speed.seconds(run.config.count().active, run.budget, run.config.steps)
        )
    return run


def memory(candidate: Candidate) -> int:
    """Bytes that training takes at its peak, about."""
    config = candidate.run.config
    rows = config.training("").rows
    activations = rows * config.context * config.layers * config.hidden * _FLOATS_A_UNIT * 4
    return _BYTES_A_PARAMETER * candidate.count.total + activations


def train_command(plan: Plan, data: Sequence[str], out: str, tokenizer: str) -> str:
    """The exact line to type."""
    c = plan.run.config
    words = ["octavo train gpt", *(f"--data {path}" for path in data), f"--out {out}"]
    words += [f"--layers {c.layers} --width {c.hidden} --context {c.context} --tokenizer {tokenizer}"]
    words += [f"--tokens {c.tokens} --batch-tokens {c.batch_tokens} --rows {c.training('').rows}"]
    words += [f"--optimizer {c.optimizer} --learning-rate {c.learning_rate:.4g} --schedule cosine"]
    words += [f"--warmup {WARMUP} --final {FINAL} --precision {c.precision}"]
    return " ".join(words)


def next_run(ladder: Ladder, found: LadderFit, best: Candidate, corpus: str) -> tuple[int, int, float] | None:
    """The run whose result narrows the prediction most for its FLOPs; to first order in the constants."""
    problem, theta = found.fit.problem, found.fit.theta
    _, slopes = problem.residuals(theta)
    information = slopes.T @ slopes
    target = _slope(found, best.count.active, best.effective_tokens)
    ridge = 1e-12 * float(np.trace(information)) * np.eye(5)

    def variance(matrix: Values) -> float:
        return float(target @ np.linalg.solve(matrix + ridge, target))

    now = variance(information)
    options = []
    for budget in (float(found.table.compute.max()), 2 * float(found.table.compute.max())):
        for shape in ladder.shapes:
            run = planned(ladder, corpus, shape, budget)
            if run is None or run.budget > best.run.budget:
                continue
            row = _slope(found, run.config.count().active, run.config.tokens)
            options.append(((now - variance(information + np.outer(row, row))) / budget, (*shape, budget)))
    return max(options)[1] if options else None


def _slope(found: LadderFit, parameters: float, tokens: float) -> Values:
    """d log L / d theta at a point."""
    law = found.fit.law
    e, a, b = law.E, law.A * parameters**-law.alpha, law.B * tokens**-law.beta
    slope = [e, a, b, -a * math.log(parameters), -b * math.log(tokens)]
    return np.asarray([each / (e + a + b) for each in slope], float)


def _bits(
    k: int, table: Sequence[Candidate], found: LadderFit, most_memory: float, between: float
) -> BitsChoice:
    """Weights of k bits in the memory there is; what the bits cost is a prior, Kumar's law, not measured."""

    def loss(each: Candidate) -> float:
        effective = effective_parameters_of_bits(each.count.active, weights=k)
        return float(found.fit.predict(effective, each.effective_tokens))

    fitting = [each for each in table if each.count.total * k / 8 <= most_memory] or list(table)
    best = min(fitting, key=loss)
    return BitsChoice(k, best.count.active, between * loss(best), best.run.config.tokens / best.count.active)


def _warnings(best: Candidate, largest: float, epochs: float, bits: Sequence[int]) -> list[str]:
    warnings = [each for each in [extrapolation_warning(best.run.budget, largest)] if each]
    if epochs > 4:
        warnings.append(
            f"{epochs:.1f} epochs: what repeated text is worth is uncertain (R_D* 15 to 95); bring more"
        )
    if any(k < 4 for k in bits):
        warnings.append(
            "below 4 bits more parameters do not make up for the bits (Dettmers and Zettlemoyer 2023)"
        )
    return warnings


def is_bent(found: LadderFit) -> bool:
    """Every run of the largest budget is missed to one side, by far more than noise: no power law yet."""
    if found.hold_out is None:
        return False
    errors = found.hold_out.errors
    one_side = len(errors) > 3 and (min(errors) > 0 or max(errors) < 0)
    return one_side and found.hold_out.root_mean_square > 2 * found.fit.noise


def _refusals(found: LadderFit, table: Sequence[Candidate], best: Candidate, epochs: float) -> list[str]:
    refusals = []
    runs = len(found.table)
    for name in ("alpha", "beta"):
        if not profile(found.fit, name).identified:
            refusals.append(f"your {runs} runs cannot identify {name}")
    if found.hold_out is None:
        refusals.append("the sweep has one budget only: run another, three times larger or smaller")
    elif found.hold_out.root_mean_square > _MOST_ERROR:
        refusals.append(
            f"the law misses its own largest budget by {100 * found.hold_out.root_mean_square:.1f} %: "
            f"add budgets"
        )
    elif is_bent(found):
        refusals.append("the largest budget is missed to one side: too small budgets for a law, add larger")
    sizes = sorted(each.count.active for each in table)
    if best.count.active in (sizes[0], sizes[-1]) and len(sizes) > 1:
        refusals.append(f"the best size is at the edge of what is possible (N = {best.count.active:,})")
    if epochs > _MOST_EPOCHS:
        refusals.append(f"the corpus gives {epochs:.0f} epochs: bring more text or plan fewer hours")
    return refusals
