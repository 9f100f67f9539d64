"""The training loop: batches -> loss -> gradients -> optimizer, with checkpoints that resume exactly.

One update is `Trainer.update`; read that first.  Everything random is a function of the seed and the step.
"""

from __future__ import annotations

import math
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import torch

from octavo.training import distributed
from octavo.training.allocation import flushed_denormals, prepare_process
from octavo.training.causal import Task, Validation
from octavo.training.checkpoints import TrainingState, list_checkpoints, load_checkpoint, save_checkpoint
from octavo.training.clipping import clip_by_norm
from octavo.training.clock import Clock
from octavo.training.config import (
    FILE_NAME,
    TrainingConfig,
    TrainingError,
    complete,
    read_config,
    write_config,
)
from octavo.training.diagnosis import first_broken_layer
from octavo.training.distributed import World
from octavo.training.metrics import MetricsWriter
from octavo.training.optimizers import build_optimizer
from octavo.training.precision import DTYPES, ComputeCopy, choose_precision
from octavo.training.schedules import build_schedule
from octavo.training.tasks.build import build_task


@dataclass(frozen=True, slots=True)
class Progress:
    """What a view is told after each step.  norm: of all gradients before clipping."""

    step: int
    steps: int
    loss: float
    learning_rate: float
    norm: float
    tokens: int
    tokens_per_second: float
    flops_per_second: float
    seconds: float
    validation: Validation | None = None
    sample: str = ""


class View(Protocol):
    """Where progress is shown; see `live_view.LiveView`."""

    def begin(self, config: TrainingConfig, parameters: int, precision: str) -> None: ...
    def show(self, progress: Progress) -> None: ...


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """folder: the model folder.  loss: of the last step.  interrupted: a signal ended it; resume goes on."""

    folder: Path
    steps: int
    tokens: int
    seconds: float
    loss: float
    validation: Validation | None
    interrupted: bool


def train(config: TrainingConfig, *, view: View | None = None) -> TrainingResult:
    """Train a model from the beginning; `config.out` becomes a Hugging Face folder.

    Ctrl-C and SIGTERM save a checkpoint first.  Raises TrainingError when the loss is no longer a number, the
    folder holds a run already, or the disk is full; FormatError for data that cannot be read.
    """
    folder = Path(config.out)
    if list_checkpoints(folder):
        raise TrainingError(f"{folder} holds a run already: resume it, or choose another folder")
    config = complete(config)
    with distributed.joined() as world:
        distributed.check(config, world)
        task = build_task(config)
        if world.first:
            write_config(config)
            if task.tokenizer is not None:
                # To be made anew it need not come out the same: ties are broken by chance.
                task.tokenizer.save(str(folder / "tokenizer.json"))
        return Trainer(config, task, view, world).run()


def resume(folder: Path, *, view: View | None = None) -> TrainingResult:
    """Go on with a run from its newest checkpoint, exactly as if it had never stopped.

    Raises FormatError if no run was begun there, TrainingError if the data has changed since.
    """
    config = read_config(folder)
    task = build_task(config, folder=folder)
    with distributed.joined() as world:
        distributed.check(config, world)
        trainer = Trainer(config, task, view, world)
        checkpoints = list_checkpoints(folder)
        if checkpoints:
            trainer.restore(checkpoints[-1])
        return trainer.run()


