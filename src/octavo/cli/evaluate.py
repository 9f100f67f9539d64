"""octavo eval: how well a trained model does on a text."""

from __future__ import annotations

import json
from pathlib import Path

import click

from octavo.cli.rendering import reports_errors
from octavo.cli.train import require_torch


@click.command("eval", context_settings={"max_content_width": 110})
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--data", "-d", multiple=True, help="File or folder; default: what training kept back.")
@click.option("--column", help="Column or key of CSV, JSONL and Parquet that holds the text.")
@click.option("--json", "as_json", is_flag=True, help="One object: loss, bits_per_byte, perplexity, tokens.")
@reports_errors
def command(folder: Path, data: tuple[str, ...], column: str | None, as_json: bool) -> None:
    """Loss, bits per byte and perplexity of the model in FOLDER.

    Without --data: on the whole part of its data that training kept back.
    """
    require_torch()
    from octavo.training.evaluate import evaluate

    found, tokens = evaluate(folder, [Path(name) for name in data], column=column)
    values = {"loss": found.loss, "bits_per_byte": found.bits_per_byte, "perplexity": found.perplexity}
    if as_json:
        click.echo(json.dumps({**values, "tokens": tokens}))
    else:
        click.echo(
            f"loss {found.loss:.4f} nats a token, {found.bits_per_byte:.4f} bits a byte, "
            f"perplexity {found.perplexity:.3f}  ({tokens:,} tokens)"
        )
