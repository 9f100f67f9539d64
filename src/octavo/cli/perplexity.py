"""octavo perplexity: how well a model predicts a text."""

from __future__ import annotations

import itertools
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from octavo.cli.options import load_model
from octavo.cli.rendering import ProgressBar, reports_errors
from octavo.errors import FormatError, OctavoError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from octavo.api import Model
    from octavo.evaluation.perplexity import Perplexity


@click.command("perplexity", context_settings={"max_content_width": 110})
@click.argument("model")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, allow_dash=True))
@click.option(
    "--context", type=click.IntRange(min=2), default=512, show_default=True, help="Tokens in a window."
)
@click.option("--max-tokens", type=click.IntRange(min=2), help="Score only the first tokens of the file.")
@click.option("--threads", type=click.IntRange(min=1), help="Default: what this process may really use.")
@click.option("--kv-type", type=click.Choice(["auto", "f16", "int8"]), default="auto", show_default=True)
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

    The text is cut into windows of --context tokens that do not overlap.  Every token of a window but its
    first is scored; that first one gives way to the model's beginning token if it has one.
    perplexity = exp(nats per token).
    """
    text = _read(file)
    with load_model(
        model,
        quiet=quiet,
        threads=threads,
        offline=offline,
        context=context,
        kv_type=kv_type,
        max_sequences=1,
    ) as loaded:
        result = _measure(loaded, text, context, max_tokens, quiet=quiet)
    if as_json:
        click.echo(json.dumps(asdict(result)))
    else:
        nats = f"{result.nats_per_token:.5f} nats a token"
        click.echo(f"perplexity {result.perplexity:.4f}  ({result.tokens} tokens, {nats})")


def _measure(model: Model, text: str, context: int, most: int | None, *, quiet: bool) -> Perplexity:
    from octavo.evaluation.perplexity import perplexity

    tokens = model.tokenizer.encode(text, add_special=False)[:most]
    beginning = model.tokenizer.beginning_id if model.tokenizer.add_beginning else None
    if len(tokens) < 2:
        raise OctavoError(f"nothing to score: the text has {len(tokens)} tokens, and at least 2 are needed")
    windows, done = -(-len(tokens) // context), itertools.count()
    with ProgressBar("scoring", quiet=quiet) as progress:

        def scores(window: NDArray[np.int32]) -> NDArray[np.float32]:
            progress(next(done), windows)
            return model.logits(window.tolist())

        return perplexity(scores, tokens, context, beginning_token=beginning)


def _read(name: str) -> str:
    try:
        return sys.stdin.read() if name == "-" else Path(name).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise FormatError(f"{name}: not UTF-8 text: {error}") from error
