"""The runs of a sweep as tasks of a Ray cluster: the same worker, elsewhere; the store stays here.

SQLite's log does not work over network file systems, so tasks give their results back instead of writing
them. A task that dies with its machine is begun again by Ray; the store takes the first result of an
attempt only.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from octavo.errors import UnsupportedError
from octavo.scaling.sweeping.ladder import RESULT
from octavo.scaling.sweeping.runner import LEASE_SECONDS, corpus_folder, worker_environment
from octavo.scaling.sweeping.store import DONE, FAILED, PENDING, Store

_RETRIES = 3


def run_all_on_ray(store: Store, address: str, *, tell: Callable[[dict[str, Any]], None]) -> dict[str, int]:
    """Run all that is pending on the cluster at `address` ("local": one on this machine); counts by status.

    Raises UnsupportedError where Ray is not installed.
    """
    try:
        import ray
    except ImportError as error:
        raise UnsupportedError("--ray needs Ray: pip install 'octavo[ray]'") from error
    ray.init(address=None if address == "local" else address, include_dashboard=False, log_to_driver=False)
    try:
        corpus = ray.put(_files(corpus_folder(store)))
        task = ray.remote(num_cpus=1, max_retries=_RETRIES)(run_files)
        waiting = {}
        while (row := store.claim(f"ray:{socket.gethostname()}", LEASE_SECONDS)) is not None:
            waiting[task.remote(asdict(store.run_config(row)), corpus)] = (row["id"], row["attempt"])
        while waiting:
            (ready, *_), _ = ray.wait(list(waiting))
            run, attempt = waiting.pop(ready)
            try:
                result, host = ray.get(ready)
            except ray.exceptions.RayError as error:
                store.release(run, attempt, str(error)[:500])
                tell({"event": "ended", "run": run, "error": str(error)[:200]})
                continue
            if store.finish(run, attempt, result, host):
                tell({"event": "done", "run": run, "loss": result["loss"]})
    finally:
        ray.shutdown()
    rows = store.runs()
    return {status: sum(row["status"] == status for row in rows) for status in (DONE, PENDING, FAILED)}


def run_files(config: dict[str, Any], corpus: dict[str, bytes]) -> tuple[dict[str, Any], str]:
    """The task: a worker in a folder of its own; (result, host)."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "corpus").mkdir()
        (folder / "run").mkdir()
        for file, content in corpus.items():
            (folder / "corpus" / file).write_bytes(content)
        (folder / "run" / "run.json").write_text(json.dumps(config), encoding="utf-8")
        order = json.dumps({"folder": str(folder / "run"), "corpus": str(folder / "corpus")})
        with subprocess.Popen(
            [sys.executable, "-m", "octavo.scaling.sweeping.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=worker_environment(),
            text=True,
        ) as process:
            assert process.stdin is not None and process.stdout is not None
            process.stdin.write(order + "\n")
            process.stdin.flush()
            said = ""
            while '"done"' not in said and '"failed"' not in said and (line := process.stdout.readline()):
                said = line
            process.stdin.close()
            process.wait()
        if not (folder / "run" / RESULT).exists():
            raise RuntimeError(f"the worker ended with {process.returncode}: {said[-500:]}")
        return json.loads((folder / "run" / RESULT).read_text(encoding="utf-8")), socket.gethostname()


def _files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix in (".bin", ".json")}
