"""octavo perplexity: how well a model predicts a text."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from octavo.cli.options import load_model
from octavo.cli.rendering import ProgressBar, reports_errors
from octavo.errors import FormatError, OctavoError

if TYPE_CHECKING:
    from octavo.api import Model


@click.command("perplexity", context_settings={"max_content_width": 110})
@click.argument("model")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, allow_dash=True))
@click.option(
    "--context", type=click.IntRange(min=2), default=512, show_default=True, help="Tokens in a window."
)
@click.option("--max-tokens", type=click.IntRange(min=2), help="Score only the first tokens of the file.")
@click.option("--threads", type=click.IntRange(min=1), help="Default: what this process may really use.")
@click.option("--kv-type", type=click.Choice(["f16", "int8"]), default="f16", show_default=True)
@click.option("--offline", is_flag=True, help="Never use the network.")
@click.option("--json", "as_json", is_flag=True, help="One object: perplexity, tokens, nats_per_token.")
@click.option("-q", "--quiet", is_flag=True, help="No progress bar.")
@reports_errors
def command(
    model: str,
    file: str,
    context: int,
    max_tokens: int | None,
    threads: int | None,
    kv_type: str,
    offline: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Perplexity of MODEL on the text of FILE (- is standard input).

    The text is cut into windows of --context tokens that do not overlap, each with the model's beginning
    token in front if it has one; every token of a window but its first is scored.
    perplexity = exp(nats per token).
    """
    with load_model(
        model,
        quiet=quiet,
        threads=threads,
        offline=offline,
        context=context,
        kv_type=kv_type,
        max_sequences=1,
    ) as loaded:
        windows = list(windows_of(loaded, _read(file), context, max_tokens))
        nats, scored = 0.0, 0
        with ProgressBar("scoring", quiet=quiet) as progress:
            for done, window in enumerate(windows):
                progress(done, len(windows))
                scores = loaded.score(window)
                nats -= float(scores.sum(dtype="float64"))
                scored += len(scores)
    per_token = nats / scored
    result = {"perplexity": _exponential(per_token), "tokens": scored, "nats_per_token": per_token}
    if as_json:
        click.echo(json.dumps(result))
    else:
        click.echo(f"perplexity {result['perplexity']:.4f}  ({scored} tokens, {per_token:.5f} nats a token)")


def windows_of(model: Model, text: str, size: int, most: int | None) -> Iterator[list[int]]:
    """Windows of at most `size` tokens; raises OctavoError where there is nothing to score."""
    tokens = model.tokenizer.encode(text, add_special=False)[:most]
    beginning = model.tokenizer.beginning_id
    front = [beginning] if model.tokenizer.add_beginning and beginning is not None else []
    step = size - len(front)
    windows = [front + tokens[start : start + step] for start in range(0, len(tokens), step)]
    windows = [window for window in windows if len(window) >= 2]
    if not windows:
        raise OctavoError(f"nothing to score: the text has {len(tokens)} tokens, and at least 2 are needed")
    return iter(windows)


def _read(name: str) -> str:
    try:
        return sys.stdin.read() if name == "-" else Path(name).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise FormatError(f"{name}: not UTF-8 text: {error}") from error


def _exponential(nats: float) -> float:
    return math.exp(nats) if nats < 700 else math.inf
