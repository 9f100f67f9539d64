"""octavo train: a model of your own, from text to a folder that runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from octavo.cli.rendering import INTERRUPTED, notice, reports_errors

_SIZES = ("nano", "tiny", "mini", "small", "medium", "base")
_OPTIMIZERS = ("muon", "adamw", "adam", "lion", "sgd", "momentum", "nesterov")
_SCHEDULES = ("warmup_stable_decay", "cosine", "linear", "constant", "one_cycle")


def require_torch() -> None:
    """One line for those who installed octavo only to run models."""
    from importlib.util import find_spec

    missing = [name for name in ("torch", "safetensors") if find_spec(name) is None]
    if missing:
        raise click.ClickException(f"this verb needs {' and '.join(missing)}: pip install 'octavo[train]'")


@click.command("train", context_settings={"max_content_width": 110})
@click.argument("model", type=click.Choice(["gpt"]), default="gpt")
@click.option("--data", "-d", multiple=True, help="File or folder; repeatable. Default: Python's own source.")
@click.option("--column", help="Column or key of CSV, JSONL and Parquet that holds the text.")
@click.option("--out", "-o", type=click.Path(file_okay=False), help="The folder that becomes the model.")
@click.option("--resume", type=click.Path(exists=True, file_okay=False), help="Go on with the run in DIR.")
@click.option("--size", type=click.Choice(_SIZES), help="The dial; by default what fits the time.")
@click.option("--params", "parameters", type=click.IntRange(1), help="The dial as a number of parameters.")
@click.option("--minutes", type=click.FloatRange(0, min_open=True), help="Train for so long.")
@click.option("--steps", type=click.IntRange(1), help="Updates. Default without --minutes: 1000.")
@click.option("--tokens", type=click.IntRange(1), help="Train on so many tokens.")
@click.option(
    "--architecture", type=click.Choice(["qwen3", "llama", "gpt2"]), default="qwen3", show_default=True
)
@click.option("--context", type=click.IntRange(2), default=256, show_default=True, help="Tokens of a row.")
@click.option("--tokenizer", default="bpe", show_default=True, help="bpe, characters, or a tokenizer.json.")
@click.option("--vocabulary", "vocabulary_size", type=click.IntRange(257), default=4096, show_default=True)
@click.option("--batch-tokens", type=click.IntRange(1), help="Tokens of one update.")
@click.option("--rows", type=click.IntRange(1), help="Rows of one forward pass; the rest is accumulated.")
@click.option("--optimizer", type=click.Choice(_OPTIMIZERS), default="muon", show_default=True)
@click.option("--learning-rate", type=click.FloatRange(0, min_open=True))
@click.option("--weight-decay", type=click.FloatRange(0), default=0.1, show_default=True)
@click.option("--schedule", type=click.Choice(_SCHEDULES), default="warmup_stable_decay", show_default=True)
@click.option("--dropout", type=click.FloatRange(0, 1, max_open=True), default=0.0, show_default=True)
@click.option(
    "--precision", type=click.Choice(["auto", "bfloat16", "float32"]), default="auto", show_default=True
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--save-steps", type=click.IntRange(1), help="A checkpoint every so many steps.")
@click.option("--save-minutes", type=click.FloatRange(0), default=5.0, show_default=True)
@click.option("--keep", type=click.IntRange(1), default=2, show_default=True, help="Checkpoints that stay.")
@click.option("--validate-steps", type=click.IntRange(1), help="Default: ten times in a run.")
@click.option("--prompt", default="", help="What the samples begin with.")
@click.option("--threads", type=click.IntRange(1), help="Default: what this process may really use.")
@click.option("--quiet", "-q", is_flag=True, help="Nothing on the screen but the result.")
@reports_errors
def command(model: str, out: str | None, resume: str | None, quiet: bool, **options: Any) -> None:
    """Train a language model on the CPU.

    octavo train --minutes 2 --out my-gpt needs no data: it learns from the source of Python's own library.
    The folder runs at once with octavo run my-gpt "import ", and any Hugging Face tool loads it.
    Ctrl-C saves first; octavo train --resume my-gpt goes on exactly there.
    """
    require_torch()
    if (out is None) == (resume is None):
        raise click.UsageError("give --out DIR for a new run, or --resume DIR to go on with one.")
    from octavo.training import loop
    from octavo.training.config import TrainingConfig
    from octavo.training.live_view import LiveView

    with LiveView(quiet=quiet) as view:
        if resume is not None:
            result = loop.resume(Path(resume), view=view)
        else:
            given = {name: value for name, value in options.items() if value is not None}
            result = loop.train(TrainingConfig(out=str(out), **given), view=view)
    if result.interrupted:
        notice(f"stopped at step {result.steps} and saved: octavo train --resume {result.folder}")
        sys.exit(INTERRUPTED)
    found = result.validation
    loss = (
        f"loss {found.loss:.4f}, {found.bits_per_byte:.4f} bits a byte"
        if found
        else f"loss {result.loss:.4f}"
    )
    click.echo(
        f"{result.folder}: {result.steps} steps, {result.tokens:,} tokens, {result.seconds:.0f} s, {loss}"
    )
    notice(
        f'octavo run {result.folder} "..." continues a text; octavo report {result.folder} shows the curves'
    )
