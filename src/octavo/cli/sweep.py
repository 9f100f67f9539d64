"""octavo sweep: a ladder of small models, run so that nothing is lost or done twice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from octavo.cli.rendering import notice, reports_errors
from octavo.cli.train import require_torch

if TYPE_CHECKING:
    from octavo.scaling.sweeping.store import Store

_STORE = click.option(
    "--store",
    "store_path",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("sweep/sweep.db"),
    show_default=True,
    help="The SQLite file; checkpoints lie beside it.",
)
_WORKERS = click.option(
    "--workers", type=click.IntRange(1), help="Processes of one thread. Default: the cores."
)
_RAY = click.option("--ray", "ray_address", help="Run on the Ray cluster at ADDRESS ('local' for one here).")
_HELD_OUT = click.option(
    "--held-out",
    type=click.FloatRange(0, min_open=True),
    help="After the ladder: write down a prediction for this many FLOPs, then run it.",
)


@click.group("sweep", context_settings={"max_content_width": 110})
def command() -> None:
    """Many small runs, from which octavo scaling fit and octavo plan conclude."""


@command.command("run")
@click.argument("ladder", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@_STORE
@_WORKERS
@_RAY
@_HELD_OUT
@reports_errors
def run(
    ladder: Path, store_path: Path, workers: int | None, ray_address: str | None, held_out: float | None
) -> None:
    """Run a ladder.toml; runs that are in the store already are not run again."""
    require_torch()
    from octavo.scaling.sweeping.ladder import read_ladder
    from octavo.scaling.sweeping.runner import begin
    from octavo.scaling.sweeping.store import Store

    parsed = read_ladder(ladder)
    with Store(store_path, owner=True) as store:
        facts = begin(parsed, store)
        notice(
            f"corpus: {facts.tokens:,} tokens of {facts.bytes:,} bytes; {len(store.runs())} runs in "
            f"{store_path}"
        )
        _go_on(store, workers, ray_address, held_out)


@command.command("resume")
@_STORE
@_WORKERS
@_RAY
@_HELD_OUT
@click.option("--retry", is_flag=True, help="Failed runs, too.")
@reports_errors
def resume(
    store_path: Path, workers: int | None, ray_address: str | None, held_out: float | None, retry: bool
) -> None:
    """Go on with what is pending, from its checkpoints."""
    require_torch()
    from octavo.scaling.sweeping.store import Store

    with Store(store_path, owner=True) as store:
        store.sweep()
        if retry:
            store.retry_failed()
        _go_on(store, workers, ray_address, held_out)


@command.command("status")
@_STORE
@click.option("--json", "as_json", is_flag=True)
@reports_errors
def status(store_path: Path, as_json: bool) -> None:
    """What is done, running and pending, and how predictions fared."""
    from octavo.scaling.sweeping.store import Store

    with Store(store_path) as store:
        runs = [dict(row) for row in store.runs()]
        verdicts = _verdicts(store)
    if as_json:
        click.echo(json.dumps({"runs": runs, "predictions": verdicts}))
        return
    click.echo(f"{'FLOPs':>8} {'N':>9} {'tokens':>12} {'role':<13} {'seed':>4} {'status':<8} loss")
    for row in runs:
        loss = f"{row['loss']:.4f}" if row["loss"] is not None else (row["error"] or "")
        click.echo(
            f"{row['budget']:>8.1e} {row['n_active']:>9,} {row['tokens']:>12,} {row['role']:<13} "
            f"{row['seed']:>4} "
            f"{row['status']:<8} {loss}"
        )
    for each in verdicts:
        click.echo(verdict_line(each))


def verdict_line(each: dict[str, Any]) -> str:
    """One line about a prediction and what was seen."""
    return (
        f"C {each['compute']:.2e}, N {each['parameters']:,}{' (best)' if each['best'] else ''}: predicted "
        f"{each['predicted']:.4f} [{each['low']:.4f}, {each['high']:.4f}], seen {each['seen']:.4f}: "
        f"{100 * each['error']:+.2f} %, {'inside' if each['inside'] else 'OUTSIDE'}"
    )


def _verdicts(store: Store) -> list[dict[str, Any]]:
    if not store.predictions():
        return []
    from octavo.scaling.sweeping.held_out import judge

    return judge(store)


def _go_on(store: Store, workers: int | None, ray_address: str | None, held_out: float | None) -> None:
    from octavo.machine import default_threads

    count = workers or default_threads()
    left = _run_all(store, count, ray_address)
    if held_out is not None and not left:
        from octavo.scaling.sweeping.held_out import register

        name, runs = register(store, held_out)
        notice(f"prediction {name[:16]} is written down; {len(runs)} runs of {held_out:.2e} FLOPs follow")
        left = _run_all(store, count, ray_address)
    for each in _verdicts(store):
        click.echo(verdict_line(each))
    if left:
        raise click.ClickException(f"{left} runs are left: octavo sweep status --store {store.path} says why")
    notice(f"all {len(store.runs())} runs are done; what they say: octavo scaling fit {store.path}")


def _run_all(store: Store, workers: int, ray_address: str | None) -> int:
    """Runs that are left; a line for each that is done, and on a terminal a bar."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from octavo.scaling.sweeping.runner import run_all

    rows = {row["id"]: row for row in store.runs()}
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, transient=True, console=console, disable=not console.is_terminal) as bar:
        done = sum(row["status"] == "done" for row in rows.values())
        task = bar.add_task("runs", total=len(rows), completed=done)

        def tell(event: dict[str, Any]) -> None:
            if event["event"] == "done":
                bar.advance(task)
                row = rows[event["run"]]
                console.print(
                    f"{row['budget']:.1e} FLOPs, {row['n_active']:,} parameters: loss {event['loss']:.4f}",
                    highlight=False,
                )
            elif event["event"] in ("ended", "failed", "store"):
                console.print(f"{event.get('run', 'store')[:16]}: {event.get('error')}", style="yellow")

        if ray_address is not None:
            from octavo.scaling.sweeping.ray_cluster import run_all_on_ray

            counts = run_all_on_ray(store, ray_address, tell=tell)
        else:
            counts = run_all(store, workers=workers, tell=tell)
    return int(counts["pending"] + counts["failed"])
