"""octavo report: one page with the curves of a training run."""

from __future__ import annotations

from pathlib import Path

import click

from octavo.cli.rendering import reports_errors


@click.command("report", context_settings={"max_content_width": 110})
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@reports_errors
def command(folder: Path) -> None:
    """Write FOLDER/report.html: loss, learning rate, gradients and speed of the run, and what it writes."""
    from octavo.training.report import write_report

    click.echo(write_report(folder))
