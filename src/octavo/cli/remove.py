"""octavo remove: take models out of the cache."""

from __future__ import annotations

import click

from octavo.cli.rendering import reports_errors


@click.command("remove")
@click.argument("models", nargs=-1, required=True, metavar="MODEL...")
@reports_errors
def command(models: tuple[str, ...]) -> None:
    """Remove models from the cache, and what an interrupted download left there.

    MODEL is named as in octavo list.  A file that you gave by its path is never removed.
    """
    from octavo.errors import ModelNotFoundError
    from octavo.weights import hub

    for model in models:
        key, _ = hub.find_cached(model)
        freed = hub.remove(key)
        if not freed:
            raise ModelNotFoundError(f"{model} is not in the cache; octavo list shows what is")
        click.echo(f"{model}: {freed / 1e6:,.1f} MB freed")
