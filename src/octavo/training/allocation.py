"""Settings of the process that training wants: threads, and memory that is kept between steps."""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from octavo import _native
from octavo.layers.native_training import openmp_team
from octavo.machine import default_threads

# mallopt's names in glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4


def prepare_process(threads: int) -> int:
    """Sets PyTorch's threads (0: what this process may really use) and the allocator; returns the threads.

    glibc maps every large tensor anew and gives it back when it is freed, so each step would pay for the same
    pages again: a tenth of the time of a small model's step.  Freed memory stays with the process instead.
    What is alive now is left out of garbage collections, each of which would look at all of PyTorch.
    """
    gc.collect()
    gc.freeze()
    count = threads or default_threads()
    torch.set_num_threads(count)
    if sys.platform == "linux":
        try:
            library = ctypes.CDLL(None)
            library.mallopt(_MMAP_MAX, 0)
            library.mallopt(_TRIM_THRESHOLD, -1)  # never
        except (OSError, AttributeError):  # another C library
            pass
    return count


@contextmanager
def flushed_denormals() -> Iterator[None]:
    """Numbers below 2^-126 count as zero meanwhile: they cost a hundred times as much and mean nothing here.

    On all threads that PyTorch computes with: its own switch turns this thread's alone, and what other
    threads do would depend on when they were begun.  Only meanwhile: whatever else the process computes keeps
    every bit.
    """
    before = _native.flush_denormals(*openmp_team(), True)
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)
        _native.flush_denormals(*openmp_team(), before)
