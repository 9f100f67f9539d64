"""One page about a run that needs nothing beside it: curves, configuration, the last sample."""

from __future__ import annotations

import html
import io
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from octavo.errors import FormatError, UnsupportedError
from octavo.training.config import read_config
from octavo.training.metrics import read_metrics
from octavo.training.tuning_config import FILE_NAME as TUNING_NAME
from octavo.training.tuning_config import read_tuning

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
svg { width: 100%; height: auto } table { border-collapse: collapse } td { padding: .1rem 1rem .1rem 0 }
pre { background: #f4f4f4; padding: 1rem; white-space: pre-wrap } h2 { margin-top: 2rem }
"""
# (title, unit of the vertical axis, names of the metrics)
_CURVES = (
    ("Loss", "nats a token", ("loss", "validation_loss")),
    ("Scores on what was kept back", "", ("accuracy", "f1", "matthews")),
    ("Learning rate", "", ("learning_rate",)),
    ("Norm of the gradients, before clipping", "", ("gradient_norm",)),
    ("Speed", "tokens a second", ("tokens_per_second",)),
)


def write_report(folder: Path) -> Path:
    """Make folder/report.html of folder/metrics.jsonl and return its path.

    Raises FormatError if no run has been here, UnsupportedError where matplotlib is not installed.
    """
    tuned = (folder / TUNING_NAME).is_file()
    config = read_tuning(folder) if tuned else read_config(folder)
    metrics = read_metrics(folder)
    if not metrics:
        raise FormatError(f"{folder}: the run has not taken a step yet: metrics.jsonl is empty")
    last = metrics[-1]
    validated = [line for line in metrics if "validation_loss" in line]
    samples = [line for line in metrics if line.get("sample")]
    parts = [f"<h1>{html.escape(folder.resolve().name)}</h1>", _table(_summary(last, validated))]
    for title, unit, names in _CURVES:
        if any(name in line for line in metrics for name in names):
            parts += [f"<h2>{title}</h2>", _curve(metrics, names, unit)]
    if samples:
        parts += ["<h2>What it writes</h2>"]
        for line in dict((line["step"], line) for line in (samples[0], samples[-1])).values():
            parts.append(f"<p>After step {line['step']}:</p><pre>{html.escape(line['sample'])}</pre>")
    parts += ["<h2>Configuration</h2>", _table(asdict(config))]
    page = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f"<title>{html.escape(folder.resolve().name)}</title><style>{_STYLE}</style></head>"
        f"<body>{''.join(parts)}</body></html>\n"
    )
    path = folder / "report.html"
    temporary = folder / f".report.html.{os.getpid()}"
    temporary.write_text(page, encoding="utf-8")
    os.replace(temporary, path)
    return path


def _summary(last: dict[str, Any], validated: Sequence[dict[str, Any]]) -> dict[str, str]:
    facts = {
        "steps": f"{last['step']:,}",
        "tokens": f"{last['tokens']:,}",
        "time": f"{last['seconds'] / 60:.1f} minutes",
        "last loss": f"{last['loss']:.4f} nats a token",
    }
    if validated:
        best = min(validated, key=lambda line: float(line["validation_loss"]))
        facts["best validation loss"] = (
            f"{best['validation_loss']:.4f} nats a token, {best['bits_per_byte']:.4f} bits a byte, "
            f"at step {best['step']:,}"
        )
    return facts


def _table(values: dict[str, Any]) -> str:
    rows = (
        f"<tr><td>{html.escape(str(k))}</td><td>{html.escape(str(v))}</td></tr>" for k, v in values.items()
    )
    return f"<table>{''.join(rows)}</table>"


def _curve(metrics: Sequence[dict[str, Any]], names: Sequence[str], unit: str) -> str:
    """Curves over the steps, as SVG."""
    try:
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UnsupportedError("the report needs matplotlib: pip install matplotlib") from error
    figure = Figure(figsize=(9, 3), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.add_subplot()
    for name in names:
        points = [(line["step"], line[name]) for line in metrics if name in line]
        if points:
            steps, values = zip(*points, strict=True)
            few = (
                "." if len(points) < 30 else None
            )  # a point here and there would not be seen in a long curve
            axes.plot(steps, values, label=name.replace("_", " "), linewidth=1.2, marker=few)
    axes.set_xlabel("step")
    axes.set_ylabel(unit)
    axes.grid(alpha=0.3)
    if len(names) > 1:
        axes.legend()
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    svg = buffer.getvalue()
    return svg[svg.index("<svg") :]
