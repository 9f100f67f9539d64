"""What the screen of a run says."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

from octavo.training import live_view  # noqa: E402
from octavo.training.loop import Progress  # noqa: E402


def progress(step: int, seconds: float) -> Progress:
    return Progress(step, 1000, 2.0, 0.01, 1.0, 64 * step, 64.0, 1e9, seconds)


def test_the_time_left_forgets_a_sleep(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(live_view, "_PIPE_SECONDS", -1.0)
    view = live_view.LiveView(peak=2e9)
    for step in range(1, 301):
        view.show(progress(step, 2.0 * step + (7200 if step > 150 else 0)))
    lines = capsys.readouterr().err.splitlines()
    assert "50% of peak" in lines[0] and lines[0].endswith("33:18 left")
    assert lines[149].endswith("28:20 left")
    assert int(lines[150].split()[-2].split(":")[0]) >= 16  # hours: the machine may sleep again
    assert lines[299].endswith("23:20 left")


def test_the_time_left_of_a_resumed_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(live_view, "_PIPE_SECONDS", -1.0)
    view = live_view.LiveView(peak=2e9)
    for step in range(501, 504):  # 500 steps took a second each, on another machine
        view.show(progress(step, 500 + 3.0 * (step - 500)))
    assert capsys.readouterr().err.splitlines()[-1].endswith("24:51 left")
