"""The memory of mapped model files, given back where it is no longer needed."""

from __future__ import annotations

import mmap
from collections.abc import Iterable, Sequence

import numpy as np


def mapped_files(arrays: Iterable[object]) -> list[mmap.mmap]:
    """The files that arrays lie in; those in memory of their own have none."""
    files: dict[int, mmap.mmap] = {}
    for base in arrays:
        while isinstance(base, np.ndarray | memoryview):
            base = base.base if isinstance(base, np.ndarray) else base.obj
        if isinstance(base, mmap.mmap):
            files[id(base)] = base
    return list(files.values())


def forget_pages(files: Sequence[mmap.mmap]) -> None:
    """Give back the memory that reading mapped files took.

    What is read once more (the few embedding rows of a step) comes from the system's page cache again.
    """
    for file in files:
        if hasattr(mmap, "MADV_DONTNEED"):
            file.madvise(mmap.MADV_DONTNEED)
