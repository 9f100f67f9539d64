"""Learning-rate schedules: progress through training, 0 to 1, to what the peak rate is multiplied by.

A schedule over progress is the same curve for ten steps and for ten thousand, and resumes from a number.
Every one rises from 0 in a straight line over the first `warmup` of training (Goyal et al. 2017, section 2.2;
Vaswani et al. 2017, section 5.3); then comes a function of x, which is 0 at the end of the warm-up and 1 at
the end of training.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from octavo.errors import UnsupportedError

Schedule = Callable[[float], float]


def constant(*, final: float) -> Schedule:
    """1 throughout."""
    return lambda x: 1.0


def linear(*, final: float) -> Schedule:
    """A straight line from 1 to final."""
    return lambda x: 1.0 + (final - 1.0) * x


def cosine(*, final: float) -> Schedule:
    """Half a cosine from 1 to final (Loshchilov and Hutter 2017, SGDR, equation 5)."""
    return lambda x: final + (1.0 - final) * 0.5 * (1.0 + math.cos(math.pi * x))


def power(*, final: float, exponent: float = 1.0) -> Schedule:
    """1 / (1 + k x)^exponent, with the k that ends at final: fast at first, then ever slower."""
    _positive("power", final)
    rate = final ** (-1.0 / exponent) - 1.0
    return lambda x: float((1.0 + rate * x) ** -exponent)


def exponential(*, final: float) -> Schedule:
    """final^x: falls by the same factor in every equal part of training."""
    _positive("exponential", final)
    return lambda x: float(final**x)


def piecewise(
    *, final: float, boundaries: tuple[float, ...] = (0.5, 0.75), values: tuple[float, ...] = ()
) -> Schedule:
    """Constant between boundaries (in x).

    values: one more than boundaries, by default even steps in the logarithm from 1 to final.
    """
    if not values:
        _positive("piecewise", final)
        values = tuple(final ** (step / len(boundaries)) for step in range(len(boundaries) + 1))
    if len(values) != len(boundaries) + 1 or list(boundaries) != sorted(boundaries):
        raise UnsupportedError("schedule piecewise: boundaries must rise, and values be one more than they")
    return lambda x: values[sum(x >= boundary for boundary in boundaries)]


def warmup_stable_decay(*, final: float, decay: float) -> Schedule:
    """1, then over the last `decay` of training 1 - sqrt down to final (Hu et al. 2024, MiniCPM, section 4.3;
    the shape of the fall: Haegele et al. 2024, section 3).  Any point before the fall can be trained on from.
    """

    def multiplier(x: float) -> float:
        if x <= 1.0 - decay:
            return 1.0
        return final + (1.0 - final) * (1.0 - math.sqrt((x - 1.0 + decay) / decay))

    return multiplier


def one_cycle(*, final: float) -> Schedule:
    """The second half of 1-cycle: the warm-up is its first, this falls in a line to final at 90 % of the rest
    and to a hundredth of it at the end (Smith 2018, A disciplined approach, section 5)."""

    def multiplier(x: float) -> float:
        if x < 0.9:
            return 1.0 + (final - 1.0) * x / 0.9
        return final * (1.0 - 0.99 * (x - 0.9) / 0.1)

    return multiplier


_AFTER_WARMUP: Mapping[str, Callable[..., Schedule]] = {
    "constant": constant,
    "linear": linear,
    "cosine": cosine,
    "power": power,
    "exponential": exponential,
    "piecewise": piecewise,
    "one_cycle": one_cycle,
    "warmup_stable_decay": warmup_stable_decay,
}
SCHEDULES = (*_AFTER_WARMUP, "inverse_sqrt")


def build_schedule(
    name: str, *, warmup: float = 0.0, decay: float = 0.2, final: float = 0.1, **options: Any
) -> Schedule:
    """The schedule of that name: progress in [0, 1] -> multiplier in [0, 1]; beyond 1 it stays at the end.

    warmup: the part of training over which the rate rises from 0.  decay: the part, at the end, over which
    "warmup_stable_decay" falls.  final: the multiplier at the end (constant, inverse_sqrt: not used).
    options: exponent (power); boundaries, values (piecewise).
    Raises UnsupportedError for an unknown name or option or an impossible value.
    """
    if name not in SCHEDULES:
        raise UnsupportedError(f"schedule {name!r} is not known; there are {', '.join(SCHEDULES)}")
    for option, value in (("warmup", warmup), ("decay", decay), ("final", final)):
        if not 0.0 <= value <= 1.0:
            raise UnsupportedError(f"schedule {name}: {option} is {value}; it is a part, from 0 to 1")
    if name == "inverse_sqrt":
        if options or not warmup:
            raise UnsupportedError("schedule inverse_sqrt needs a warmup above 0, and has no other option")
        return lambda progress: _inverse_sqrt(_bounded(progress), warmup)
    after = _after_warmup(name, warmup, decay, final, options)

    def multiplier(progress: float) -> float:
        progress = _bounded(progress)
        if progress < warmup:
            return progress / warmup
        return after((progress - warmup) / (1.0 - warmup)) if warmup < 1.0 else 1.0

    return multiplier


def _after_warmup(
    name: str, warmup: float, decay: float, final: float, options: Mapping[str, Any]
) -> Schedule:
    build = _AFTER_WARMUP[name]
    known = set(inspect.signature(build).parameters)
    unknown = sorted(set(options) - known)
    if unknown:
        raise UnsupportedError(f"schedule {name} has no option {unknown[0]!r}")
    if "decay" not in known:
        return build(final=final, **options)
    if not 0.0 < decay <= 1.0 - warmup:
        raise UnsupportedError(f"schedule {name}: decay is {decay}; it is above 0 and at most 1 - warmup")
    return build(final=final, decay=decay / (1.0 - warmup), **options)


def _inverse_sqrt(progress: float, warmup: float) -> float:
    return progress / warmup if progress < warmup else math.sqrt(warmup / progress)


def inverse_sqrt_of_steps(step: int, *, hidden_size: int, warmup_steps: int) -> float:
    """The learning rate itself: hidden_size^-0.5 * min(step^-0.5, step * warmup_steps^-1.5).

    Vaswani et al. 2017, equation 3; step counts from 1.
    """
    if step < 1 or warmup_steps < 1:
        raise ValueError(f"steps count from 1: step is {step}, warmup_steps {warmup_steps}")
    return float(hidden_size**-0.5 * min(step**-0.5, step * warmup_steps**-1.5))


@dataclass
class PlateauSchedule:
    """Performance scheduling: the rate falls by `factor` when the loss has not fallen for `patience` checks.

    A loss counts as lower when it is below (1 - threshold) times the best.  Feed it with `update` after each
    evaluation.  The state is its fields: `dataclasses.asdict` saves it, `PlateauSchedule(**saved)` goes on.
    """

    factor: float = 0.5
    patience: int = 3
    threshold: float = 1e-3
    final: float = 0.01
    multiplier: float = 1.0
    best: float = field(default=math.inf)
    waited: int = 0

    def update(self, loss: float) -> float:
        """Takes a validation loss and gives the multiplier from here on, never below final."""
        if loss < self.best * (1.0 - self.threshold):
            self.best, self.waited = loss, 0
        else:
            self.waited += 1
        if self.waited > self.patience:
            self.multiplier, self.waited = max(self.final, self.multiplier * self.factor), 0
        return self.multiplier


def _bounded(progress: float) -> float:
    return min(max(progress, 0.0), 1.0)


def _positive(name: str, final: float) -> None:
    if not final > 0.0:
        raise UnsupportedError(f"schedule {name}: final is {final}; this curve never reaches 0")
