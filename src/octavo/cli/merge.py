"""octavo merge: an adapter made part of its model."""

from __future__ import annotations

import json
from pathlib import Path

import click

from octavo.cli.rendering import notice, reports_errors
from octavo.cli.train import require_torch


@click.command("merge", context_settings={"max_content_width": 110})
@click.argument("model")
@click.argument("adapter", type=click.Path(exists=True, file_okay=False))
@click.option("--out", "-o", required=True, type=click.Path(), help="A folder, or a file that ends in .gguf.")
@click.option(
    "--quantize", type=click.Choice(["bf16", "f32", "q8_0"]), default="bf16", show_default=True,
    help="The number format of the merged matrices.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@reports_errors
def command(model: str, adapter: str, out: str, quantize: str, as_json: bool) -> None:
    """Write MODEL with ADAPTER in it: a GGUF file of a GGUF file, a folder of a folder.

    The base's own values, unpacked if they are quantized, get the adapter's product added in float32: that is
    what the adapter was trained on.  bf16 keeps it; smaller formats quantize the sum anew.
    """
    require_torch()
    from octavo.adapters.merge import TYPES, merge
    from octavo.weights import hub
    from octavo.weights.adapter import read_adapter
    from octavo.weights.checkpoint import open_checkpoint

    checkpoint = open_checkpoint(hub.resolve(model))
    path = merge(checkpoint, read_adapter(Path(adapter), checkpoint.config), Path(out), TYPES[quantize])
    if as_json:
        click.echo(json.dumps({"path": str(path), "quantize": quantize}))
    else:
        click.echo(str(path))
        notice(f'octavo run {path} "..."')
