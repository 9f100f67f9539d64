"""octavo convert: an adapter in the form that llama.cpp reads."""

from __future__ import annotations

import json
from pathlib import Path

import click

from octavo.cli.rendering import notice, reports_errors


@click.command("convert", context_settings={"max_content_width": 110})
@click.argument("model")
@click.argument("adapter", type=click.Path(exists=True, file_okay=False))
@click.option(
    "--out", "-o", required=True, type=click.Path(dir_okay=False), help="A file that ends in .gguf."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@reports_errors
def command(model: str, adapter: str, out: str, as_json: bool) -> None:
    """Write ADAPTER, a folder of PEFT's or octavo's, as a GGUF adapter for llama.cpp.

    MODEL is its base, a GGUF file or a folder: names, shapes and the order of rows are checked against it.
    """
    from octavo.adapters.gguf_file import write_gguf_adapter
    from octavo.weights import hub
    from octavo.weights.adapter import read_adapter
    from octavo.weights.checkpoint import open_checkpoint

    path = Path(out)
    if path.suffix != ".gguf":
        raise click.UsageError(f"--out {out}: give a name that ends in .gguf.")
    config = open_checkpoint(hub.resolve(model)).config
    read = read_adapter(Path(adapter), config)
    write_gguf_adapter(read, config, path)
    if as_json:
        click.echo(json.dumps({"path": str(path), "pairs": len(read.pairs)}))
    else:
        click.echo(str(path))
        notice(f"llama-cli -m MODEL.gguf --lora {path}")
