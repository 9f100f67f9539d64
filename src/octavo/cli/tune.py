"""octavo tune: a model of somebody else, fitted to your own rows."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from octavo.cli.rendering import INTERRUPTED, notice, reports_errors, warning
from octavo.cli.train import require_torch

if TYPE_CHECKING:
    from octavo.training.tuning import Tuning

_PREVIEWED = 3


@click.command("tune", context_settings={"max_content_width": 110})
@click.argument("model", required=False)
@click.option(
    "--data", "-d", multiple=True, help="Rows: .jsonl, .json, .csv, .tsv, .parquet, .txt; repeatable."
)
@click.option("--out", "-o", type=click.Path(file_okay=False), help="The folder that becomes the adapter.")
@click.option("--resume", type=click.Path(exists=True, file_okay=False), help="Go on with the run in DIR.")
@click.option("--preview", is_flag=True, help="Show the first rows, what is learned in green, and stop.")
@click.option(
    "--method", type=click.Choice(["lora", "qlora", "full"]), default="lora", show_default=True,
    help="qlora keeps the base in 4 bits.",
)  # fmt: skip
@click.option("--rank", type=click.IntRange(1), default=16, show_default=True)
@click.option("--alpha", type=click.FloatRange(0, min_open=True), default=32.0, show_default=True)
@click.option(
    "--target", "targets", multiple=True, help="A kind of layer, as q_proj; repeatable. Default: all."
)
@click.option("--adapter-dropout", type=click.FloatRange(0, 1, max_open=True), default=0.0, show_default=True)
@click.option("--rslora", "rank_stabilized", is_flag=True, help="Scale by alpha / sqrt(rank).")
@click.option("--dora", "decomposed", is_flag=True, help="Train the length of each row too (DoRA).")
@click.option("--lora-plus", "up_rate", type=click.FloatRange(0, min_open=True), default=1.0,
              help="Learning rate of B by that of A (LoRA+; 16 is usual).")  # fmt: skip
@click.option("--steps", type=click.IntRange(1), help="Updates.")
@click.option("--epochs", type=click.FloatRange(0, min_open=True), default=1.0, show_default=True)
@click.option("--minutes", type=click.FloatRange(0, min_open=True), help="Tune for so long.")
@click.option("--batch", type=click.IntRange(1), default=8, show_default=True, help="Rows of an update.")
@click.option(
    "--context", type=click.IntRange(8), default=1024, show_default=True, help="Most tokens of a row."
)
@click.option("--cut", is_flag=True, help="Train on the beginning of longer rows instead of refusing them.")
@click.option("--validation", type=click.FloatRange(0, 1, max_open=True), default=0.05, show_default=True,
              help="Part of the rows that is kept back.")  # fmt: skip
@click.option(
    "--patience", type=click.IntRange(0), default=0, help="Stop after so many validations without gain."
)
@click.option("--learning-rate", type=click.FloatRange(0, min_open=True))
@click.option(
    "--optimizer", type=click.Choice(["adamw", "adam", "lion", "sgd"]), default="adamw", show_default=True
)
@click.option("--schedule", type=click.Choice(["cosine", "linear", "constant", "warmup_stable_decay"]),
              default="cosine", show_default=True)  # fmt: skip
@click.option(
    "--precision", type=click.Choice(["auto", "bfloat16", "float32"]), default="auto", show_default=True
)
@click.option(
    "--products", type=click.Choice(["auto", "int8", "bfloat16"]), default="auto", show_default=True,
    help="What frozen layers are multiplied in; int8 is faster where the processor multiplies bytes.",
)  # fmt: skip
@click.option(
    "--recompute",
    is_flag=True,
    help="Keep one block's activations (gradient checkpointing): slower, smaller.",
)
@click.option("--paged", is_flag=True, help="Keep the optimizer's state in a file, not in memory.")
@click.option(
    "--base-format", type=click.Choice(["nf4", "q8_0", "q4_1", "q4_0"]), default="nf4", show_default=True,
    help="What qlora makes of float weights; quantized files stay as they are.",
)  # fmt: skip
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--save-minutes", type=click.FloatRange(0), default=5.0, show_default=True)
@click.option("--save-steps", type=click.IntRange(1))
@click.option("--validate-steps", type=click.IntRange(1), help="Default: ten times in a run.")
@click.option("--threads", type=click.IntRange(1), help="Default: what this process may really use.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object at the end.")
@click.option("--quiet", "-q", is_flag=True, help="Nothing on the screen but the result.")
@reports_errors
def command(
    model: str | None,
    out: str | None,
    resume: str | None,
    preview: bool,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Fine-tune a model (LoRA, QLoRA, or all of it) on the CPU.

    octavo tune MODEL --data chat.jsonl --out my-adapter, then octavo run MODEL --adapter my-adapter "...".
    Rows are conversations (messages, ShareGPT), prompts and completions, or texts.  Only the words of the
    assistant are learned: --preview shows which.  Ctrl-C saves first; --resume DIR goes on exactly there.
    """
    require_torch()
    from octavo.training import tuning
    from octavo.training.live_view import LiveView
    from octavo.training.tuning_config import TuningConfig

    if resume is not None:
        with LiveView(quiet=quiet or as_json) as view:
            result = tuning.resume_tuning(Path(resume), view=view)
    else:
        if model is None or not options["data"]:
            raise click.UsageError("give MODEL and --data FILE, or --resume DIR.")
        if out is None and not preview:
            raise click.UsageError("give --out DIR for the adapter, or --preview to look at the rows.")
        given = {name: value for name, value in options.items() if value not in (None, ())}
        task = tuning.prepare(TuningConfig(out=out or "", base=model, **given))
        if preview:
            _preview(task)
            return
        if not (quiet or as_json):
            _announce(task)
        with LiveView(quiet=quiet or as_json) as view:
            result = tuning.tune(task, view=view)
    _conclude(result, as_json)


