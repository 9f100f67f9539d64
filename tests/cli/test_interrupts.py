"""Ctrl-C, typed on a real terminal: it stops the answer, and the terminal and the screen stay whole."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

PROGRAM = [sys.executable, str(Path(__file__).with_name("slow_program.py"))]
DEADLINE = 60.0  # seconds, for a machine that is busy with other things


class Terminal:
    """A program on a pseudo-terminal of its own."""

    def __init__(self, *words: str) -> None:
        self.process, self.descriptor = pty.fork()
        if self.process == 0:
            os.execv(PROGRAM[0], [*PROGRAM, *words])
        self.settings = termios.tcgetattr(self.descriptor)
        self.screen = ""

    def type(self, text: str) -> None:
        os.write(self.descriptor, text.encode())

    def wait_for(self, text: str) -> str:
        """Read until `text` appears; take everything up to it off the screen and return it."""
        end = time.monotonic() + DEADLINE
        while text not in self.screen:
            if time.monotonic() > end or not self._read():
                raise AssertionError(f"{text!r} did not appear; there is {self.screen!r}")
        before, _, self.screen = self.screen.partition(text)
        return before

    def interrupt_prompt(self) -> None:
        """Ctrl-C until a new prompt appears: Python's readline misses a signal between two reads."""
        for _ in range(int(DEADLINE)):
            self.type("\x03")
            end = time.monotonic() + 1
            while "> " not in self.screen and (left := end - time.monotonic()) > 0:
                if select.select([self.descriptor], [], [], left)[0]:
                    self._read()
            if "> " in self.screen:
                break
        self.wait_for("> ")

    def _read(self) -> bool:
        if not select.select([self.descriptor], [], [], DEADLINE)[0]:
            return False
        with contextlib.suppress(OSError):  # EIO: the program has left
            data = os.read(self.descriptor, 4096)
            self.screen += data.decode(errors="replace")
            return bool(data)
        return False

    def exit_code(self) -> int:
        while self._read():
            pass
        return os.waitstatus_to_exitcode(os.waitpid(self.process, 0)[1])


@pytest.fixture
def terminals(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Terminal]]:
    monkeypatch.setenv("TERM", "xterm")
    opened: list[Terminal] = []

    class Tracked(Terminal):
        def __init__(self, *words: str) -> None:
            super().__init__(*words)
            opened.append(self)

    yield Tracked
    for terminal in opened:
        with contextlib.suppress(OSError, ChildProcessError):
            if os.waitpid(terminal.process, os.WNOHANG)[0] == 0:
                os.kill(terminal.process, signal.SIGKILL)
                os.waitpid(terminal.process, 0)
        os.close(terminal.descriptor)


def test_run_keeps_what_is_there_and_exits_with_130(terminals: type[Terminal]) -> None:
    terminal = terminals("run", "m", "hello", "--temperature", "0", "--max-tokens", "15000")
    terminal.wait_for("0123456789")
    terminal.type("\x03")
    terminal.wait_for("tokens/s")
    assert termios.tcgetattr(terminal.descriptor) == terminal.settings
    assert terminal.exit_code() == 130
    assert "Traceback" not in terminal.screen


def test_an_interrupted_run_still_prints_its_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mark = tmp_path / "mark"
    monkeypatch.setenv("SLOW_PROGRAM_MARK", str(mark))
    words = ["run", "m", "hello", "--temperature", "0", "--max-tokens", "15000", "--json"]
    process = subprocess.Popen(
        [*PROGRAM, *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    end = time.monotonic() + DEADLINE
    while not mark.exists() and time.monotonic() < end:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=DEADLINE)
    assert process.returncode == 130 and "Traceback" not in errors
    answer = json.loads(output)
    assert answer["finish_reason"] == "cancelled"
    assert ("0123456789 " * 1500).startswith(answer["text"]) and len(answer["text"]) > 10


def test_chat_stops_the_answer_and_not_the_program(terminals: type[Terminal]) -> None:
    terminal = terminals("chat", "m", "--temperature", "0")
    terminal.wait_for("> ")
    terminal.type("hello\n")
    terminal.wait_for("0123456789")
    terminal.type("\x03")
    terminal.wait_for("(stopped)")
    terminal.wait_for("> ")
    terminal.type("half a line")
    terminal.wait_for("half a line")
    terminal.interrupt_prompt()
    terminal.type("again\n")
    terminal.wait_for("0123456789")
    terminal.type("\x03")
    terminal.wait_for("(stopped)")
    terminal.wait_for("> ")
    terminal.type("\x04")
    assert terminal.exit_code() == 0
    assert "Traceback" not in terminal.screen


def test_chat_remembers_lines_for_the_next_time(terminals: type[Terminal], cache_folder: Path) -> None:
    terminal = terminals("chat", "m", "--temperature", "0", "--max-tokens", "3")
    terminal.wait_for("> ")
    terminal.type("a line to remember\n")
    terminal.wait_for("was cut")
    terminal.wait_for("> ")
    terminal.type("/exit\n")
    assert terminal.exit_code() == 0
    assert "a line to remember" in (cache_folder / "chat_history").read_text()
    terminal = terminals("chat", "m", "--temperature", "0", "--max-tokens", "3")
    terminal.wait_for("> ")
    terminal.type("\x10\x10")  # Ctrl-P twice: the line before the last
    terminal.wait_for("a line to remember")
    terminal.type("\x15\x04")
    assert terminal.exit_code() == 0


def test_a_pipe_that_nobody_writes_to_does_not_hang_a_prompt() -> None:
    words = ["run", "m", "hello", "--temperature", "0", "--max-tokens", "5"]
    process = subprocess.Popen(
        [*PROGRAM, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stderr is not None and process.stdin is not None
    assert process.wait(timeout=DEADLINE) == 0
    assert process.stdout.read() == "01234\n"
    assert "nothing on standard input" in process.stderr.read()
    for stream in (process.stdin, process.stdout, process.stderr):
        stream.close()


def test_a_reader_that_leaves_early_is_no_traceback() -> None:
    words = ["run", "m", "hello", "--temperature", "0", "--max-tokens", "2000"]
    process = subprocess.Popen(
        [*PROGRAM, *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stderr is not None
    assert process.stdout.read(5) == "01234"
    process.stdout.close()
    errors = process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=DEADLINE) != 0
    assert "Traceback" not in errors
