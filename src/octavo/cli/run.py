"""octavo run: one prompt, one answer."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from octavo.cli.grammar import grammar_arguments
from octavo.cli.options import (
    generation_arguments,
    grammar_options,
    load_model,
    model_options,
    read_prompt,
    sampling_options,
)
from octavo.cli.rendering import INTERRUPTED, closing_line, notice, reports_errors, show_stream, write_text

DEFAULT_MAX_TOKENS = 512


@click.command("run", context_settings={"max_content_width": 110})
@click.argument("words", nargs=-1, metavar="[MODEL] [PROMPT]")
@click.option(
    "-f", "--file", "files", multiple=True, metavar="FILE", help="Prompt from a file; - is standard input."
)
@click.option("-s", "--system", help="System prompt (needs a chat template).")
@click.option(
    "--raw", is_flag=True, help="Complete the text as it stands, without the model's chat template."
)
@click.option(
    "--heal", is_flag=True, help="With --raw: the prompt's last word may be spelled anew, as the model would."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object at the end.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing but the text.")
@grammar_options
@sampling_options
@model_options
@reports_errors
def command(
    words: tuple[str, ...],
    files: tuple[str, ...],
    system: str | None,
    raw: bool,
    heal: bool,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Answer one prompt, streaming.

    A model with a chat template answers; one without, or with --raw, continues the text.

    A single argument is the prompt, unless it names a model (a short name, a path, hf: or pypi:): then the
    prompt comes from -f or standard input.  All that is given is joined: files, standard input, argument.

    \b
        octavo run "Why is the sky blue?"
        git diff | octavo run "Write a commit message."
        octavo run "Is a whale a fish?" --choices yes,no
        octavo run ./model.gguf --raw -f story.txt --max-tokens 100

    The closing line on standard error says what share of the memory-bandwidth limit was reached: one sequence
    can go no faster than memory can read the weights.  Ctrl-C keeps what is there and exits with code 130.
    """
    model_name, prompt = read_prompt(words, files)
    if raw and system:
        raise click.UsageError("--raw has no place for --system: write it into the prompt.")
    arguments = {"max_tokens": DEFAULT_MAX_TOKENS} | generation_arguments(options)
    arguments |= grammar_arguments(options)
    if heal:
        if not raw:
            raise click.UsageError(
                "--heal mends the end of a --raw prompt: a chat template ends with whole tokens."
            )
        arguments["heal"] = True
    with load_model(model_name, quiet=quiet or as_json, max_sequences=1, **options) as model:
        if raw or not (model.has_chat_template or system):
            stream = model.stream(prompt, **arguments)
        else:
            messages = [{"role": "system", "content": system}] if system else []
            stream = model.stream_chat([*messages, {"role": "user", "content": prompt}], **arguments)
        interrupted = show_stream(stream, (lambda _: None) if as_json else write_text)
        completion = stream.completion()
        if as_json:
            click.echo(json.dumps(completion.summary(), ensure_ascii=False))
        elif not completion.text.endswith("\n"):
            click.echo()
        if not (as_json or quiet):
            notice(_closing_line(model, completion))
    if interrupted:
        sys.exit(INTERRUPTED)


def _closing_line(model: Any, completion: Any) -> str:
    from octavo.roofline import memory_bandwidth

    tokens, timings = len(completion.tokens), completion.timings
    speed = completion.tokens_per_second
    # A step reads the weights once, however many drafted tokens come true in it.
    reached = speed * model.bytes_per_token / 1e9 * (tokens - timings.accepted) / max(tokens, 1)
    share = reached / memory_bandwidth(model.threads, seen=reached) if reached else None
    return closing_line(tokens, speed, share, timings)
