"""octavo embed: texts to vectors."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import click

from octavo.cli.options import load_model
from octavo.cli.rendering import printable, reports_errors

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# More columns than this fit no terminal.
MOST_COLUMNS = 12


@click.command("embed", context_settings={"max_content_width": 110})
@click.argument("model")
@click.argument("texts", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="One object: model, dimensions, embeddings.")
@click.option(
    "--truncate", is_flag=True, help="Cut texts that are too long for the model; else they are an error."
)
@click.option("--threads", type=click.IntRange(min=1), help="Default: what this process may really use.")
@click.option("--offline", is_flag=True, help="Never use the network.")
@click.option("-q", "--quiet", is_flag=True, help="No progress bar.")
@reports_errors
def command(
    model: str,
    texts: tuple[str, ...],
    as_json: bool,
    truncate: bool,
    threads: int | None,
    offline: bool,
    quiet: bool,
) -> None:
    """Turn texts, or the lines of standard input, into vectors.

    On a terminal: the cosine similarity of each text to each.  In a pipe: one JSON object a line,
    {"text", "embedding"}.  With --json: one object for all.

    An encoder (all-MiniLM-L6-v2) pools as it was trained to; of any other model it is the mean of the last
    hidden states.
    """
    given = list(texts) or [line.rstrip("\n") for line in sys.stdin if line.strip()]
    if not given:
        raise click.UsageError(
            'no text: octavo embed MODEL "one text" "another", or a line for each on standard input.'
        )
    with load_model(model, quiet=quiet, threads=threads, offline=offline) as loaded:
        vectors = loaded.embed(given, truncate=truncate)
    if as_json:
        click.echo(
            json.dumps({"model": model, "dimensions": vectors.shape[1], "embeddings": vectors.tolist()})
        )
    elif sys.stdout.isatty():
        _print_similarities(given, vectors)
    else:
        for text, vector in zip(given, vectors, strict=True):
            click.echo(json.dumps({"text": text, "embedding": vector.tolist()}, ensure_ascii=False))


def cosine_similarities(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Cosine of each vector to each, float32 [N, N]; a zero vector is similar to nothing."""
    import numpy as np

    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    units = vectors / np.maximum(lengths, np.float32(1e-12))
    similarities: NDArray[np.float32] = units @ units.T
    return similarities


def _print_similarities(texts: list[str], vectors: NDArray[np.float32]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=f"cosine similarity ({vectors.shape[1]} dimensions)", title_justify="left")
    table.add_column("")
    table.add_column("text", overflow="ellipsis", no_wrap=True, max_width=48)
    shown = min(len(texts), MOST_COLUMNS)
    for column in range(shown):
        table.add_column(str(column + 1), justify="right")
    for row, similarities in enumerate(cosine_similarities(vectors)):
        numbers = (f"{value:.3f}" for value in similarities[:shown])
        table.add_row(str(row + 1), Text(printable(texts[row].replace("\n", " "))), *numbers)
    Console().print(table)
    if shown < len(texts):
        click.echo(f"(columns {shown + 1} to {len(texts)} left out; --json has every vector)")
