"""A verb on a model that counts for ever, a number every few milliseconds: a program to interrupt.

python slow_program.py VERB WORDS...; makes the file that SLOW_PROGRAM_MARK names after 20 tokens.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
conftest = import_module("conftest")

from octavo import api, roofline  # noqa: E402


class SlowRunner(conftest.HistoryRunner):  # type: ignore[name-defined,misc]
    """A token takes 5 ms."""

    tokens = 0

    def logits_after(self, history: Sequence[int]) -> Any:
        time.sleep(0.005)
        self.tokens += 1
        if self.tokens == 20 and "SLOW_PROGRAM_MARK" in os.environ:
            Path(os.environ["SLOW_PROGRAM_MARK"]).touch()
        return super().logits_after(history)


def load(model: str, **options: Any) -> api.Model:
    runner = SlowRunner(512, conftest.says("0123456789 ", end=False))
    built: api.Model = conftest.build_model(
        runner=runner, context=16000, config={"context_length": 16000}, template="{{ messages[-1].content }}|"
    )
    return built


if __name__ == "__main__":
    api.load = load  # type: ignore[assignment]
    roofline.memory_bandwidth = lambda threads, seen=0.0: 10.0
    import_module(f"octavo.cli.{sys.argv[1]}").command.main(sys.argv[2:])
