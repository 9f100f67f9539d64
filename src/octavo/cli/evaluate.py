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
@click.option(
    "--target", "targets", multiple=True, help="Of a translator: text that runs parallel to --data."
)
@click.option("--beam", type=click.IntRange(1), default=4, show_default=True, help="Of translations.")
@click.option("--average", type=click.IntRange(1), default=1, help="Of translations: mean of checkpoints.")
@click.option("--json", "as_json", is_flag=True, help="One object: loss, bits_per_byte, perplexity, ...")
@reports_errors
def command(
    folder: Path,
    data: tuple[str, ...],
    column: str | None,
    targets: tuple[str, ...],
    beam: int,
    average: int,
    as_json: bool,
) -> None:
    """Loss, bits per byte and perplexity of the model in FOLDER.

    Of a fine-tuned BERT also accuracy, f1 and matthews; of a translator BLEU.

    Without --data: on the whole part of its data that training kept back.
    """
    require_torch()
    from octavo.training.evaluate import evaluate

    found, count = evaluate(
        folder,
        [Path(name) for name in data],
        column=column,
        targets=[Path(name) for name in targets],
        beam=beam,
        average=average,
    )
    values = {"loss": found.loss, "bits_per_byte": found.bits_per_byte, "perplexity": found.perplexity}
    if as_json:
        click.echo(json.dumps({**values, **found.scores, "tokens": count}))
        return
    scores = "".join(f", {name} {value:.4f}" for name, value in found.scores.items())
    click.echo(
        f"loss {found.loss:.4f} nats a token, {found.bits_per_byte:.4f} bits a byte, "
        f"perplexity {found.perplexity:.3f}{scores}  ({count:,} tokens)"
    )
