"""octavo train: a model of your own, from text to a folder that runs."""

from __future__ import annotations

import sys
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from octavo.cli.rendering import INTERRUPTED, notice, reports_errors

if TYPE_CHECKING:
    from octavo.training.config import TrainingConfig

_SIZES = ("nano", "tiny", "mini", "small", "medium", "base")
_OPTIMIZERS = ("muon", "adamw", "adam", "lion", "sgd", "momentum", "nesterov")
_SCHEDULES = ("warmup_stable_decay", "cosine", "linear", "constant", "one_cycle", "inverse_sqrt")
_TASKS = ("pretrain", "classify", "pairs", "tokens")


def require_torch() -> None:
    """One line for those who installed octavo only to run models."""
    from importlib.util import find_spec

    missing = [name for name in ("torch", "safetensors") if find_spec(name) is None]
    if missing:
        raise click.ClickException(f"this verb needs {' and '.join(missing)}: pip install 'octavo[train]'")


@click.command("train", context_settings={"max_content_width": 110})
@click.argument("model", type=click.Choice(["gpt", "bert", "seq2seq"]), default="gpt")
@click.option(
    "--data",
    "-d",
    multiple=True,
    help="File, folder or package:NAME; repeatable. Default: Python's own source.",
)
@click.option("--column", help="Column or key of CSV, JSONL and Parquet that holds the text.")
@click.option("--out", "-o", type=click.Path(file_okay=False), help="The folder that becomes the model.")
@click.option("--resume", type=click.Path(exists=True, file_okay=False), help="Go on with the run in DIR.")
@click.option("--size", type=click.Choice(_SIZES), help="The dial; by default what fits the time.")
@click.option("--params", "parameters", type=click.IntRange(1), help="The dial as a number of parameters.")
@click.option("--layers", type=click.IntRange(1), help="Overrules the dial, as the next two.")
@click.option("--width", "hidden_size", type=click.IntRange(2), help="Of the hidden states.")
@click.option("--heads", type=click.IntRange(1))
@click.option("--minutes", type=click.FloatRange(0, min_open=True), help="Train for so long.")
@click.option("--steps", type=click.IntRange(1), help="Updates. Default without --minutes: 1000.")
@click.option("--tokens", type=click.IntRange(1), help="Train on so many tokens.")
@click.option("--architecture", type=click.Choice(["qwen3", "llama", "gpt2"]), help="Of gpt. Default: qwen3.")
@click.option("--context", type=click.IntRange(2), help="Tokens of a row. Default: 256, bert, seq2seq 128.")
@click.option("--tokenizer", help="bpe, characters, wordpiece (bert), or a tokenizer.json.")
@click.option("--vocabulary", "vocabulary_size", type=click.IntRange(257), help="Tokens at most.")
@click.option("--validation", type=click.FloatRange(0, 1, max_open=True), help="Part that is kept back.")
@click.option("--batch-tokens", type=click.IntRange(1), help="Tokens of one update.")
@click.option("--rows", type=click.IntRange(1), help="Rows of one forward pass; the rest is accumulated.")
@click.option("--optimizer", type=click.Choice(_OPTIMIZERS), help="Default: muon; of seq2seq adam.")
@click.option("--learning-rate", type=click.FloatRange(0, min_open=True))
@click.option("--weight-decay", type=click.FloatRange(0), help="Default: 0.1; of seq2seq 0.")
@click.option(
    "--schedule", type=click.Choice(_SCHEDULES), help="Default: warmup_stable_decay; seq2seq inverse_sqrt."
)
@click.option("--warmup", type=click.FloatRange(0, 1), help="Part of the run in which the rate rises.")
@click.option("--final", type=click.FloatRange(0, 1), help="What is left of the rate at the end.")
@click.option("--dropout", type=click.FloatRange(0, 1, max_open=True), help="Default: 0; bert, seq2seq 0.1.")
@click.option("--precision", type=click.Choice(["auto", "bfloat16", "float32"]), help="Default: auto.")
@click.option("--seed", type=click.IntRange(0), help="Default: 0.")
@click.option("--save-steps", type=click.IntRange(1), help="A checkpoint every so many steps.")
@click.option("--save-minutes", type=click.FloatRange(0), help="Or every so many minutes. Default: 5.")
@click.option("--keep", type=click.IntRange(1), help="Checkpoints that stay. Default: 2.")
@click.option("--validate-steps", type=click.IntRange(1), help="Default: ten times in a run.")
@click.option("--prompt", help="What the samples begin with.")
@click.option("--threads", type=click.IntRange(1), help="Default: what this process may really use.")
@click.option("--validation-data", multiple=True, help="bert, seq2seq: files instead of a part kept back.")
@click.option(
    "--columns", help="Of tables, names or numbers with commas: seq2seq source,target; bert --task."
)
@click.option("--target", "targets", multiple=True, help="seq2seq: text that runs parallel to --data.")
@click.option(
    "--validation-target", "validation_targets", multiple=True, help="The same of --validation-data."
)
@click.option("--label-smoothing", type=click.FloatRange(0, 1, max_open=True), help="seq2seq. Default: 0.1.")
@click.option("--norm", "norm_position", type=click.Choice(["post", "pre"]), help="seq2seq. Default: post.")
@click.option("--task", type=click.Choice(_TASKS), help="bert: what to learn. Default: pretrain.")
@click.option(
    "--from", "start", type=click.Path(exists=True), help="bert: a pretrained folder to begin with."
)
@click.option("--mask", "mask_probability", type=click.FloatRange(0, 1), help="bert. Default: 0.15.")
@click.option("--whole-words/--pieces", default=None, help="bert: what is masked. Default: whole words.")
@click.option("--next-sentence", is_flag=True, default=None, help="bert: predict that, too.")
@click.option("--quiet", "-q", is_flag=True, help="Nothing on the screen but the result.")
@reports_errors
def command(model: str, out: str | None, resume: str | None, quiet: bool, **options: Any) -> None:
    """Train a language model on the CPU: a GPT, a BERT, or the 2017 Transformer (seq2seq).

    octavo train --minutes 2 --out my-gpt needs no data: it learns from the source of Python's own library.
    The folder runs at once with octavo run my-gpt "import ", and any Hugging Face tool loads it.
    octavo train bert --data text/ --out my-bert pretrains; --task classify --from my-bert --data labels.csv
    fine-tunes. octavo train seq2seq --data a.en --target a.de --out my-translator learns from parallel lines.
    Ctrl-C saves first; octavo train --resume DIR goes on exactly there.
    """
    require_torch()
    if (out is None) == (resume is None):
        raise click.UsageError("give --out DIR for a new run, or --resume DIR to go on with one.")
    from octavo.training import loop
    from octavo.training.live_view import LiveView

    given = {name: value for name, value in options.items() if value not in (None, ())}
    if resume is not None and given:
        raise click.UsageError(
            f"--resume goes on with the run as it was begun: leave out {_flag(min(given))}"
        )
    config = None if out is None else _config(model, out, given)
    with LiveView(quiet=quiet) as view:
        result = (
            loop.resume(Path(str(resume)), view=view) if config is None else loop.train(config, view=view)
        )
    if result.interrupted:
        notice(f"stopped at step {result.steps} and saved: octavo train --resume {result.folder}")
        sys.exit(INTERRUPTED)
    found = result.validation
    loss = f"loss {result.loss:.4f}"
    if found:
        loss = f"loss {found.loss:.4f}, {found.bits_per_byte:.4f} bits a byte"
        loss += "".join(f", {name} {value:.4f}" for name, value in found.scores.items())
    click.echo(
        f"{result.folder}: {result.steps} steps, {result.tokens:,} tokens, {result.seconds:.0f} s, {loss}"
    )
    notice(_next_step(result.folder))


