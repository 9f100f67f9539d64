"""The screen of a run: loss, learning rate, speed, share of the machine's peak, time left, a sample.

On a terminal the lines stay in place; into a pipe one line is written now and then.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from octavo.training.config import TrainingConfig
    from octavo.training.loop import Progress

_PIPE_SECONDS = 10.0
# The time left goes by the pace of so many steps: a machine that slept, or was busy an hour ago, is no guide.
_PACE_STEPS = 100
_BLOCKS = " .:-=+*#%@"


class LiveView:
    """A context manager that `train` and `resume` take as their view.

    peak: operations a second that this machine's matrix products reach, see `peak_flops`.
    """

    def __init__(self, peak: float = 0.0, *, quiet: bool = False) -> None:
        self._peak = peak
        self._quiet = quiet
        self._terminal = sys.stderr.isatty() and not quiet
        self._live: Any = None
        self._losses: list[float] = []
        self._pace: deque[tuple[int, float]] = deque(maxlen=_PACE_STEPS)  # steps, and seconds that had passed
        self._validation = ""
        self._sample = ""
        self._title = ""
        self._written = 0.0

    def __enter__(self) -> Self:
        if self._terminal:
            from rich.live import Live

            self._live = Live(refresh_per_second=4)
            self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.__exit__(kind, error, trace)

    def begin(self, config: TrainingConfig, parameters: int, precision: str) -> None:
        if self._peak == 0.0 and not self._quiet:
            self._peak = peak_flops(precision)
        self._title = (
            f"{config.architecture}, {parameters / 1e6:.1f} M parameters ({config.layers} layers, "
            f"{config.hidden_size} wide), {config.batch_tokens} tokens a step, "
            f"{config.optimizer}, {precision}"
        )
        if not self._terminal and not self._quiet:
            print(self._title, file=sys.stderr)

    def show(self, progress: Progress) -> None:
        self._losses.append(progress.loss)
        left = self._time_left(progress)
        if progress.validation is not None:
            found = progress.validation
            self._validation = f"validation {found.loss:.3f}"
            if found.bits_per_byte:  # a draft head's tokens stand for no text of their own
                self._validation += f", {found.bits_per_byte:.3f} bits a byte"
            self._validation += "".join(f", {name} {value:.3f}" for name, value in found.scores.items())
        if progress.sample:
            self._sample = progress.sample
        if self._live is not None:
            self._live.update(self._picture(progress, left))
            return
        now = time.monotonic()
        last = progress.step == progress.steps
        due = last or progress.validation is not None or now - self._written > _PIPE_SECONDS
        if due and not self._quiet:
            self._written = now
            print("  ".join(self._facts(progress, left)), file=sys.stderr)

    def _time_left(self, progress: Progress) -> float:
        step, seconds = self._pace[0] if self._pace else (0, 0.0)
        self._pace.append((progress.step, progress.seconds))
        return (progress.steps - progress.step) * (progress.seconds - seconds) / max(progress.step - step, 1)

    def _facts(self, progress: Progress, left: float) -> list[str]:
        facts = [
            f"step {progress.step}/{progress.steps}",
            f"loss {progress.loss:.3f}",
            f"learning rate {progress.learning_rate:.2g}",
            f"{progress.tokens_per_second:,.0f} tokens/s",
        ]
        if self._peak:
            facts.append(f"{progress.flops_per_second / self._peak:.0%} of peak")
        facts.append(f"{_duration(left)} left")
        return [*facts, self._validation] if self._validation else facts

    def _picture(self, progress: Progress, left: float) -> Any:
        from rich.console import Group
        from rich.text import Text

        lines = [Text(self._title, style="dim"), Text("  ".join(self._facts(progress, left)))]
        lines.append(Text(f"loss {sparkline(self._losses)}", style="cyan"))
        if self._sample:
            lines.append(Text("".join(c if c.isprintable() or c == "\n" else " " for c in self._sample)))
        return Group(*lines)


def sparkline(values: list[float], width: int = 60) -> str:
    """The course of values in one line of characters, the mean of a column each; low to high."""
    count = min(width, len(values))
    means = []
    for column in range(count):
        part = values[column * len(values) // count : (column + 1) * len(values) // count]
        means.append(sum(part) / len(part))
    low, high = min(means), max(means)
    scale = (len(_BLOCKS) - 1) / (high - low) if high > low else 0.0
    return "".join(_BLOCKS[round((mean - low) * scale)] for mean in means)


def peak_flops(precision: str) -> float:
    """Operations a second of a large matrix product now, in the given precision; takes about 0.1 s."""
    import torch

    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    left, right = torch.ones(2048, 1024, dtype=dtype), torch.ones(1024, 1024, dtype=dtype)
    best = float("inf")
    for _ in range(4):
        began = time.perf_counter()
        torch.nn.functional.linear(left, right)
        best = min(best, time.perf_counter() - began)
    return 2.0 * 2048 * 1024 * 1024 / best


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
