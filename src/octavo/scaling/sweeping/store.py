"""The store of a sweep: one SQLite file with runs, points, predictions and fits.

One process owns a store; the kernel's lock on a file beside it says so and ends with the process, whatever
killed it.  A run is claimed by one statement that counts its attempt; a result is taken only from the
attempt that is under way (the fencing token of Kleppmann 2016), so nothing that comes late can overwrite
anything.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import sqlite3
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from octavo.errors import FormatError, OctavoError
from octavo.scaling.sweeping.ladder import PlannedRun, RunConfig

_SCHEMA = """
CREATE TABLE IF NOT EXISTS sweep (name TEXT PRIMARY KEY, ladder_json TEXT NOT NULL,
  corpus_json TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS run (
  id TEXT PRIMARY KEY, sweep TEXT NOT NULL, role TEXT NOT NULL, budget REAL NOT NULL,
  status TEXT NOT NULL DEFAULT 'pending', lease_owner TEXT, lease_until REAL,
  attempt INTEGER NOT NULL DEFAULT 0,
  config_json TEXT NOT NULL, n_nonemb INTEGER, n_active INTEGER, n_total INTEGER, tokens INTEGER,
  unique_tokens INTEGER, flops_exact REAL, flops_6nd REAL, seed INTEGER, loss REAL, bpb REAL,
  wall_s REAL, host TEXT, finished_at REAL, error TEXT);
CREATE TABLE IF NOT EXISTS point (
  run_id TEXT NOT NULL REFERENCES run(id), step INTEGER, tokens INTEGER, flops REAL, lr REAL, train_loss REAL,
  PRIMARY KEY (run_id, step));
CREATE TABLE IF NOT EXISTS prediction (
  id TEXT PRIMARY KEY, made_at REAL NOT NULL, compute REAL NOT NULL, content_json TEXT NOT NULL,
  held_out_runs_finished INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS fit (id INTEGER PRIMARY KEY, made_at REAL, kind TEXT, content_json TEXT);
"""
DONE, PENDING, RUNNING, FAILED = "done", "pending", "running", "failed"


class StoreBusyError(OctavoError):
    """Another process owns the store."""


class Store:
    """path: the file.  owner: take the lock and write; without it only reading is right."""

    def __init__(self, path: Path, *, owner: bool = False) -> None:
        if not owner and not path.is_file():
            raise FormatError(f"{path}: there is no such store; octavo sweep run LADDER makes one")
        self.path = path
        self._lock: int | None = None
        if owner:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = _take_lock(path)
        try:
            self.connection = sqlite3.connect(path, timeout=30, isolation_level=None)
            self.connection.row_factory = sqlite3.Row
            if owner:
                self.connection.execute("PRAGMA journal_mode=WAL")
                self.connection.execute("PRAGMA synchronous=FULL")
                self.connection.executescript(_SCHEMA)
                # Nobody else can be at it: whoever was has died.
                self.connection.execute("UPDATE run SET status='pending' WHERE status='running'")
            self.connection.execute("SELECT 1 FROM run LIMIT 1")
        except sqlite3.DatabaseError as error:
            self.close()
            raise FormatError(f"{path}: not a store of a sweep: {error}") from error

    def close(self) -> None:
        """Ends ownership, too."""
        if hasattr(self, "connection"):
            self.connection.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *problem: object) -> None:
        self.close()

    # Runs

    def add(self, sweep: str, runs: Iterable[PlannedRun]) -> int:
        """Put runs in that are not there; how many were new."""
        before = self.connection.total_changes
        with self._transaction():
            for run in runs:
                count = run.config.count()
                self.connection.execute(
                    "INSERT OR IGNORE INTO run (id, sweep, role, budget, config_json, n_nonemb, n_active,"
                    " n_total, tokens, flops_exact, flops_6nd, seed) VALUES (?,?,?,?,?,?,?,?,?,?,?,?)",
                    (
                        run.config.id,
                        sweep,
                        run.role,
                        run.budget,
                        json.dumps(asdict(run.config)),
                        count.nonembedding,
                        count.active,
                        count.total,
                        run.config.tokens,
                        count.flops_per_token * run.config.tokens,
                        6.0 * count.active * run.config.tokens,
                        run.config.seed,
                    ),
                )
        return self.connection.total_changes - before

    def claim(self, owner: str, seconds: float) -> sqlite3.Row | None:
        """The pending run that is longest, now running and one attempt older; None if there is none."""
        rows = self.connection.execute(
            "UPDATE run SET status='running', lease_owner=?, lease_until=?, attempt=attempt+1, "
            "error=NULL WHERE"
            " id=(SELECT id FROM run WHERE status='pending' ORDER BY flops_exact DESC, id LIMIT 1) "
            "RETURNING *",
            (owner, time.time() + seconds),
        ).fetchall()
        return rows[0] if rows else None

    def renew(self, run: str, attempt: int, seconds: float) -> None:
        """For people to see; a worker that hangs is found by its owner's own count of time."""
        self.connection.execute(
            "UPDATE run SET lease_until=? WHERE id=? AND attempt=? AND status='running'",
            (time.time() + seconds, run, attempt),
        )

    def release(self, run: str, attempt: int, error: str | None, *, failed: bool = False) -> None:
        """Back to pending, or failed for good."""
        self.connection.execute(
            "UPDATE run SET status=?, lease_owner=NULL, lease_until=NULL, error=?"
            " WHERE id=? AND attempt=? AND status='running'",
            (FAILED if failed else PENDING, error, run, attempt),
        )

    def finish(self, run: str, attempt: int, result: Mapping[str, Any], host: str) -> bool:
        """Take a result of the attempt under way; False for any other."""
        with self._transaction():
            changed = self.connection.execute(
                "UPDATE run SET status='done', loss=?, bpb=?, wall_s=?, unique_tokens=?, host=?, "
                "finished_at=?,"
                " lease_owner=NULL, lease_until=NULL, error=NULL WHERE id=? AND attempt=? AND "
                "status='running'",
                (
                    result["loss"],
                    result["bits_per_byte"],
                    result["wall_s"],
                    result["unique_tokens"],
                    host,
                    time.time(),
                    run,
                    attempt,
                ),
            ).rowcount
            if changed:
                row = self.connection.execute("SELECT * FROM run WHERE id=?", (run,)).fetchone()
                each = row["flops_exact"] / row["tokens"]
                self.connection.executemany(
                    "INSERT OR REPLACE INTO point VALUES (?,?,?,?,?,?)",
                    [
                        (run, step, tokens, tokens * each, lr, loss)
                        for step, tokens, lr, loss in result["points"]
                    ],
                )
        return bool(changed)

    def runs(self, *, status: str | None = None, roles: tuple[str, ...] = ()) -> list[sqlite3.Row]:
        """Runs by budget and size."""
        rows = self.connection.execute("SELECT * FROM run ORDER BY budget, n_active, seed, id").fetchall()
        wanted = [row for row in rows if status is None or row["status"] == status]
        return [row for row in wanted if not roles or row["role"] in roles]

    def retry_failed(self) -> int:
        """Failed runs may be tried again."""
        return self.connection.execute("UPDATE run SET status='pending' WHERE status='failed'").rowcount

    def run_config(self, row: sqlite3.Row) -> RunConfig:
        return RunConfig(**json.loads(row["config_json"]))

    # Sweeps, predictions, fits

    def remember_sweep(self, name: str, ladder: Mapping[str, Any], corpus: Mapping[str, Any]) -> None:
        values = (name, json.dumps(ladder), json.dumps(corpus))
        self.connection.execute("INSERT OR REPLACE INTO sweep VALUES (?,?,?)", values)

    def sweep(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """(ladder, corpus) as they were remembered last.  Raises FormatError if nothing was."""
        row = self.connection.execute("SELECT * FROM sweep ORDER BY rowid DESC LIMIT 1").fetchone()
        if row is None:
            raise FormatError(f"{self.path}: no sweep was begun here")
        return json.loads(row["ladder_json"]), json.loads(row["corpus_json"])

    def register_prediction(self, compute: float, content: Mapping[str, Any]) -> str:
        """Keep a prediction with the results it rests on; its hash.  Refused once a held-out run is done."""
        finished = self.connection.execute(
            "SELECT count(*) FROM run WHERE role='held-out' AND status='done' AND budget>=?",
            (compute * 0.99,),
        ).fetchone()[0]
        if finished:
            raise FormatError(
                f"{self.path}: {finished} runs of this budget are done: too late to predict them"
            )
        basis = [[row["id"], row["loss"]] for row in self.runs(status=DONE)]
        text = json.dumps({**content, "compute": compute, "rests_on": basis}, sort_keys=True)
        name = hashlib.sha256(text.encode()).hexdigest()
        self.connection.execute(
            "INSERT OR IGNORE INTO prediction VALUES (?,?,?,?,0)", (name, time.time(), compute, text)
        )
        return name

    def predictions(self) -> list[dict[str, Any]]:
        """Each with `id` and `made_at`, oldest first."""
        rows = self.connection.execute("SELECT * FROM prediction ORDER BY made_at").fetchall()
        return [
            {**json.loads(row["content_json"]), "id": row["id"], "made_at": row["made_at"]} for row in rows
        ]

    def keep_fit(self, kind: str, content: Mapping[str, Any]) -> None:
        self.connection.execute(
            "INSERT INTO fit (made_at, kind, content_json) VALUES (?,?,?)",
            (time.time(), kind, json.dumps(content)),
        )

    def _transaction(self) -> _Transaction:
        return _Transaction(self.connection)


class _Transaction:
    """BEGIN IMMEDIATE: waits for the lock at the beginning, not in the middle."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __enter__(self) -> None:
        self._connection.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: object, *rest: object) -> None:
        if kind is None:
            try:
                self._connection.execute("COMMIT")
                return
            except sqlite3.Error:
                self._connection.execute("ROLLBACK")
                raise
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")


def _take_lock(path: Path) -> int:
    descriptor = os.open(f"{path}.owner", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        who = os.read(descriptor, 100).decode(errors="replace").strip()
        os.close(descriptor)
        raise StoreBusyError(
            f"{path}: another process owns this store ({who}); wait for it or stop it"
        ) from error
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"process {os.getpid()}\n".encode())
    return descriptor
