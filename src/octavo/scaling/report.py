"""One HTML page with everything that runs say, and the same figures as files."""

from __future__ import annotations

import html
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from octavo.scaling.figures import all_figures, plan_card
from octavo.scaling.fitting.parametric import fit_parametric
from octavo.scaling.records import RunTable
from octavo.scaling.sweeping.held_out import judge
from octavo.scaling.sweeping.store import Store

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from octavo.scaling.planning.plan import Plan

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 56rem; margin: 2rem auto; padding: 0 1rem }
svg { width: 100%; height: auto } table { border-collapse: collapse; margin: .5rem 0 }
td, th { padding: .15rem .9rem .15rem 0; text-align: left; font-variant-numeric: tabular-nums }
th { border-bottom: 1px solid #bbb } h2 { margin-top: 2.2rem } .warning { color: #a33 }
"""
_TITLES = {
    "isoflop": (
        "IsoFLOP curves",
        "Dots are runs, lines the fitted law, crosses each curve's own minimum (Akima).",
    ),
    "frontier": (
        "The best size",
        "Bands: the middle 80 % of resamples. Right of the dashed line is extrapolated.",
    ),
    "loss": ("Loss against compute", ""),
    "contours": ("The law over sizes and tokens", ""),
    "residuals": ("What the law leaves", ""),
    "profiles": (
        "Are the constants identified?",
        "Below the dashed line a value cannot be excluded at 90 %.",
    ),
    "resamples": ("How the constants hang together", "Each dot is the fit of one resample of the runs."),
    "predicted": ("Predicted and seen", "Bars were written down before the runs; stars are what came."),
}
_RESAMPLES = 300


def write_figures(table: RunTable, folder: Path, *, store: Path | None = None) -> list[Path]:
    """Each as PNG and SVG."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, figure in _figures(table, store).items():
        for kind in ("png", "svg"):
            paths.append(folder / f"{name}.{kind}")
            figure.savefig(paths[-1], dpi=110, metadata={"Date": None} if kind == "svg" else None)
    return paths


def write_scaling_report(
    table: RunTable, found: Mapping[str, Any], path: Path, *, store: Path | None = None
) -> Path:
    """found: what `summary.summarize` gave.  The page needs nothing beside it."""
    parts = ["<h1>Scaling laws</h1>", _summary(found)]
    if store is not None:
        parts += ["<h2>Runs</h2>", _runs(store)]
    for name, figure in _figures(table, store).items():
        title, words = _TITLES[name]
        parts += [f"<h2>{title}</h2>", f"<p>{words}</p>" if words else "", svg(figure)]
    page = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Scaling laws</title>'
        f"<style>{_STYLE}</style></head><body>{''.join(parts)}</body></html>\n"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(page, encoding="utf-8")
    os.replace(temporary, path)
    return path


def write_plan_card(plan: Plan, path: Path) -> Path:
    """PNG or SVG by the name's ending."""
    plan_card(plan).savefig(path, dpi=110)
    return path


def svg(figure: Figure) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def _figures(table: RunTable, store: Path | None) -> dict[str, Figure]:
    fit = fit_parametric(table.parameters, table.tokens, table.loss)
    verdicts = []
    if store is not None:
        with Store(store) as opened:
            verdicts = judge(opened)
    return all_figures(table, fit, fit.bootstrap(_RESAMPLES, groups=table.cells or None), verdicts)


def _summary(found: Mapping[str, Any]) -> str:
    rows = [["counted as", "E", "A", "B", "alpha", "beta", "a", "residual"]]
    for name, law in found["conventions"].items():
        numbers = [f"{law[key]:.4g}" for key in ("E", "A", "B", "alpha", "beta", "a")]
        rows.append([name, *numbers, f"{100 * law['residual']:.2f} %"])
    text = table_of(rows)
    facts = [[name, f"N* ~ C^{value:.3f}"] for name, value in found["approaches"].items()]
    if found["left_out_error"] is not None:
        facts.append(
            ["largest budget, predicted from the others", f"{100 * found['left_out_error']:.2f} % off"]
        )
    text += table_of([["approach", "result"], *facts])
    warnings = "".join(f"<li>{html.escape(each)}</li>" for each in found["warnings"])
    return text + (f'<ul class="warning">{warnings}</ul>' if warnings else "")


def _runs(store: Path) -> str:
    rows = [
        ["FLOPs", "role", "parameters", "tokens", "seed", "learning rate", "loss", "bits a byte", "state"]
    ]
    with Store(store) as opened:
        for row in opened.runs():
            config = opened.run_config(row)
            loss = ["", ""] if row["loss"] is None else [f"{row['loss']:.4f}", f"{row['bpb']:.4f}"]
            rows.append(
                [
                    f"{row['budget']:.2e}",
                    row["role"],
                    f"{row['n_active']:,}",
                    f"{row['tokens']:,}",
                    str(row["seed"]),
                    f"{config.learning_rate:.3g}",
                    *loss,
                    row["status"],
                ]
            )
    return table_of(rows)


def table_of(rows: list[list[str]]) -> str:
    """The first row is the heading."""
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in rows[0])
    body = "".join(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in rows[1:])
    return f"<table><tr>{head}</tr>{body}</table>"
