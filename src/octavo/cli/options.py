"""Options that several verbs share, and how the words of a command line become a model and a prompt."""

from __future__ import annotations

import select
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from octavo.cli.rendering import ProgressBar, warning

if TYPE_CHECKING:
    from octavo.api import Model

Command = TypeVar("Command", bound=Callable[..., Any])

# How long a prompt given as an argument waits for a pipe to bring its first byte.
PIPE_PATIENCE_SECONDS = 1.0
# The name under which the adapter of a command line is loaded.
_ADAPTER = "adapter"


class TokenBias(click.ParamType[tuple[int, float]]):
    """ID=VALUE, as 13=-5 or 198=-inf."""

    name = "ID=VALUE"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, float]:
        if isinstance(value, tuple):
            return value
        token, equals, bias = str(value).partition("=")
        try:
            if not equals:
                raise ValueError
            return int(token), float(bias)
        except ValueError:
            self.fail(f"{value!r} is not a token id and a number, as in 13=-5 or 198=-inf", param, ctx)


_SAMPLING_OPTIONS = (
    click.option("--max-tokens", type=click.IntRange(min=1), help="Generate at most this many tokens."),
    click.option("--temperature", type=click.FloatRange(min=0), help="0 always takes the likeliest token."),
    click.option("--top-k", type=click.IntRange(min=0), help="Keep the K likeliest tokens; 0 keeps all."),
    click.option(
        "--top-p",
        type=click.FloatRange(0, 1, min_open=True),
        help="Keep the likeliest tokens that add up to P.",
    ),
    click.option(
        "--min-p",
        type=click.FloatRange(0, 1),
        help="Keep tokens at least P times as likely as the likeliest.",
    ),
    click.option(
        "--repetition-penalty",
        type=click.FloatRange(min=0, min_open=True),
        help="Above 1: recent tokens become less likely.",
    ),
    click.option("--presence-penalty", type=float, help="Taken from the logit of each token already seen."),
    click.option(
        "--frequency-penalty", type=float, help="Taken from the logit of a token each time it was seen."
    ),
    click.option(
        "--logit-bias",
        type=TokenBias(),
        multiple=True,
        help="Add VALUE to the logit of token ID; repeatable.",
    ),
    click.option("--seed", type=click.IntRange(min=0), help="The same seed gives the same text."),
    click.option(
        "--max-seconds", type=click.FloatRange(min=0, min_open=True), help="End after this many seconds."
    ),
    click.option("--stop", multiple=True, help="End before this text; repeatable."),
)

_GRAMMAR_OPTIONS = (
    click.option(
        "--json-schema",
        metavar="FILE|MODULE:NAME",
        help="Answer in JSON of this schema, pydantic model or dataclass.",
    ),
    click.option("--regex", metavar="PATTERN", help="Answer with a text that matches in full."),
    click.option("--grammar", metavar="FILE", help="Answer within a grammar: GBNF, Lark, or JSON as .json."),
    click.option(
        "--language", type=click.Choice(["json", "python", "sql"]), help="Answer in this language alone."
    ),
    click.option("--choices", metavar="A,B,C", help="Answer with one of these texts."),
    click.option(
        "--trigger", metavar="TEXT", help="The grammar begins behind this text; before it, text is free."
    ),
    click.option(
        "--trigger-end", metavar="TEXT", help="Behind this text, after the grammar's, text is free again."
    ),
)

_MODEL_OPTIONS = (
    click.option(
        "--context", type=click.IntRange(min=1), help="Longest sequence in tokens (prompt and answer)."
    ),
    click.option("--threads", type=click.IntRange(min=1), help="Default: what this process may really use."),
    click.option(
        "--kv-type",
        type=click.Choice(["auto", "f16", "int8"]),
        default="auto",
        show_default=True,
        help="Storage of the KV cache; auto is int8 where a model loses nothing by it.",
    ),
    click.option(
        "--draft",
        metavar="MODEL|head|DIR|suffix|off",
        default="suffix",
        show_default=True,
        help="What guesses tokens ahead where that is faster; the text stays the same.",
    ),
    click.option(
        "--draft-max",
        type=click.IntRange(1, 64),
        default=16,
        show_default=True,
        help="Guess at most this many tokens ahead.",
    ),
    click.option("--adapter", metavar="DIR", help="A LoRA adapter of this model (octavo tune, PEFT)."),
    click.option("--offline", is_flag=True, help="Never use the network."),
)


