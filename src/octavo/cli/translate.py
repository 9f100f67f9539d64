"""octavo translate: texts to texts with a translator that was trained here."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import click

from octavo.cli.rendering import reports_errors
from octavo.cli.train import require_torch


@click.command("translate", context_settings={"max_content_width": 110})
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("texts", nargs=-1)
@click.option("--beam", type=click.IntRange(1), default=4, show_default=True, help="Hypotheses; 1 is greedy.")
@click.option(
    "--length-penalty", "alpha", type=click.FloatRange(0), default=0.6, show_default=True, help="0: none."
)
@click.option(
    "--average", type=click.IntRange(1), default=1, show_default=True, help="Mean of the last checkpoints."
)
@click.option("--threads", type=click.IntRange(min=1), help="Default: what this process may really use.")
@click.option("--json", "as_json", is_flag=True, help="One object a text: source, translation.")
@reports_errors
def command(
    folder: Path,
    texts: tuple[str, ...],
    beam: int,
    alpha: float,
    average: int,
    threads: int | None,
    as_json: bool,
) -> None:
    """Translate TEXTS, or the lines of standard input, with the model in FOLDER (octavo train seq2seq)."""
    require_torch()
    from octavo.training.translate import Translator, limit_threads

    limit_threads(threads)
    translator = Translator(folder, average=average)
    for given in [list(texts)] if texts else _chunks():
        for source, text in zip(given, translator.translate(given, beam=beam, alpha=alpha), strict=True):
            line = {"source": source, "translation": text}
            click.echo(json.dumps(line, ensure_ascii=False) if as_json else text)


def _chunks(size: int = 256) -> Iterator[list[str]]:
    """The lines of standard input; at a terminal, each as soon as it is there."""
    lines = (line.rstrip("\n") for line in iter(sys.stdin.readline, ""))
    while chunk := list(islice(lines, 1 if sys.stdin.isatty() else size)):
        yield chunk
