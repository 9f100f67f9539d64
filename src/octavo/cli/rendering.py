"""What the verbs put on the screen: streamed text, the closing line, errors, progress bars.

Text goes to standard output, and everything about it to standard error.  rich is imported only when a bar or
a table is really drawn, so that `octavo run` starts at once.
"""

from __future__ import annotations

import functools
import queue
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, ParamSpec

import click

from octavo.errors import OctavoError

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from octavo.completion import Piece, Stream
    from octavo.decoding.generation import Timings

Arguments = ParamSpec("Arguments")

INTERRUPTED = 130  # 128 + SIGINT, what a shell expects of a program that Ctrl-C ended


def notice(text: str) -> None:
    """A dim line on standard error."""
    click.secho(text, err=True, dim=True)


def warning(text: str) -> None:
    """A yellow line on standard error."""
    click.secho(text, err=True, fg="yellow")


def error_line(error: BaseException) -> None:
    """One red line on standard error that says what went wrong."""
    click.secho(f"error: {error}", err=True, fg="red")


def reports_errors(verb: Callable[Arguments, None]) -> Callable[Arguments, None]:
    """Errors that octavo raises for people become one line and exit code 1; Ctrl-C becomes exit code 130."""

    @functools.wraps(verb)
    def guarded(*arguments: Arguments.args, **options: Arguments.kwargs) -> None:
        try:
            verb(*arguments, **options)
        except (OctavoError, ValueError) as error:  # ValueError: an option that the model cannot honour
            error_line(error)
            sys.exit(1)
        except KeyboardInterrupt:
            click.echo(err=True)
            sys.exit(INTERRUPTED)

    return guarded


def printable(text: str) -> str:
    """Text that cannot command a terminal: control characters but tab and newline become a visible sign."""
    if text.isprintable():
        return text
    return "".join(
        character if character in "\n\t" or not _is_control(character) else "�" for character in text
    )


def _is_control(character: str) -> bool:
    return ord(character) < 0x20 or 0x7F <= ord(character) < 0xA0


def write_text(text: str) -> None:
    """Write to standard output at once; a terminal gets no control characters from a model."""
    sys.stdout.write(printable(text) if sys.stdout.isatty() else text)
    sys.stdout.flush()


def show_stream(stream: Stream, write: Callable[[str], None] = write_text) -> bool:
    """Write the pieces of a stream as they come; Ctrl-C cancels the stream.  Returns whether it did.

    Another thread drives the generation: a signal is handled between two bytecodes of the main thread, which
    would otherwise be inside a native step, perhaps in the middle of a long prompt.
    """
    pieces: queue.SimpleQueue[Piece | BaseException | None] = queue.SimpleQueue()

    def generate() -> None:
        try:
            for piece in stream:
                pieces.put(piece)
            pieces.put(None)
        except BaseException as error:  # whatever it is, it is raised again in the main thread
            pieces.put(error)

    threading.Thread(target=generate, name="octavo-generation", daemon=True).start()
    interrupted = written = False
    while True:
        try:
            piece = pieces.get()
            if piece is None:
                return interrupted
            if isinstance(piece, BaseException):
                if written:
                    write("\n")
                raise piece
            write(piece)
            written = written or bool(piece)
        except KeyboardInterrupt:
            if interrupted:  # asked twice: do not wait for the step to end
                raise
            interrupted = True
            stream.cancel()


def closing_line(
    completion_tokens: int, tokens_per_second: float, share: float | None, timings: Timings | None = None
) -> str:
    """The line after an answer; `share` is of the memory-bandwidth limit, 0 to 1."""
    line = f"{completion_tokens} tokens, {tokens_per_second:,.1f} tokens/s"
    line = line if share is None else f"{line}, {share:.0%} of the memory-bandwidth limit"
    if timings is None or not timings.drafted:
        return line
    return (
        f"{line}, {timings.accepted} of {timings.drafted} drafted tokens accepted "
        f"(about {timings.speedup_estimate:.2f} times as fast)"
    )


class ProgressBar:
    """A bar on standard error for work that turns out to take more than a moment; a context manager.

    Call it with (done, total), total None or 0 while unknown; before the first call it only shows that work
    goes on.  Nothing is drawn before `delay` seconds, when standard error is no terminal, or when `quiet`.
    """

    def __init__(
        self, title: str, *, quiet: bool = False, byte_sizes: bool = False, delay: float = 1.0
    ) -> None:
        self._title = title
        self._byte_sizes = byte_sizes
        self._lock = threading.Lock()
        self._state: tuple[int, int | None] = (0, None)
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._timer: threading.Timer | None = None
        if not quiet and sys.stderr.isatty():
            self._timer = threading.Timer(delay, self._show)
            self._timer.daemon = True

    def __call__(self, done: int, total: int | None = None) -> None:
        with self._lock:
            self._state = done, total or None
            if self._progress is not None and self._task is not None:
                self._progress.update(self._task, completed=done, total=total or None)

    def _show(self) -> None:
        with self._lock:
            if self._timer is None:  # the work ended at this very moment
                return
            self._progress = self._make_bar()
            self._task = self._progress.add_task(self._title, completed=self._state[0], total=self._state[1])
            self._progress.start()

    def _make_bar(self) -> Progress:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        amount = DownloadColumn() if self._byte_sizes else MofNCompleteColumn()
        columns = (TextColumn("{task.description}"), BarColumn(), amount, TimeRemainingColumn())
        return Progress(*columns, console=Console(stderr=True), transient=True)

    def __enter__(self) -> ProgressBar:
        if self._timer is not None:
            self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            if self._progress is not None:
                self._progress.stop()
                self._progress = self._task = None
