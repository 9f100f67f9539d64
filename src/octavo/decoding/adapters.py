"""Adapters of a loaded model: names to the runner's numbers, brought in and let go while it runs."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from octavo.decoding.plan import NativeRunner
from octavo.errors import ModelNotFoundError, UnsupportedError
from octavo.model_config import ModelConfig
from octavo.weights.adapter import Adapter, LowRankPair, half_rope_rows, read_adapter


class AdapterTable:
    """Which adapters a runner has.  Safe from several threads."""

    def __init__(self, runner: NativeRunner, config: ModelConfig) -> None:
        self._runner, self._config = runner, config
        self._numbers: dict[str, int] = {}
        self._free: list[int] = []
        self._lock = threading.Lock()

    @property
    def names(self) -> list[str]:
        return sorted(self._numbers)

    def number(self, name: str | None) -> int:
        """The runner's number; -1 for None.  Raises ModelNotFoundError that lists what is there."""
        if name is None:
            return -1
        if name not in self._numbers:
            there = ", ".join(self.names) or "none"
            raise ModelNotFoundError(f"adapter {name!r} is not loaded; there are: {there}")
        return self._numbers[name]

    def add(self, name: str, folder: Path) -> None:
        """Read an adapter and make it ready.  Raises as `read_adapter`, ValueError for a known name."""
        adapter = read_adapter(folder, self._config)
        _check(adapter)
        with self._lock:
            if name in self._numbers:
                raise ValueError(f"adapter {name!r} is loaded already")
            number = self._free.pop() if self._free else len(self._numbers)
            try:
                self._runner.set_adapter(
                    number, {layer: self._halves(layer, pair) for layer, pair in adapter.pairs.items()}
                )
            except Exception:
                self._free.append(number)
                raise
            self._numbers[name] = number

    def _halves(self, layer: str, pair: LowRankPair) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """down and up, the scale in it, in the order of the base's file."""
        order = half_rope_rows(self._config, f"{layer}.weight")
        up = pair.up * np.float32(pair.scale)
        if order is not None:
            up[order] = up.copy()
        return pair.down, up

    def remove(self, name: str) -> None:
        """Let an adapter go.  No generation may use it any more."""
        number = self.number(name)
        with self._lock:
            self._runner.remove_adapter(number)
            self._free.append(self._numbers.pop(name))

    def add_all(self, folders: Mapping[str, str | Path]) -> None:
        for name, folder in folders.items():
            self.add(name, Path(folder).expanduser())


def _check(adapter: Adapter) -> None:
    """What cannot be added to a product of the shared weights has to be merged."""
    remedy = f"octavo merge MODEL {adapter.path} --out FOLDER makes a model of it"
    if adapter.saved:
        raise UnsupportedError(f"{adapter.path}: {min(adapter.saved)} was trained whole: {remedy}")
    if adapter.config.decomposed:
        raise UnsupportedError(f"{adapter.path}: DoRA scales the base's own rows: {remedy}")
