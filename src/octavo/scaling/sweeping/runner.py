"""The owner of a sweep: gives runs to workers, longest first, and takes their results into the store.

A worker is a process of one thread: two of them use two cores better than one run with two threads (small
products do not divide).  No decision rests on the clock of the day: a worker is over when its process is,
and one that hangs is found by counting the owner's own turns, which stand still when the machine does.
"""

from __future__ import annotations

import json
import os
import queue
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from octavo.scaling.sweeping.corpus import CorpusFacts, prepare_corpus
from octavo.scaling.sweeping.ladder import (
    RESULT,
    Ladder,
    PlannedRun,
    ladder_of,
    plan_runs,
    write_config,
)
from octavo.scaling.sweeping.store import DONE, FAILED, PENDING, Store

LEASE_SECONDS = 300.0
_TURN_SECONDS = 0.1
_MOST_ATTEMPTS = 5
_END_SECONDS = 60.0

Tell = Callable[[dict[str, Any]], None]


@dataclass
class Worker:
    """A process that takes runs.  run: what it is at, None when idle.  silent: turns without a word."""

    process: subprocess.Popen[str]
    lines: queue.Queue[str] = field(default_factory=queue.Queue)
    run: str | None = None
    attempt: int = 0
    silent: int = 0
    error: str = ""


def begin(ladder: Ladder, store: Store) -> CorpusFacts:
    """Prepare the corpus, put every run of the ladder into the store."""
    facts = prepare_corpus(ladder, corpus_folder(store))
    store.remember_sweep(ladder.name, asdict(ladder), asdict(facts))
    store.add(ladder.name, plan_runs(ladder, facts.fingerprint))
    return facts


def add_held_out(store: Store, runs: list[PlannedRun]) -> int:
    """Runs of a budget that the ladder does not have."""
    ladder, _ = store.sweep()
    return store.add(ladder_of(ladder, str(store.path)).name, runs)


def corpus_folder(store: Store) -> Path:
    return store.path.parent / "corpus"


def run_folder(store: Store, run: str) -> Path:
    return store.path.parent / "runs" / run[:16]


def run_all(
    store: Store, *, workers: int = 2, tell: Tell | None = None, keep: bool = False
) -> dict[str, int]:
    """Run all that is pending; how many are done, pending and failed then.

    tell: is given {"event", "run", ...} as things happen.  keep: leave checkpoints of runs that are done.
    """
    return Runner(store, workers, tell, keep).run()


