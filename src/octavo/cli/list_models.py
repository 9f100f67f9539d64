"""octavo list: what is in the cache and what can be brought."""

from __future__ import annotations

import json
from dataclasses import dataclass

import click

from octavo.cli.rendering import notice, printable, reports_errors


@dataclass(frozen=True, slots=True)
class _Line:
    name: str
    size: int
    cached: bool
    licence: str
    description: str
    path: str | None


@click.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array.")
@reports_errors
def command(as_json: bool) -> None:
    """List the models in the cache, and the short names of those that can be brought."""
    from octavo.weights import hub

    lines = _lines()
    if as_json:
        fields = ("name", "size", "cached", "licence", "description", "path")
        click.echo(json.dumps([{field: getattr(line, field) for field in fields} for line in lines]))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for title in ("model", "size", "here", "licence", ""):
        table.add_column(
            title, justify="right" if title == "size" else "left", no_wrap=title in ("model", "size")
        )
    for line in lines:
        words = (line.name, f"{line.size / 1e6:,.0f} MB", "yes" if line.cached else "", line.licence)
        table.add_row(*(Text(printable(word)) for word in (*words, line.description)))
    Console().print(table)
    notice(f"cache: {hub.cache_folder()}")


def _lines() -> list[_Line]:
    from octavo.weights import hub

    cached = {model.name: model for model in hub.cached_models()}
    lines = []
    for name, known in hub.SHORT_NAMES.items():
        model = cached.pop(name, None)
        path = str(model.path) if model else None
        lines.append(_Line(name, known.size, model is not None, known.licence, known.description, path))
    lines += [
        _Line(name, model.size, True, "", model.entry, str(model.path)) for name, model in cached.items()
    ]
    return lines
