"""octavo chat: a conversation in the terminal."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from octavo.cli.options import generation_arguments, load_model, model_options, sampling_options
from octavo.cli.rendering import error_line, notice, reports_errors, show_stream, warning, write_text
from octavo.completion import ContextLengthError
from octavo.errors import OctavoError

if TYPE_CHECKING:
    from octavo.api import Model

PROMPT, CONTINUATION = "> ", ". "
HISTORY_LINES = 1000
FENCES = ('"""', "```")
HELP = """\
/help           this help
/clear          forget the conversation
/system TEXT    set the system prompt; without TEXT, show it
/save FILE      write the conversation: JSON messages, or Markdown for a name that ends in .md
/exit           leave (also Ctrl-D)
Several lines: end a line with \\, or put them between \"\"\" and \"\"\"; ``` too, which stays (code).
Ctrl-C stops the answer; at the prompt it clears the line."""

Message = dict[str, object]


class Conversation:
    """Messages that always fit the context: the oldest exchanges are left out, and it is said."""

    def __init__(self, model: Model, system: str | None) -> None:
        self._model = model
        self.system = system
        self.turns: list[Message] = []  # user and assistant in turn
        self.left_out = 0  # how many of the first turns no longer fit

    def messages(self) -> list[Message]:
        """What the model is shown."""
        system: list[Message] = [{"role": "system", "content": self.system}] if self.system else []
        return system + self.turns[self.left_out :]

    def clear(self) -> None:
        self.turns, self.left_out = [], 0

    def ask(self, question: str) -> list[Message]:
        """Add a question; return the messages to answer, which leave room for an answer.

        Raises ContextLengthError when the question alone does not fit, TemplateError when the template
        refuses it; the conversation is then as before.
        """
        self.turns.append({"role": "user", "content": question})
        before = self.left_out
        try:
            self._make_room()
        except OctavoError:
            self.turns.pop()
            self.left_out = before
            raise
        context = self._model.context
        if self.left_out > before:
            warning(
                f"the conversation has outgrown the context of {context} tokens: the model no longer sees "
                f"the first {self.left_out // 2} of {len(self.turns) // 2} exchanges (/clear starts afresh)"
            )
        return self.messages()

    def _make_room(self) -> None:
        """Leave out the oldest exchanges until the messages and an answer fit."""
        context = self._model.context
        room = min(256, context // 4)
        while (needed := len(self._model.encode_chat(self.messages()))) > context - room:
            if self.left_out >= len(self.turns) - 1:
                raise ContextLengthError(
                    f"the message needs {needed} tokens, and {context - room} of the context of {context} "
                    f"are left beside the answer: shorten it, or start with a larger --context"
                )
            self.left_out += 2

    def answer(self, text: str) -> None:
        self.turns.append({"role": "assistant", "content": text})

    def unanswered(self) -> None:
        """Take back a last question that got no answer at all."""
        if self.turns and self.turns[-1]["role"] == "user":
            self.turns.pop()
            self.left_out = min(self.left_out, len(self.turns))

    def save(self, path: Path) -> None:
        """Write every turn, also those that the model no longer sees."""
        system: list[Message] = [{"role": "system", "content": self.system}] if self.system else []
        messages = system + self.turns
        if path.suffix == ".md":
            text = (
                "\n\n".join(f"**{message['role']}**\n\n{message['content']}" for message in messages) + "\n"
            )
        else:
            text = json.dumps(messages, ensure_ascii=False, indent=2) + "\n"
        path.write_text(text, encoding="utf-8")


def read_message(read_line: Callable[[str], str]) -> str:
    """One message of one or more lines; raises EOFError at the end of input.

    A trailing backslash continues the line.  A line that begins with a fence lasts until a line that ends
    with it; the fence \"\"\" is taken away, ``` stays, since it means code to the model too.
    """
    line = read_line(PROMPT)
    fence = next((fence for fence in FENCES if line.lstrip().startswith(fence)), None)
    if fence is not None:
        return _read_fenced(line.lstrip(), fence, read_line)
    lines = []
    while line.endswith("\\"):
        lines.append(line[:-1])
        line = read_line(CONTINUATION)
    return "\n".join([*lines, line])


def _read_fenced(line: str, fence: str, read_line: Callable[[str], str]) -> str:
    lines = [line]
    closed = len(line.rstrip()) >= 2 * len(fence) and line.rstrip().endswith(fence)
    while not closed:
        lines.append(read_line(CONTINUATION))
        closed = lines[-1].rstrip().endswith(fence)
    text = "\n".join(lines)
    return text.strip() if fence == "```" else text.strip()[len(fence) : -len(fence)].strip("\n")


def slash_command(line: str, conversation: Conversation) -> bool:
    """Do what a line beginning with / says; returns False when it says to leave."""
    name, _, argument = line.strip().partition(" ")
    argument = argument.strip()
    match name:
        case "/exit" | "/quit" | "/bye":
            return False
        case "/help" | "/?":
            notice(HELP)
        case "/clear":
            conversation.clear()
            notice("the conversation is forgotten")
        case "/system":
            if argument:
                conversation.system = argument
            notice(f"system prompt: {conversation.system or 'none'}")
        case "/save":
            _save(argument, conversation)
        case _:
            warning(f"{name}: no such command (/help lists them)")
    return True


def _save(name: str, conversation: Conversation) -> None:
    if not name:
        warning("/save FILE: where to?")
        return
    try:
        conversation.save(Path(name).expanduser())
        notice(f"saved to {name}")
    except OSError as error:
        warning(f"/save {name}: {error.strerror or error}")


@contextlib.contextmanager
def line_editing() -> Iterator[Callable[[str], str]]:
    """A function that reads one line: with editing and history on a terminal, plainly from a pipe."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        yield _read_plain_line
        return
    try:
        import readline
    except ImportError:  # Python without readline: input() still reads lines
        yield input
        return
    from octavo.weights import hub

    history = hub.cache_folder() / "chat_history"
    with contextlib.suppress(OSError):
        readline.read_history_file(history)
    readline.set_history_length(HISTORY_LINES)
    try:
        yield input
    finally:
        with contextlib.suppress(OSError):
            history.parent.mkdir(parents=True, exist_ok=True)
            readline.write_history_file(history)
            history.chmod(0o600)


def _read_plain_line(_: str) -> str:
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line.removesuffix("\n")


@click.command("chat", context_settings={"max_content_width": 110})
@click.argument("model", required=False)
@click.option("-s", "--system", help="System prompt.")
@click.option("-q", "--quiet", is_flag=True, help="No greeting and no notices but warnings.")
@sampling_options
@model_options
@reports_errors
def command(model: str | None, system: str | None, quiet: bool, **options: Any) -> None:
    """Talk with a model in the terminal.

    Ctrl-C stops the answer and not the program; Ctrl-D leaves.  Several lines: end a line with a backslash,
    or put them between three double quotes or backquotes.  /help lists the commands.  Lines that you typed
    are kept for the next time (arrow keys) in the cache folder.
    """
    arguments = generation_arguments(options)
    with load_model(model, quiet=quiet, max_sequences=1, **options) as loaded, line_editing() as read_line:
        if not quiet:
            notice(f"{loaded.name}, context of {loaded.context} tokens. /help for help, Ctrl-D to leave.")
        conversation = Conversation(loaded, system)
        going_on = True
        while going_on:
            try:
                going_on = _turn(loaded, conversation, read_line, arguments)
            except KeyboardInterrupt:  # at the prompt: a new line, and nothing else is lost
                pass


def _turn(
    model: Model, conversation: Conversation, read_line: Callable[[str], str], arguments: dict[str, Any]
) -> bool:
    """Read one message and do what it asks; returns False when it is time to leave."""
    try:
        message = read_message(read_line)
    except KeyboardInterrupt:
        click.echo()
        return True
    except EOFError:
        if sys.stdin.isatty():
            click.echo()
        return False
    if message.startswith("/"):
        return slash_command(message, conversation)
    if message.strip():
        reply(model, conversation, message, arguments)
    return True


def reply(model: Model, conversation: Conversation, message: str, arguments: dict[str, Any]) -> None:
    """Answer one message on the screen and remember it; what was stopped by Ctrl-C is remembered so far.

    An error (a message too long, a template that refuses it) is shown, and the conversation stays as it was.
    """
    try:
        messages = conversation.ask(message)
        # Without --max-tokens an answer may fill the context.
        with model.stream_chat(messages, **{"max_tokens": model.context, **arguments}) as stream:
            interrupted = show_stream(stream, write_text)
    except OctavoError as error:
        error_line(error)
        conversation.unanswered()
        return
    completion = stream.completion()
    if not completion.text.endswith("\n"):
        click.echo()
    if interrupted:
        notice("(stopped)")
    elif completion.finish_reason == "length":
        warning("(the answer was cut: --max-tokens or the context was reached)")
    if completion.text:
        conversation.answer(completion.text)
    else:
        conversation.unanswered()
