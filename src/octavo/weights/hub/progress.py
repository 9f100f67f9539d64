"""How far a download is, told by the size of what has arrived."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

# (bytes done, bytes in all, or None while unknown); called from a thread of its own.
ProgressCallback = Callable[[int, int | None], None]

_INTERVAL_SECONDS = 0.2


class FolderProgress:
    """Tells `callback` how many bytes lie under `folder`, several times a second; a context manager.

    The downloaders that octavo uses report their progress each in a way of its own, or not at all; the disk
    tells it of any.
    """

    def __init__(self, folder: Path, callback: ProgressCallback | None, total: int | None) -> None:
        self._folder = folder
        self._callback = callback
        self._total = total
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="octavo-progress", daemon=True)

    def __enter__(self) -> FolderProgress:
        if self._callback is not None:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._callback is not None:
            self._ended.set()
            self._thread.join()

    def _watch(self) -> None:
        assert self._callback is not None
        done = 0
        while not self._ended.wait(_INTERVAL_SECONDS):
            # A part exists twice for a moment, while it is taken out of its wheel: never go backwards.
            done = max(done, folder_size(self._folder))
            self._callback(done if self._total is None else min(done, self._total), self._total)


def folder_size(folder: Path) -> int:
    """Bytes of all files under a folder; what vanishes meanwhile counts as nothing."""
    total = 0
    for parent, _, files in os.walk(folder):  # which passes over folders that are gone
        for name in files:
            with suppress(OSError):
                total += os.stat(os.path.join(parent, name)).st_size
    return total