class Trainer:
    """One run.  config must be complete.  world: the processes that share it, each with a Trainer."""

    def __init__(
        self, config: TrainingConfig, task: Task, view: View | None = None, world: World | None = None
    ) -> None:
        self.config, self.task = config, task
        self.world = world or World()
        self.view = view if self.world.first else None
        self.out = Path(config.out)
        threads = prepare_process(config.threads)
        sharded = self.world.size > 1
        precision = "float32" if sharded else choose_precision(config.precision, config.hidden_size)
        self.state = TrainingState(
            steps=config.steps, precision=precision, fingerprint=task.fingerprint, threads=threads
        )
        self._build()

    def _build(self) -> None:
        config = self.config
        options = config.optimizer_options()
        if config.optimizer == "muon":
            # The run's own, which a checkpoint records: chosen anew, two runs of one seed could differ.
            options = {"dtype": self.state.precision, **options}
        if self.world.size > 1:
            distributed.check_shares(self.task.batches, self.world)
            distributed.shard(self.task.model, self.world, self.task.forward_methods)
        self.compute = ComputeCopy(self.task.model, DTYPES[self.state.precision])
        self.optimizer = build_optimizer(
            config.optimizer,
            self.task.model,
            learning_rate=config.learning_rate,
            weight_decay=config.weight_decay,
            **options,
        )
        self.schedule = build_schedule(
            config.schedule, warmup=config.warmup, decay=config.decay, final=config.final
        )

    def restore(self, checkpoint: Path) -> None:
        """Load a checkpoint.  Raises TrainingError for other data or another kind of arithmetic."""
        state = load_checkpoint(checkpoint, self.task.model, self.optimizer)  # whole or in shards
        if state.fingerprint != self.task.fingerprint:
            raise TrainingError(
                f"{checkpoint}: the data or the tokenizer has changed since this checkpoint: "
                "resuming would not be the same run; train into another folder, or bring the old data back"
            )
        threads = prepare_process(state.threads)  # sums are split by threads, so their number matters
        changed = state.precision != self.state.precision
        self.state = state
        self.state.threads = threads
        if changed:
            self.compute = ComputeCopy(self.task.model, DTYPES[state.precision])

    # One update

    def update(self) -> tuple[float, float]:
        """One step: (loss in nats a token, norm of the gradients).  Raises TrainingError for a NaN."""
        with flushed_denormals():
            return self._update()

    def _update(self) -> tuple[float, float]:
        state, config = self.state, self.config
        torch.manual_seed(config.seed * 1_000_003 + state.step)  # dropout
        self.compute.refresh()
        batches = self.task.batches(state.step, self.world.rank, self.world.size)
        # Divided by the targets of the whole step: how it is cut into micro-batches changes nothing.
        targets = self.world.total(sum(batch.target_count for batch in batches))
        loss = 0.0
        for batch in batches:
            part = self.task.loss(self.compute.module, batch, 1.0 / max(1.0, targets))
            part.backward()  # type: ignore[no-untyped-call]
            loss += float(part.detach())
        loss = self.world.total(loss)
        norm = self._clip(config.clip or math.inf)
        if not (math.isfinite(loss) and math.isfinite(norm)):
            self._stop_at_nan(loss, batches)
        rate = self.rate()
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group.get("rate_factor", 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        state.step += 1
        state.tokens += sum(batch.token_count for batch in batches)
        return loss, norm

    def _clip(self, limit: float) -> float:
        """The norm of all gradients together, from before it was limited."""
        if self.world.size > 1:
            return distributed.clip(self.task.model, limit)
        return float(clip_by_norm(self.task.model.parameters(), limit))

    def rate(self) -> float:
        """The learning rate of the coming step."""
        progress = (self.state.step + 1) / max(self.state.steps, 1)
        return self.config.learning_rate * self.schedule(progress)

    def _stop_at_nan(self, loss: float, batches: Sequence[Any]) -> None:
        step = self.state.step + 1
        layer = first_broken_layer(self.compute.module, self.task, batches)
        self.optimizer.zero_grad(set_to_none=True)
        self._save()  # the weights before this step: they are still good
        raise TrainingError(
            f"step {step}: the loss is {loss} and the first values that are not finite are in {layer}; "
            f"nothing was changed by this step, and a checkpoint of the one before is kept. Try a lower "
            f"learning rate (now {self.rate():.2g}), a longer warm-up, or precision float32"
        )

    # The run

    def run(self) -> TrainingResult:
        """All steps that are left, then the model folder."""
        with torch.random.fork_rng(devices=[]), flushed_denormals(), _signals_wait() as stopped:
            return self._run(stopped)

    def _run(self, stopped: Callable[[], bool]) -> TrainingResult:
        config, state = self.config, self.state
        self.out.mkdir(parents=True, exist_ok=True)
        clock = Clock(self)
        if self.view is not None:
            count = sum(parameter.numel() for parameter in self.task.model.parameters())
            self.view.begin(config, count, state.precision)
        if not state.steps:
            clock.plan_first()
        metrics = MetricsWriter(self.out, state.step) if self.world.first else None
        loss, validation = math.nan, None
        try:
            while state.step < state.steps and not self.world.any(stopped()):
                rate = self.rate()
                loss, norm = self.update()
                clock.tick()
                validation = self._measure(metrics, clock, loss, norm, rate)
                if self._checkpoint_is_due(clock) and state.step < state.steps:
                    self._save()
                    clock.saved()
            self._save()
            self._export()
        finally:
            if metrics is not None:
                metrics.close()
        interrupted = state.step < state.steps
        if validation is None and not interrupted:
            self.compute.refresh()
            validation = self.task.validate(self.compute.module)
        return TrainingResult(
            self.out, state.step, state.tokens, state.seconds, loss, validation, interrupted
        )

    def _measure(
        self, metrics: MetricsWriter | None, clock: Clock, loss: float, norm: float, rate: float
    ) -> Validation | None:
        """Metrics of a step; now and then the validation loss and a sample, of the weights after it."""
        state = self.state
        validation, sample = None, ""
        if self._validation_is_due(clock):
            self.compute.refresh()
            validation = self.task.validate(self.compute.module)
            sample = self.task.sample(self.compute.module, state.step)
            clock.pause_over()
        speed = clock.tokens_per_second
        values: dict[str, float | int | str] = {
            "loss": loss,
            "learning_rate": rate,
            "gradient_norm": norm,
            "tokens": state.tokens,
            "tokens_per_second": speed,
            "seconds": state.seconds,
        }
        if validation is not None:
            values |= {"validation_loss": validation.loss, "bits_per_byte": validation.bits_per_byte}
            values |= validation.scores
            state.best_loss = min(validation.loss, state.best_loss or math.inf)
        if sample:
            values["sample"] = sample
        if metrics is not None:
            metrics.write(state.step, **values)
        if self.view is not None:
            flops = speed * self.task.flops_per_token
            self.view.show(
                Progress(
                    state.step, state.steps, loss, rate, norm, state.tokens, speed, flops, state.seconds,
                    validation, sample,
                )
            )  # fmt: skip
        return validation

    def _validation_is_due(self, clock: Clock) -> bool:
        state = self.state
        if state.step == state.steps:
            return True
        if self.config.validate_steps:
            return state.step % self.config.validate_steps == 0
        return clock.tenth_passed() if clock.by_the_clock else state.step % max(1, state.steps // 10) == 0

    def _checkpoint_is_due(self, clock: Clock) -> bool:
        every = self.config.save_steps
        if every and self.state.step % every == 0:
            return True
        minutes = self.config.save_minutes
        return bool(minutes) and self.world.any(clock.since_save > 60 * minutes)

    def _save(self) -> None:
        save_checkpoint(
            self.out, self.state, self.task.model, self.optimizer, keep=self.config.keep, world=self.world
        )

    def _export(self) -> None:
        """The model folder, of the whole weights."""
        if self.world.size == 1:
            self.task.save(self.out)
            return
        parameters = distributed.whole_parameters(self.task.model)
        if self.world.first:
            self.task.save(self.out, parameters)


@contextmanager
def _signals_wait() -> Iterator[Callable[[], bool]]:
    """Ctrl-C and SIGTERM are remembered until the step is over; a second Ctrl-C breaks off at once."""
    seen: list[int] = []

    def remember(number: int, frame: FrameType | None) -> None:
        if seen and number == signal.SIGINT:
            raise KeyboardInterrupt
        seen.append(number)

    def stopped() -> bool:
        return bool(seen)

    if threading.current_thread() is not threading.main_thread():
        yield stopped
        return
    before = {number: signal.signal(number, remember) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def has_run(folder: Path) -> bool:
    """Whether a run was begun in a folder."""
    return (folder / FILE_NAME).is_file()
