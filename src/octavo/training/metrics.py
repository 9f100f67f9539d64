"""What a run leaves behind as it goes: metrics.jsonl, one object a line, and TensorBoard's event files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FILE_NAME = "metrics.jsonl"


class MetricsWriter:
    """Appends to metrics.jsonl and, where tensorboard is installed, to event files in out/tensorboard.

    On resume, lines after `step` are dropped: those steps are taken again.
    """

    def __init__(self, out: Path, step: int) -> None:
        self.path = out / FILE_NAME
        kept = [line for line in read_metrics(out) if line["step"] <= step] if step else []
        self.path.write_text("".join(f"{json.dumps(line)}\n" for line in kept), encoding="utf-8")
        self._file = self.path.open("a", encoding="utf-8")
        self._board = _tensorboard(out / "tensorboard", step)

    def write(self, step: int, **values: float | int | str) -> None:
        """One line; numbers go to TensorBoard too, texts only to the file."""
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        self._file.flush()
        if self._board is not None:
            for name, value in values.items():
                if isinstance(value, str):
                    self._board.add_text(name, value, step)
                else:
                    self._board.add_scalar(name, value, step)

    def close(self) -> None:
        self._file.close()
        if self._board is not None:
            self._board.close()


def read_metrics(out: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics.jsonl; a last line that a crash cut short is left out."""
    path = out / FILE_NAME
    found = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return [line for line in found if isinstance(line, dict) and "step" in line]


def _tensorboard(folder: Path, step: int) -> Any:
    try:
        import warnings

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # tensorboard's own, about its dependencies
            from torch.utils.tensorboard.writer import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=step + 1 if step else None)
