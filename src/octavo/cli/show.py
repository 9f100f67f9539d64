"""octavo show: what a model is and what it needs."""

from __future__ import annotations

import json
import math
from collections import Counter
from typing import TYPE_CHECKING

import click

from octavo.cli.rendering import ProgressBar, printable, reports_errors

if TYPE_CHECKING:
    from octavo.decoding.kv_cache import KVChoice
    from octavo.weights.checkpoint import Checkpoint

MEGABYTE = 1e6


@click.command("show")
@click.argument("model")
@click.option("--context", type=click.IntRange(min=1), help="Count the memory for this many tokens.")
@click.option("--kv-type", type=click.Choice(["auto", "f16", "int8"]), default="auto", show_default=True)
@click.option("--offline", is_flag=True, help="Never use the network.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@reports_errors
def command(model: str, context: int | None, kv_type: KVChoice, offline: bool, as_json: bool) -> None:
    """Print a model's architecture, parameters, tensor formats, licence, and the memory that it will need."""
    from octavo.weights import hub
    from octavo.weights.checkpoint import open_checkpoint

    with ProgressBar("bringing the model", quiet=as_json, byte_sizes=True) as progress:
        path = hub.resolve(model, progress=progress, offline=offline)
    checkpoint = open_checkpoint(path)
    known = hub.SHORT_NAMES.get(model)
    report = describe(checkpoint, context, kv_type, licence=known.licence if known else None)
    if as_json:
        click.echo(json.dumps(report, ensure_ascii=False))
    else:
        _print(report)


def describe(
    checkpoint: Checkpoint,
    context: int | None,
    kv_choice: KVChoice,
    *,
    licence: str | None = None,
) -> dict[str, object]:
    """Facts of a model as a JSON object.  licence: what is known where the file does not say."""
    from octavo.decoding.kv_cache import kv_bytes, resolve_kv_type

    config = checkpoint.config
    kv_type = resolve_kv_type(kv_choice, config)
    tensors = checkpoint.tensors.values()
    formats: Counter[str] = Counter()
    for tensor in tensors:
        formats[tensor.type.name] += tensor.data.nbytes
    context = min(context or 4096, config.context_length)
    weights = sum(formats.values())
    cache = kv_bytes(config, kv_type) * context
    return {
        "name": str(checkpoint.metadata.get("name") or checkpoint.path.name),
        "path": str(checkpoint.path),
        "format": str(checkpoint.metadata.get("format") or ""),
        "license": str(checkpoint.metadata.get("license") or licence or "") or None,
        "architecture": config.architecture,
        "parameters": sum(math.prod(tensor.shape) for tensor in tensors),
        "layers": config.layers,
        "hidden_size": config.hidden_size,
        "heads": config.heads,
        "key_value_heads": config.key_value_heads,
        "vocabulary_size": config.vocabulary_size,
        "context_length": config.context_length,
        "sliding_window": max(config.windows, default=0) or None,
        "chat_template": checkpoint.chat_template is not None,
        "tensor_formats": dict(formats.most_common()),
        "weight_bytes": weights,
        "context": context,
        "kv_type": kv_type,
        "kv_bytes": cache,
        "memory_bytes": weights + cache,
    }


def _print(report: dict[str, object]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for title, value in _rows(report):
        table.add_row(title, Text(printable(value)))
    Console().print(table)


def _rows(report: dict[str, object]) -> list[tuple[str, str]]:
    def megabytes(name: str) -> str:
        value = report[name]
        assert isinstance(value, int)
        return f"{value / MEGABYTE:,.0f} MB"

    formats, parameters = report["tensor_formats"], report["parameters"]
    assert isinstance(formats, dict) and isinstance(parameters, int)
    window = f", sliding window {report['sliding_window']}" if report["sliding_window"] else ""
    heads = f"{report['heads']} heads ({report['key_value_heads']} of keys and values)"
    return [
        ("name", str(report["name"])),
        ("path", str(report["path"])),
        ("format", str(report["format"])),
        ("licence", str(report["license"] or "not stated in the file")),
        ("architecture", f"{report['architecture']}: {report['layers']} layers, {heads}{window}"),
        ("parameters", f"{parameters / 1e6:,.1f} million"),
        ("vocabulary", f"{report['vocabulary_size']:,} tokens"),
        ("context", f"{report['context_length']:,} tokens at most"),
        ("chat template", "yes" if report["chat_template"] else "no: octavo run continues the text"),
        ("tensors", ", ".join(f"{name} {size / MEGABYTE:,.1f} MB" for name, size in formats.items())),
        (
            "memory",
            f"{megabytes('memory_bytes')}: weights {megabytes('weight_bytes')}, "
            f"keys and values of {report['context']:,} tokens {megabytes('kv_bytes')} ({report['kv_type']})",
        ),
    ]
