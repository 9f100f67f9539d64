"""octavo tokenizer: make a vocabulary of your own text."""

from __future__ import annotations

from pathlib import Path

import click

from octavo.cli.rendering import reports_errors


@click.group("tokenizer", context_settings={"max_content_width": 110})
def command() -> None:
    """Train a tokenizer."""


@command.command("train")
@click.argument("data", nargs=-1)
@click.option(
    "--out", "-o", required=True, type=click.Path(dir_okay=False, path_type=Path), help="tokenizer.json"
)
@click.option(
    "--vocabulary", type=click.IntRange(257), default=4096, show_default=True, help="Tokens at most."
)
@click.option("--characters", is_flag=True, help="One token for each byte that occurs, and no merges.")
@click.option("--column", help="Column or key of CSV, JSONL and Parquet that holds the text.")
@reports_errors
def train(data: tuple[str, ...], out: Path, vocabulary: int, characters: bool, column: str | None) -> None:
    """Byte-pair encoding over bytes, of the text in DATA (default: the source of Python's own library)."""
    from octavo.data.sources import data_paths, read_documents
    from octavo.data.vocabulary import train_tokenizer

    paths = data_paths(data)
    documents = read_documents(paths, column=column)
    kind = "characters" if characters else "bpe"
    tokenizer = train_tokenizer(documents, kind=kind, vocabulary_size=vocabulary)  # type: ignore[arg-type]
    tokenizer.save(str(out))
    click.echo(f"{out}: {tokenizer.get_vocab_size()} tokens")
