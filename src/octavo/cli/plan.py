"""octavo plan: the model that data, machine and hours are best spent on."""

from __future__ import annotations

import json
import math
import re
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from octavo.cli.rendering import notice, reports_errors
from octavo.cli.train import require_torch

if TYPE_CHECKING:
    from octavo.scaling.planning.plan import Plan

_UNITS = {"": 1.0, "KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}
_PILOT_VOCABULARY, _PILOT_CONTEXT = 512, 128
_PILOT_SIZE = 2e5  # parameters of a run in the middle of a pilot


@click.command("plan", context_settings={"max_content_width": 110})
@click.option("--data", "-d", multiple=True, help="File or folder; repeatable. Default: Python's own source.")
@click.option("--hours", type=click.FloatRange(0, min_open=True), required=True)
@click.option(
    "--from",
    "store_path",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A sweep's store: the evidence.",
)
@click.option("--serve-tokens", type=click.FloatRange(0), default=0.0, help="Tokens that will be served.")
@click.option("--bits", default="", help="Bits of the weights when served, for example 4,8,16.")
@click.option("--max-memory", "--max-ram", default="", help="For example 8GB. Default: what is there.")
@click.option("--out", "-o", default="my-model", show_default=True, help="The folder in the train command.")
@click.option(
    "--card", type=click.Path(dir_okay=False, path_type=Path), help="A figure of the plan (PNG or SVG)."
)
@click.option("--json", "as_json", is_flag=True)
@reports_errors
def command(
    data: tuple[str, ...],
    hours: float,
    store_path: Path | None,
    serve_tokens: float,
    bits: str,
    max_memory: str,
    out: str,
    card: Path | None,
    as_json: bool,
) -> None:
    """Shape, tokens, batch and learning rate for the hours you have, with the loss to expect.

    The law comes from a sweep on your data (--from). Without one, the answer is a ladder to run first.
    """
    require_torch()
    memory, widths = _bytes(max_memory), _bits(bits)
    if store_path is None:
        _write_pilot(data, hours)
        return
    found, ladder, corpus, speed = _evidence(store_path)
    from octavo.scaling.planning.plan import plan, train_command

    answer = plan(
        ladder,
        found,
        speed,
        corpus=corpus["fingerprint"],
        unique_tokens=corpus["tokens"] - ladder.validation_tokens,
        bytes_per_token=corpus["bytes"] / corpus["tokens"],
        hours=hours,
        serve_tokens=serve_tokens,
        bits=widths,
        most_memory=memory,
    )
    paths = data or ladder.data
    line = train_command(answer, paths, out, str(store_path.parent / "corpus" / "tokenizer.json"))
    if card is not None:
        from octavo.scaling.report import write_plan_card

        write_plan_card(answer, card)
    if as_json:
        click.echo(json.dumps({**asdict(answer), "command": line, "perplexity": answer.perplexity}))
    else:
        _show(answer, line)
    if answer.refusals:
        raise click.ClickException("this evidence does not carry the plan: see above for the next run to do")


def _evidence(store_path: Path) -> tuple[Any, Any, dict[str, Any], Any]:
    from octavo.scaling.planning.throughput import measure
    from octavo.scaling.records import runs_of_store
    from octavo.scaling.sweeping.held_out import fit_ladder
    from octavo.scaling.sweeping.ladder import ladder_of
    from octavo.scaling.sweeping.store import Store

    with Store(store_path) as store:
        values, corpus = store.sweep()
        ladder = ladder_of(values, str(store_path))
        try:
            found = fit_ladder(runs_of_store(store, roles=("ladder", "seed", "held-out")))
        except ValueError as error:
            raise click.ClickException(f"{store_path}: {error}") from error
    notice("measuring how fast this machine trains, about half a minute")
    speed = measure(ladder.vocabulary, ladder.context, optimizer=ladder.optimizer, precision=ladder.precision)
    return found, ladder, corpus, speed


def _write_pilot(data: tuple[str, ...], hours: float) -> None:
    """A ladder that takes about a tenth of the time: no evidence, no number."""
    from octavo.data.sources import data_paths, list_files
    from octavo.scaling.planning.throughput import measure

    files = list_files(data_paths(data))
    size = sum(path.stat().st_size for path in files)
    notice("measuring how fast this machine trains, about half a minute")
    speed = measure(_PILOT_VOCABULARY, _PILOT_CONTEXT)
    rate = speed.rate(_PILOT_SIZE)
    # Of a tenth of the time; a ladder has six runs or so of each budget, each three times the one before.
    largest = min(1e14, 0.1 * hours * 3600 * rate / (6 * (1 + 1 / 3 + 1 / 10)))
    budgets = [float(f"{largest / part:.1e}") for part in (10, 3, 1)]
    resolved = [name if ":" in name else str(Path(name).expanduser().resolve()) for name in data]
    names = json.dumps(resolved or ["stdlib:"])
    path = Path("pilot.toml")
    path.write_text(
        f'# A tenth of {hours:g} hours.\nname = "pilot"\ndata = {names}\nvocabulary = {_PILOT_VOCABULARY}\n'
        f'context = {_PILOT_CONTEXT}\nbudgets = {budgets}\nseeds = 2\nprecision = "{speed.precision}"\n',
        encoding="utf-8",
    )
    tokens = size / 2.2
    n = math.sqrt(rate * hours * 3600 / 6 / 20)
    click.echo(
        f"the data: {size / 1e6:.1f} MB in {len(files)} files, about {tokens / 1e6:.1f} million tokens of 512"
    )
    click.echo(
        f"prior only: without runs on this corpus about {n / 3:,.0f} to {n * 3:,.0f} parameters (10 to "
        f"200 tokens a "
        "parameter); no loss can be promised"
    )
    click.echo("first the evidence, about a tenth of the time:")
    click.echo(f"  octavo sweep run {path} --store sweep/sweep.db")
    click.echo(f"  octavo plan --hours {hours:g} --from sweep/sweep.db")


def _show(answer: Plan, line: str) -> None:
    c, p = answer.run.config, answer.prediction
    rows = [
        ("shape", f"{c.layers} layers of {c.hidden}, vocabulary {c.vocabulary}, context {c.context}"),
        (
            "parameters",
            f"{answer.count.active:,} in products; {answer.count.total:,} in all; "
            f"{answer.count.nonembedding:,} without embeddings",
        ),
        (
            "tokens",
            f"{c.tokens:,} ({answer.epochs:.2f} epochs, {c.tokens / answer.count.active:.0f} a parameter)",
        ),
        (
            "steps",
            f"{c.steps:,} of {c.batch_tokens:,} tokens; learning rate {c.learning_rate:.3g}, cosine, 5 "
            f"% warm-up",
        ),
        ("memory", f"{answer.memory_bytes / 1e6:,.0f} MB"),
        (
            "loss",
            f"{p.loss:.4f} [{p.low:.4f}, {p.high:.4f}] at {100 * p.level:.0f} %; "
            f"{answer.bits_per_byte:.4f} bits a "
            f"byte; perplexity {answer.perplexity:.2f}",
        ),
        (
            "as good",
            f"{answer.flat[0]:,} to {answer.flat[1]:,} parameters are within 1 %; twice wrong costs "
            f"{100 * (answer.twice_wrong / p.loss - 1):.1f} %",
        ),
        ("one hour more", f"{answer.one_hour_more - p.loss:+.4f}"),
        ("10 % more data", f"{answer.ten_percent_data - p.loss:+.4f}"),
    ]
    if answer.serving is not None:
        n, d, _ = answer.serving
        rows.append(
            ("served", f"the same loss for least FLOPs in all: {n:,.0f} parameters on {d:,.0f} tokens")
        )
    for each in answer.bits:
        words = f"{each.parameters:,} parameters, loss {each.loss:.4f}, {each.tokens_per_parameter:.0f} "
        "tokens a parameter"
        rows.append((f"in {each.bits} bits", words))
    for name, text in rows:
        click.echo(f"{name:>15}  {text}")
    click.echo(f"\n{line}\n")
    for warning in answer.warnings:
        click.echo(f"warning: {warning}")
    for refusal in answer.refusals:
        click.echo(f"refused: {refusal}")
    if answer.next_run is not None:
        hidden, layers, budget = answer.next_run
        click.echo(f"the next run that would help most: {layers} layers of {hidden} on {budget:.2g} FLOPs")


def _bytes(text: str) -> float:
    if not text:
        from octavo.machine import available_memory

        return float(available_memory())
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?B)?", text.strip().upper())
    if found is None:
        raise click.UsageError(f"--max-memory {text}: a number and a unit, such as 8GB")
    return float(found[1]) * _UNITS[found[2] or ""]


def _bits(text: str) -> tuple[int, ...]:
    try:
        found = tuple(int(word) for word in text.split(",") if word)
    except ValueError:
        found = (0,)
    if any(not 1 <= k <= 32 for k in found):
        raise click.UsageError(f"--bits {text}: whole numbers from 1 to 32, such as 4,8,16")
    return found
