"""Runs one after another in a process of its own: python -m octavo.scaling.sweeping.worker

A line of JSON on standard input, {"folder", "corpus"}, is a run: folder/run.json is its configuration.  The
worker tells its owner how it goes in lines of JSON on standard output, and leaves folder/result.json,
synced, before it says "done": an owner that dies in between finds the result.  It holds a lock on the
folder, so that the worker of a new owner waits until this one is gone, and stops when its standard input
closes: then the owner is dead.
"""

from __future__ import annotations

import fcntl
import json
import os
import queue
import signal
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from octavo.errors import FormatError, OctavoError
from octavo.scaling.sweeping.corpus import open_corpus
from octavo.scaling.sweeping.ladder import RESULT, RunConfig

if TYPE_CHECKING:
    from collections.abc import Iterator

    from octavo.training.config import TrainingConfig
    from octavo.training.loop import Progress

# How long a worker waits for the one before to leave the folder, and for its own step to end.
_LOCK_SECONDS, _END_SECONDS = 120, 30
INTERRUPTED = 75  # EX_TEMPFAIL of sysexits.h: try again


def run(folder: Path, corpus_folder: Path, out: IO[str]) -> dict[str, Any]:
    """Train (or go on), measure on all that is held out, write result.json; what is in it."""
    from octavo.training.causal import LanguageModelling
    from octavo.training.checkpoints import list_checkpoints, write_synced
    from octavo.training.loop import Trainer

    config = RunConfig(**json.loads((folder / "run.json").read_text(encoding="utf-8")))
    corpus = open_corpus(corpus_folder)
    if corpus.fingerprint != config.corpus:
        raise FormatError(
            f"{corpus_folder}: the corpus is {corpus.fingerprint}, the run wants {config.corpus}"
        )
    training = config.training(str(folder), config.validation_tokens / len(corpus))
    task = LanguageModelling.of_corpus(training, corpus, config.vocabulary)
    trainer = Trainer(training, task, _Teller(out))
    for checkpoint in reversed(list_checkpoints(folder)):
        try:
            trainer.restore(checkpoint)
            break
        except FormatError:  # damaged: the one before is as good
            trainer = Trainer(training, task, _Teller(out))
    result = trainer.run()
    if result.interrupted:
        sys.exit(INTERRUPTED)
    trainer.compute.refresh()
    found = task.validate(trainer.compute.module, whole=True)
    assert found is not None
    content = {
        "loss": found.loss,
        "bits_per_byte": found.bits_per_byte,
        "wall_s": result.seconds,
        "tokens": result.tokens,
        "unique_tokens": len(task.rows.corpus),
        "points": _points(folder, training),
    }
    temporary = folder / f".{RESULT}"
    write_synced(temporary, json.dumps(content).encode())
    os.replace(temporary, folder / RESULT)
    return content


def _points(folder: Path, training: TrainingConfig) -> list[tuple[int, int, float, float]]:
    """(step, tokens, learning rate, mean training loss since the point before), about twenty."""
    from octavo.training.metrics import read_metrics

    lines = read_metrics(folder)
    every = max(1, training.steps // 20)
    points = []
    for last in range(every, len(lines) + 1, every):
        part = lines[last - every : last]
        mean = sum(line["loss"] for line in part) / len(part)
        points.append((int(part[-1]["step"]), int(part[-1]["tokens"]), part[-1]["learning_rate"], mean))
    return points


class _Teller:
    """The view of a run that writes a line a second."""

    def __init__(self, out: IO[str]) -> None:
        self._out, self._last = out, -1.0

    def begin(self, config: TrainingConfig, parameters: int, precision: str) -> None:
        tell(self._out, event="began", parameters=parameters)

    def show(self, progress: Progress) -> None:
        now = time.monotonic()
        if now - self._last > 1.0:
            self._last = now
            tell(self._out, event="beat", step=progress.step, steps=progress.steps, loss=progress.loss)


def tell(out: IO[str], **content: object) -> None:
    """A line for the owner; if nobody reads any more, the end of standard input says so soon."""
    try:
        out.write(json.dumps(content) + "\n")
        out.flush()
    except (BrokenPipeError, ValueError):
        pass


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    with (folder / "lock").open("w") as lock:
        for _ in range(_LOCK_SECONDS * 10):
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                time.sleep(0.1)
        else:
            sys.exit(INTERRUPTED)
        yield


class _Orders:
    """Lines of standard input; when it ends, the run at hand is saved and the process ends."""

    def __init__(self) -> None:
        self.waiting: queue.Queue[dict[str, str] | None] = queue.Queue()
        self.busy = threading.Lock()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in sys.stdin:
            self.waiting.put(json.loads(line))
        self.waiting.put(None)
        if self.busy.locked():
            os.kill(os.getpid(), signal.SIGTERM)  # the trainer saves and ends
            time.sleep(_END_SECONDS)
            os._exit(INTERRUPTED)


def main() -> None:
    """Run what is ordered; 0 when nothing more comes, 75 when a run was broken off and can go on later."""
    out = os.fdopen(os.dup(1), "w")  # nothing else may write between the lines
    os.dup2(2, 1)
    orders = _Orders()
    while (order := orders.waiting.get()) is not None:
        folder = Path(order["folder"])
        with orders.busy, _alone_in(folder):
            try:
                content = run(folder, Path(order["corpus"]), out)
            except (OctavoError, OSError) as error:
                tell(out, event="failed", error=str(error))
            else:
                tell(out, event="done", **content)


if __name__ == "__main__":
    main()