def _conclude(result: Any, as_json: bool) -> None:
    if result.interrupted:
        notice(f"stopped at step {result.steps} and saved: octavo tune --resume {result.folder}")
        sys.exit(INTERRUPTED)
    kept = result.validation.loss if result.validation else None
    if as_json:
        facts = {"folder": str(result.folder), "steps": result.steps, "tokens": result.tokens,
                 "seconds": result.seconds, "loss": result.loss, "validation_loss": kept}  # fmt: skip
        click.echo(json.dumps(facts))
        return
    loss = f"loss {result.loss:.4f}" if kept is None else f"loss {kept:.4f} on the rows kept back"
    click.echo(
        f"{result.folder}: {result.steps} steps, {result.tokens:,} tokens, {result.seconds:.0f} s, {loss}"
    )
    notice(
        f'octavo run MODEL --adapter {result.folder} "..."; octavo report {result.folder} shows the curves'
    )


def _announce(task: Tuning) -> None:
    """What will be trained, on what, and what it will take."""
    from octavo import machine
    from octavo.training.live_view import peak_flops
    from octavo.training.tuning import estimate

    rows, config = task.rows, task.config
    found = estimate(task, peak_flops(config.precision))
    in_bytes = ", frozen layers multiply in int8" if task.in_bytes else ""
    cut = f", {rows.cut} cut to {config.context} tokens" if rows.cut else ""
    notice(
        f"{len(rows.training)} rows to learn, {len(rows.kept)} kept back{cut}; "
        f"{rows.learned_share:.0%} of the tokens are learned"
    )
    notice(
        f"{config.method}: {found.parameters:,} parameters are trained{in_bytes}; about "
        f"{found.memory_bytes / 2**30:.1f} GiB and {max(found.seconds / 60, 0.1):.1f} minutes"
    )
    there = machine.available_memory()
    if found.memory_bytes > there:
        warning(f"{there / 2**30:.1f} GiB are available: try --method qlora or a smaller --context")


def _preview(task: Tuning) -> None:
    rows, encoder = task.rows, task.encoder
    for example in rows.training[:_PREVIEWED]:
        click.secho(
            f"--- {example.where}: {len(example.tokens)} tokens, {int(example.learned.sum())} learned",
            dim=True,
        )
        begin = 0
        for end in range(1, len(example.tokens) + 1):
            if end == len(example.tokens) or example.learned[end] != example.learned[begin]:
                text = encoder.tokenizer.decode(
                    example.tokens[begin:end].tolist(), skip_special=False, continuation=True
                )
                text = "".join(each if each.isprintable() or each == "\n" else "?" for each in text)
                click.secho(text, fg="green" if example.learned[begin] else None, nl=False)
                begin = end
        click.echo()
    click.echo(f"{rows.learned_share:.1%} of the tokens in {len(rows.training)} rows are learned")