def _config(model: str, out: str, given: dict[str, Any]) -> TrainingConfig:
    """The model's configuration; an option that it has not is an error that names it."""
    from octavo.training.config import config_class

    kind = config_class(model)
    known = {field.name for field in fields(kind)}
    for name in given:
        if name not in known:
            raise click.UsageError(f"{_flag(name)} does not belong to {model}.")
    if "columns" in given:
        given["columns"] = tuple(name.strip() for name in given["columns"].split(","))
    return kind(out=out, **given)


def _flag(name: str) -> str:
    """An option as it is written."""
    for parameter in command.params:
        if parameter.name == name:
            return str(parameter.opts[0])
    return name


def _next_step(folder: Path) -> str:
    """What can be done with the folder."""
    from octavo.training.config import read_config

    config = read_config(folder)
    curves = f"octavo report {folder} shows the curves"
    if config.model == "seq2seq":
        return f'octavo translate {folder} "..." translates; {curves}'
    if config.model == "bert" and getattr(config, "task", "") == "pretrain":
        return (
            f'octavo embed {folder} "..." makes vectors; --task classify --from {folder} fine-tunes; {curves}'
        )
    if config.model == "bert":
        return f"octavo eval {folder} --data FILE measures it; {curves}"
    return f'octavo run {folder} "..." continues a text; {curves}'
