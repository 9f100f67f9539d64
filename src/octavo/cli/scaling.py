"""octavo scaling: laws from runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import click

from octavo.cli.rendering import notice, reports_errors


@click.group("scaling", context_settings={"max_content_width": 110})
def command() -> None:
    """Laws from runs: what more parameters, data and compute bring."""


@command.command("fit")
@click.argument("runs", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--estimator", type=click.Choice(["huber", "lad"]), default="huber", show_default=True)
@click.option("--delta", type=click.FloatRange(0, min_open=True), default=1e-3, show_default=True)
@click.option(
    "--bootstrap", type=click.IntRange(0, 100_000), default=1000, show_default=True, help="Resamples."
)
@click.option(
    "--compute", type=click.FloatRange(0, min_open=True), help="Predict the best run of this many FLOPs."
)
@click.option(
    "--report", type=click.Path(dir_okay=False, path_type=Path), help="One HTML page with all figures."
)
@click.option("--figures", type=click.Path(file_okay=False, path_type=Path), help="A folder for PNG and SVG.")
@click.option("--json", "as_json", is_flag=True)
@reports_errors
def fit(
    runs: Path,
    estimator: Literal["huber", "lad"],
    delta: float,
    bootstrap: int,
    compute: float | None,
    report: Path | None,
    figures: Path | None,
    as_json: bool,
) -> None:
    """Chinchilla's three approaches and Kaplan's form on RUNS: a sweep's store, CSV, JSON or JSONL.

    Columns: parameters (or N), tokens (or D) or compute (or C), loss, and unique tokens where data was
    repeated.
    """
    _require_scipy()
    from octavo.scaling.records import read_runs
    from octavo.scaling.summary import summarize

    table = read_runs(runs)
    found = summarize(table, estimator=estimator, delta=delta, resamples=bootstrap, compute=compute)
    if report is not None or figures is not None:
        from octavo.scaling.report import write_figures, write_scaling_report

        store = runs if runs.suffix in (".db", ".sqlite") else None
        if figures is not None:
            write_figures(table, figures, store=store)
        if report is not None:
            write_scaling_report(table, found, report, store=store)
            notice(f"{report} has the figures")
    if as_json:
        click.echo(json.dumps(found))
    else:
        _show(found)


def _require_scipy() -> None:
    from importlib.util import find_spec

    if find_spec("scipy") is None:
        raise click.ClickException("this verb needs scipy: pip install 'octavo[scaling]'")


def _show(found: dict[str, Any]) -> None:
    click.echo(f"{found['runs']} runs, C from {found['compute'][0]:.2e} to {found['compute'][1]:.2e} FLOPs")
    for convention, law in found["conventions"].items():
        click.echo(
            f"{convention:>13}: L = {law['E']:.4f} + {law['A']:.4g} / N^{law['alpha']:.4f} + "
            f"{law['B']:.4g} / "
            f"D^{law['beta']:.4f};  N* ~ C^{law['a']:.3f};  residual {100 * law['residual']:.2f} %"
        )
    for name, (low, high) in found["intervals"].items():
        click.echo(f"{name:>13}: {low:.4g} to {high:.4g} (80 %, resampled)")
    for name, each in found["profiles"].items():
        word = "" if each["identified"] else ": NOT identified by these runs"
        click.echo(
            f"{name:>13}: {each['interval'][0]:.4g} to {each['interval'][1]:.4g} (90 %, profile){word}"
        )
    for method, value in found["approaches"].items():
        click.echo(f"{method:>13}: N* ~ C^{value:.3f}")
    if found["left_out_error"] is not None:
        click.echo(
            f"the largest budget, predicted from the others: {100 * found['left_out_error']:.2f} % off"
        )
    if found["prediction"]:
        p = found["prediction"]
        click.echo(
            f"C {p['compute']:.3g}: N* {p['parameters']:.4g}, D* {p['tokens']:.4g}, loss {p['loss']:.4f} "
            f"[{p['low']:.4f}, {p['high']:.4f}] at {100 * p['level']:.0f} %, {p['ratio']:.1f} x the "
            f"largest budget"
        )
    for warning in found["warnings"]:
        click.echo(f"warning: {warning}")
