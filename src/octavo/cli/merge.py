"""octavo merge: an adapter made part of its model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from octavo.cli.rendering import notice, reports_errors
from octavo.cli.train import require_torch

if TYPE_CHECKING:
    from octavo.training.merging import TargetLoss
    from octavo.weights.adapter import Adapter
    from octavo.weights.checkpoint import Checkpoint


@click.command("merge", context_settings={"max_content_width": 110})
@click.argument("model")
@click.argument("adapter", type=click.Path(exists=True, file_okay=False))
@click.option("--out", "-o", required=True, type=click.Path(), help="A folder, or a file that ends in .gguf.")
@click.option(
    "--quantize", type=click.Choice(["bf16", "f32", "q8_0", "q4_1", "q4_0"]), default="bf16",
    show_default=True, help="The number format of the merged matrices.",
)  # fmt: skip
@click.option("--original", help="The 16-bit model that MODEL was quantized from: merge into it instead.")
@click.option(
    "--held-out", multiple=True, help="Rows, as of octavo tune, to print the loss of each way to merge."
)
@click.option("--rows", type=click.IntRange(1), default=64, show_default=True, help="How many of them.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@reports_errors
def command(
    model: str,
    adapter: str,
    out: str,
    quantize: str,
    original: str | None,
    held_out: tuple[str, ...],
    rows: int,
    as_json: bool,
) -> None:
    """Write MODEL with ADAPTER in it: a GGUF file of a GGUF file, a folder of a folder.

    The base's own values, unpacked if they are quantized, get the adapter's product added in float32: that is
    what the adapter was trained on.  bf16 keeps it; smaller formats quantize the sum anew.
    """
    require_torch()
    from octavo.adapters.encoding import TYPES
    from octavo.adapters.merge import merge
    from octavo.weights import hub
    from octavo.weights.adapter import read_adapter
    from octavo.weights.checkpoint import open_checkpoint

    base = open_checkpoint(hub.resolve(model))
    source = base if original is None else open_checkpoint(hub.resolve(original))
    read = read_adapter(Path(adapter), base.config)
    losses = _measure(base, read, held_out, rows, quantize, source) if held_out else []
    path = merge(source, read_adapter(Path(adapter), source.config), Path(out), TYPES[quantize])
    if as_json:
        measured = {each.target: each.loss for each in losses}
        click.echo(json.dumps({"path": str(path), "quantize": quantize, "losses": measured}))
        return
    for each in losses:
        click.echo(f"{each.target:20} loss {each.loss:.4f}")
    click.echo(str(path))
    notice(f'octavo run {path} "..."')


def _measure(
    base: Checkpoint,
    adapter: Adapter,
    held_out: tuple[str, ...],
    rows: int,
    quantize: str,
    source: Checkpoint,
) -> list[TargetLoss]:
    """The loss of every target on held-out rows; where nothing smaller is asked for, of 8 bits."""
    from octavo.adapters.encoding import TYPES
    from octavo.training.held_out import read_held_out
    from octavo.training.merging import measure_targets
    from octavo.training.tuning import make_encoder

    paths = [Path(name).expanduser() for name in held_out]
    context = min(1024, base.config.context_length)
    examples = read_held_out(paths, make_encoder(base), rows=rows, context=context)
    kind = TYPES[quantize if quantize.startswith("q") else "q8_0"]
    return list(measure_targets(base, adapter, examples, kind, None if source is base else source))