def _apply(options: Sequence[Callable[[Command], Command]], command: Command) -> Command:
    for option in reversed(options):
        command = option(command)
    return command


def sampling_options(command: Command) -> Command:
    """Give a command every option of `GenerationOptions`."""
    return _apply(_SAMPLING_OPTIONS, command)


def grammar_options(command: Command) -> Command:
    """Give a command the ways to name a grammar."""
    return _apply(_GRAMMAR_OPTIONS, command)


def model_options(command: Command) -> Command:
    """Give a command the options of `octavo.load`."""
    return _apply(_MODEL_OPTIONS, command)


def generation_arguments(options: dict[str, Any]) -> dict[str, Any]:
    """Take the sampling options out of a command's options, as keyword arguments of `Model.generate`."""
    names = ["max_tokens", "temperature", "top_k", "top_p", "min_p", "repetition_penalty"]
    names += ["presence_penalty", "frequency_penalty", "seed", "max_seconds"]
    arguments = {name: options.pop(name) for name in names}
    arguments["logit_bias"] = dict(options.pop("logit_bias")) or None
    arguments["adapter"] = _ADAPTER if options.get("adapter") else None
    arguments["stop"] = list(options.pop("stop")) or None
    return {name: value for name, value in arguments.items() if value is not None}


def load_model(name: str | None, *, quiet: bool, **options: Any) -> Model:
    """`octavo.load` with progress bars; `options` may hold anything else that a verb has still to read."""
    from octavo import api
    from octavo.weights.hub import DEFAULT_MODEL

    if (adapter := options.pop("adapter", None)) is not None:
        options["adapters"] = {_ADAPTER: adapter}
    with ProgressBar("bringing the model", quiet=quiet, byte_sizes=True) as progress:
        return api.load(name or DEFAULT_MODEL, progress=progress, **options)


def names_a_model(word: str) -> bool:
    """Whether a word on its own means a model: a path that is there, a source, or a short name."""
    from octavo.weights import hub

    if word.startswith(("hf:", "pypi:")) or word in hub.SHORT_NAMES:
        return True
    return len(word) < 4096 and "\n" not in word and Path(word).expanduser().exists()


def read_prompt(words: Sequence[str], files: Sequence[str]) -> tuple[str | None, str]:
    """(model or None for the default, prompt) of `octavo run WORDS -f FILES`, with what is piped in.

    The parts of a prompt are joined by a blank line, the instruction last: files, standard input, argument.
    """
    if len(words) > 2:
        raise click.UsageError("more than MODEL and PROMPT: put quotes around the prompt.")
    model = words[0] if len(words) == 2 else None
    argument = words[-1] if words else None
    piped = None if "-" in files else _piped_text(wait=argument is None and not files)
    if len(words) == 1 and names_a_model(words[0]):
        model, argument = words[0], None
        if piped is None and not files:
            piped = _piped_text(wait=True)
    parts = [_read_file(file) for file in files] + [piped, argument]
    given = [part for part in parts if part is not None]
    if not given:
        raise click.UsageError(
            f'no prompt: octavo run {model or "MODEL"} "prompt", -f FILE, or pipe it in. '
            f"For a conversation: octavo chat {model or ''}".rstrip()
        )
    prompt = "\n\n".join(part.strip("\n") for part in given) if len(given) > 1 else given[0]
    if not prompt.strip():
        raise click.UsageError("the prompt is empty.")
    return model, prompt


def _read_file(name: str) -> str:
    try:
        return sys.stdin.read() if name == "-" else Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise click.UsageError(f"-f {name}: not readable as UTF-8 text: {error}") from error


def _piped_text(*, wait: bool) -> str | None:
    """What standard input brings, or None for a terminal or nothing.

    Without `wait`, a pipe that nobody writes to (a service, ssh, a test) is given up after a second, loudly.
    """
    if sys.stdin is None or sys.stdin.closed or sys.stdin.isatty():
        return None
    if not wait and not _brings_something():
        warning(f"nothing on standard input within {PIPE_PATIENCE_SECONDS:.0f} s: not waiting (-f - does)")
        return None
    return sys.stdin.read() or None


def _brings_something() -> bool:
    try:
        return bool(select.select([sys.stdin.fileno()], [], [], PIPE_PATIENCE_SECONDS)[0])
    except (OSError, ValueError):  # no file descriptor (a test's buffer), or one that cannot be polled
        return True