class Runner:
    """The loop of the owner; one `turn` hears workers and gives them what is pending."""

    def __init__(self, store: Store, workers: int, tell: Tell | None, keep: bool) -> None:
        self.store, self.count, self.keep = store, max(1, workers), keep
        self.tell: Tell = tell or (lambda event: None)
        self.workers: list[Worker] = []
        self.name = f"{socket.gethostname()}:{os.getpid()}"
        self.failures = 0

    def run(self) -> dict[str, int]:
        try:
            while self.turn():
                time.sleep(_TURN_SECONDS)
        finally:
            self.stop()
        rows = self.store.runs()
        return {status: sum(row["status"] == status for row in rows) for status in (DONE, PENDING, FAILED)}

    def turn(self) -> bool:
        """Whether anything is left to do."""
        try:
            for worker in list(self.workers):
                self._hear(worker)
                if worker.process.poll() is not None and worker.lines.empty():
                    self.workers.remove(worker)
                    _close_input(worker)
                    self._ended(worker, f"the worker ended with {worker.process.returncode}")
            while self._may_start():
                row = self.store.claim(self.name, LEASE_SECONDS)
                if row is None:
                    break
                self._start(row)
        except (sqlite3.OperationalError, OSError) as error:
            # A full disk.  What workers left in their folders is taken later, by this owner or the next.
            self.failures += 1
            self.tell({"event": "store", "error": str(error)})
            time.sleep(1.0)
            return self.failures < self._patience
        return any(worker.run is not None for worker in self.workers)

    @property
    def _patience(self) -> int:
        return _MOST_ATTEMPTS * self.count

    def _may_start(self) -> bool:
        busy = sum(worker.run is not None for worker in self.workers)
        return busy < self.count and self.failures < self._patience

    def stop(self) -> None:
        """Workers save and end; their runs are pending again."""
        for worker in self.workers:
            _close_input(worker)
        for worker in self.workers:
            try:
                worker.process.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:
                worker.process.kill()
                worker.process.wait()
            try:
                if worker.run is not None and not self._take(worker):
                    self.store.release(worker.run, worker.attempt, worker.error or "stopped")
            except (sqlite3.Error, OSError):
                pass  # the next owner does it
        self.workers.clear()

    def _start(self, row: sqlite3.Row) -> None:
        folder = run_folder(self.store, row["id"])
        if (folder / RESULT).exists():  # the owner before died between the worker's last word and the store
            self._finish(row["id"], row["attempt"])
            return
        try:
            write_config(folder, self.store.run_config(row))
            worker = next((each for each in self.workers if each.run is None), None) or self._new_worker()
            order = json.dumps({"folder": str(folder), "corpus": str(corpus_folder(self.store))})
            assert worker.process.stdin is not None
            worker.process.stdin.write(order + "\n")
            worker.process.stdin.flush()
        except OSError as error:
            self.store.release(row["id"], row["attempt"], str(error))
            raise
        worker.run, worker.attempt, worker.silent, worker.error = row["id"], row["attempt"], 0, ""
        self.tell({"event": "started", "run": row["id"], "attempt": row["attempt"]})

    def _new_worker(self) -> Worker:
        process = subprocess.Popen(
            [sys.executable, "-m", "octavo.scaling.sweeping.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=worker_environment(),
            start_new_session=True,  # Ctrl-C is for the owner, which closes its workers' input
        )
        worker = Worker(process)
        threading.Thread(target=_read, args=(process, worker.lines), daemon=True).start()
        self.workers.append(worker)
        return worker

    def _hear(self, worker: Worker) -> None:
        worker.silent += worker.run is not None
        while not worker.lines.empty():
            worker.silent = 0
            event = json.loads(worker.lines.get())
            if worker.run is None:
                continue
            if event["event"] == "beat":
                self.store.renew(worker.run, worker.attempt, LEASE_SECONDS)
                self.tell({**event, "run": worker.run})
            elif event["event"] in ("done", "failed"):
                self._ended(worker, event.get("error", "the result is not there"))
        if worker.silent * _TURN_SECONDS > LEASE_SECONDS:
            worker.error = f"not heard of for {LEASE_SECONDS:.0f} s"
            worker.process.kill()

    def _ended(self, worker: Worker, error: str) -> None:
        """A run is over, well or not."""
        if worker.run is None:
            return
        run, error = worker.run, worker.error or error
        if self._take(worker):
            self.failures = 0
        else:
            hopeless = worker.attempt >= _MOST_ATTEMPTS
            self.store.release(run, worker.attempt, error, failed=hopeless)
            self.failures += 1
            self.tell({"event": "failed" if hopeless else "ended", "run": run, "error": error})
        worker.run = None

    def _take(self, worker: Worker) -> bool:
        run = worker.run
        return (
            run is not None
            and (run_folder(self.store, run) / RESULT).exists()
            and self._finish(run, worker.attempt)
        )

    def _finish(self, run: str, attempt: int) -> bool:
        folder = run_folder(self.store, run)
        result = json.loads((folder / RESULT).read_text(encoding="utf-8"))
        taken = self.store.finish(run, attempt, result, socket.gethostname())
        if taken:
            self.tell({"event": "done", "run": run, "loss": result["loss"]})
            if not self.keep:
                shutil.rmtree(folder / "checkpoints", ignore_errors=True)
        return taken


def _close_input(worker: Worker) -> None:
    """Tells the worker to end; what it did not read any more is of no use."""
    assert worker.process.stdin is not None
    try:
        worker.process.stdin.close()
    except BrokenPipeError:
        pass


def worker_environment() -> dict[str, str]:
    """One thread, and the packages of this process."""
    path = os.pathsep.join(part for part in sys.path if part)
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}


def _read(process: subprocess.Popen[str], lines: queue.Queue[str]) -> None:
    assert process.stdout is not None
    with process.stdout:
        for line in process.stdout:
            if line.startswith("{") and line.endswith("}\n"):  # a killed worker may leave half a line
                lines.put(line)
