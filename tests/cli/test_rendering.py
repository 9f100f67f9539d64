"""Progress bars that appear only for work that lasts, and text that cannot command a terminal."""

from __future__ import annotations

import io
import sys
import time

import pytest

from octavo.cli.rendering import ProgressBar, closing_line, printable


class FakeTerminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def bar_output(
    monkeypatch: pytest.MonkeyPatch, error: io.StringIO, *, delay: float, quiet: bool = False
) -> str:
    monkeypatch.setattr(sys, "stderr", error)
    with ProgressBar("scoring", delay=delay, quiet=quiet) as progress:
        progress(1, 4)
        end = time.monotonic() + 20
        while (
            progress._timer is not None
            and progress._progress is None
            and time.monotonic() < end
            and not delay
        ):
            time.sleep(0.01)
        progress(3, 4)
    return error.getvalue()


def test_a_bar_appears_for_long_work_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    shown = bar_output(monkeypatch, FakeTerminal(), delay=0)
    assert "scoring" in shown and "3/4" in shown
    assert "\x1b[?25h" in shown  # the cursor is shown again


def test_no_bar_for_short_work_quiet_or_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    assert bar_output(monkeypatch, FakeTerminal(), delay=60) == ""
    assert bar_output(monkeypatch, FakeTerminal(), delay=0, quiet=True) == ""
    assert bar_output(monkeypatch, io.StringIO(), delay=0) == ""


def test_terminals_get_no_control_characters() -> None:
    assert printable("a\x1b[2Jb\tc\nd\x9b") == "a�[2Jb\tc\nd�"
    assert printable("für 東京 🎉") == "für 東京 🎉"


def test_the_closing_line() -> None:
    assert closing_line(87, 301.23, 0.642) == "87 tokens, 301.2 tokens/s, 64% of the memory-bandwidth limit"
    assert closing_line(1, 0.0, None) == "1 tokens, 0.0 tokens/s"
