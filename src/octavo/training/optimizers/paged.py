"""A paged optimizer: its state lies in a file that is mapped into memory (Dettmers et al. 2023, section 3).

The kernel keeps as much of it in memory as there is room for and writes the rest out; a page that an update
needs is read back.  So Adam's two numbers a parameter bound what fits on the disk, not what fits in memory.
"""

from __future__ import annotations

import mmap
import os
import tempfile
import weakref
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


class StateFile:
    """Tensors in a file without a name: it is gone when the process ends, however it ends."""

    def __init__(self, folder: Path) -> None:
        self._descriptor, name = tempfile.mkstemp(dir=folder)
        os.unlink(name)
        weakref.finalize(self, os.close, self._descriptor)
        self._end = 0

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self._end

    def place(self, tensor: Tensor) -> Tensor:
        """The same numbers in the file.  Raises OSError where the disk is full."""
        content = tensor.contiguous().view(-1).view(torch.uint8).numpy()
        begin, self._end = self._end, self._end + -(-len(content) // mmap.PAGESIZE) * mmap.PAGESIZE
        # Written, not only mapped: a full disk is an error here, and later it would end the process.
        with open(os.dup(self._descriptor), "wb") as file:
            file.seek(begin)
            file.write(content.data)
        mapped = mmap.mmap(self._descriptor, len(content), offset=begin)
        return torch.frombuffer(mapped, dtype=tensor.dtype).view(tensor.shape)


class PagedState(dict[str, Any]):
    """The state of one parameter, whose tensors move into the file when they are set."""

    def __init__(self, file: StateFile, values: dict[str, Any] | None = None) -> None:
        super().__init__()
        self._file = file
        for name, value in (values or {}).items():
            self[name] = value

    def __setitem__(self, name: str, value: Any) -> None:
        is_large = isinstance(value, Tensor) and value.dim() > 0 and value.numel() > 0
        super().__setitem__(name, self._file.place(value) if is_large else value)


def page_state(optimizer: torch.optim.Optimizer, folder: Path) -> StateFile:
    """Keep the state of an optimizer, what it has and what will come, in a file in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    file = StateFile(folder)
    paged: defaultdict[Tensor, Any] = defaultdict(lambda: PagedState(file))
    for parameter, values in optimizer.state.items():
        paged[parameter] = PagedState(file, values)
    optimizer.state = paged
    return file
