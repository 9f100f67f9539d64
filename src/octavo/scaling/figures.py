"""The figures of a fit: curves, frontier, contours, residuals, resamples, profiles, predicted and seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from octavo.errors import UnsupportedError
from octavo.scaling.fitting.isoflop import curve_minimum, fit_isoflop
from octavo.scaling.fitting.parametric import Bootstrap, ParametricFit
from octavo.scaling.fitting.uncertainty import profile
from octavo.scaling.laws import EPOCH
from octavo.scaling.records import RunTable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from octavo.scaling.planning.plan import Plan

_WIDTH = 8.0


def new_figure(width: float = _WIDTH, height: float = 4.2) -> Figure:
    """Raises UnsupportedError where matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UnsupportedError("figures need matplotlib: pip install 'octavo[scaling]'") from error
    return Figure(figsize=(width, height), layout="constrained")


def all_figures(
    table: RunTable,
    fit: ParametricFit,
    resampled: Bootstrap | None,
    verdicts: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Figure]:
    """By name, in the order of a report."""
    found = {"isoflop": isoflop(table, fit), "frontier": frontier(table, fit, resampled)}
    found |= {"loss": loss_of_compute(table, fit, verdicts), "contours": contours(table, fit)}
    found |= {"residuals": residuals(table, fit), "profiles": profiles(fit)}
    if resampled is not None:
        found["resamples"] = pairs(resampled)
    if verdicts:
        found["predicted"] = predicted_against_seen(verdicts)
    return found


def _budgets(table: RunTable) -> Any:
    return table.budgets if table.budgets is not None else table.compute


def _colors(count: int) -> list[Any]:
    from matplotlib import colormaps

    return [colormaps["viridis"](0.85 * index / max(count - 1, 1)) for index in range(count)]


def _label(axes: Axes, horizontal: str, vertical: str) -> None:
    axes.set_xlabel(horizontal)
    axes.set_ylabel(vertical)
    axes.grid(alpha=0.25, linewidth=0.6)


def isoflop(table: RunTable, fit: ParametricFit) -> Figure:
    """Loss against size, one curve a budget; dots are runs, lines the law, a cross its own minimum."""
    figure = new_figure()
    axes = figure.add_subplot()
    budgets = _budgets(table)
    values = [budget for budget in np.unique(budgets) if (budgets == budget).sum() >= 3][-9:]
    for budget, color in zip(values, _colors(len(values)), strict=True):
        chosen = budgets == budget
        n, d = table.parameters[chosen], table.tokens[chosen]
        axes.plot(n, table.loss[chosen], "o", color=color, markersize=5, label=f"{budget:.1e} FLOPs")
        order = np.argsort(n)
        sizes = np.geomspace(n.min(), n.max(), 100)
        tokens = np.exp(np.interp(np.log(sizes), np.log(n[order]), np.log(d[order])))
        axes.plot(sizes, fit.predict(sizes, tokens), color=color, linewidth=1.2)
        if len(np.unique(n)) >= 4:
            least = curve_minimum(float(budget), n, table.loss[chosen])
            if not least.at_edge:
                axes.plot(least.parameters, least.loss, "x", color="crimson", markersize=9, markeredgewidth=2)
    axes.set_xscale("log")
    if values:
        axes.legend(fontsize=8, frameon=False, ncols=2)
    _label(axes, "parameters", "held-out loss, nats a token")
    return figure


def frontier(table: RunTable, fit: ParametricFit, resampled: Bootstrap | None) -> Figure:
    """The best size and tokens a parameter against compute, with the middle 80 % of resamples."""
    figure = new_figure()
    each = float(np.median(table.compute / (table.parameters * table.tokens)))
    c = np.geomspace(table.compute.min(), table.compute.max() * 10, 60)
    left, right = figure.subplots(1, 2)
    best = np.array([fit.law.optimum(value, each) for value in c])
    if resampled is not None:
        many = np.array([[law.optimum(value, each) for value in c] for law in resampled.laws()[:300]])
        for axes, part in ((left, many[:, :, 0]), (right, many[:, :, 1] / many[:, :, 0])):
            low, high = np.nanquantile(part, [0.1, 0.9], axis=0)
            axes.fill_between(c, low, high, alpha=0.2, linewidth=0)
    left.plot(c, best[:, 0], label=f"approach 3, N* ~ C^{fit.a:.2f}")
    right.plot(c, best[:, 1] / best[:, 0])
    try:
        minima = [
            m for m in fit_isoflop(_budgets(table), table.parameters, table.loss).minima if not m.at_edge
        ]
        left.plot(
            [m.compute for m in minima],
            [m.parameters for m in minima],
            "x",
            color="crimson",
            label="approach 2",
        )
    except ValueError:
        pass
    left.plot(c, [EPOCH.optimum(value)[0] for value in c], ":", color="gray", label="Besiroglu et al. 2024")
    for axes, name in ((left, "best number of parameters"), (right, "tokens a parameter")):
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.axvline(table.compute.max(), color="gray", linewidth=0.6, linestyle="--")
        _label(axes, "training FLOPs", name)
    left.legend(fontsize=8, frameon=False)
    return figure


def loss_of_compute(table: RunTable, fit: ParametricFit, verdicts: Sequence[Mapping[str, Any]]) -> Figure:
    """Every run, the frontier of the law, and the held-out runs with their intervals."""
    figure = new_figure()
    axes = figure.add_subplot()
    each = float(np.median(table.compute / (table.parameters * table.tokens)))
    c = np.geomspace(table.compute.min(), table.compute.max() * 10, 60)
    axes.plot(table.compute, table.loss, "o", markersize=4, alpha=0.6, label="runs")
    axes.plot(c, [float(fit.predict(*fit.law.optimum(value, each))) for value in c], label="best by the law")
    for verdict in verdicts:
        if verdict["best"]:
            span = [[verdict["predicted"] - verdict["low"]], [verdict["high"] - verdict["predicted"]]]
            axes.errorbar(
                verdict["compute"],
                verdict["predicted"],
                yerr=span,
                color="gray",
                capsize=4,
                label="registered before",
            )
            axes.plot(verdict["compute"], verdict["seen"], "*", color="crimson", markersize=12, label="seen")
    axes.axhline(fit.E, color="gray", linewidth=0.7, linestyle=":", label=f"E = {fit.E:.3f}")
    axes.set_xscale("log")
    axes.legend(fontsize=8, frameon=False)
    _label(axes, "training FLOPs", "held-out loss, nats a token")
    return figure


def contours(table: RunTable, fit: ParametricFit) -> Figure:
    """L(N, D) with the runs and the frontier."""
    figure = new_figure()
    axes = figure.add_subplot()
    n = np.geomspace(table.parameters.min() / 2, table.parameters.max() * 2, 80)
    d = np.geomspace(table.tokens.min() / 2, table.tokens.max() * 2, 80)
    heights = fit.predict(n[None, :], d[:, None])
    levels = np.quantile(heights, np.linspace(0.02, 0.98, 16))
    lines = axes.contour(n, d, heights, levels=np.unique(levels), cmap="viridis", linewidths=0.9)
    axes.clabel(lines, fontsize=7, fmt="%.2f")
    axes.plot(table.parameters, table.tokens, "o", color="black", markersize=3.5)
    each = float(np.median(table.compute / (table.parameters * table.tokens)))
    best = np.array(
        [fit.law.optimum(c, each) for c in np.geomspace(table.compute.min() / 9, table.compute.max() * 9, 60)]
    )
    axes.plot(best[:, 0], best[:, 1], color="crimson", label="best for its compute")
    axes.set(xscale="log", yscale="log", xlim=(n[0], n[-1]), ylim=(d[0], d[-1]))
    axes.legend(fontsize=8, frameon=True)
    _label(axes, "parameters", "tokens")
    return figure


def residuals(table: RunTable, fit: ParametricFit) -> Figure:
    """What the law leaves, against N, D and D / N: a trend is a wrong form or a wrong recipe."""
    figure = new_figure(height=3.2)
    left = 100 * (table.loss / fit.predict(table.parameters, table.tokens) - 1)
    panels = figure.subplots(1, 3, sharey=True)
    for axes, values, name in zip(
        panels,
        (table.parameters, table.tokens, table.tokens / table.parameters),
        ("parameters", "tokens", "tokens a parameter"),
        strict=True,
    ):
        axes.axhline(0, color="gray", linewidth=0.8)
        axes.plot(values, left, "o", markersize=4, alpha=0.7)
        axes.set_xscale("log")
        _label(axes, name, "seen over predicted, %" if axes is panels[0] else "")
    return figure


def profiles(fit: ParametricFit) -> Figure:
    """Twice the log-likelihood lost by holding a constant; flat means not identified."""
    figure = new_figure(height=3.2)
    for axes, name in zip(figure.subplots(1, 3, sharey=True), ("E", "alpha", "beta"), strict=True):
        found = profile(fit, name)
        axes.plot(found.values, np.minimum(found.rise, 12))
        axes.axhline(2.706, color="gray", linewidth=0.8, linestyle="--")
        axes.axvspan(*found.interval, alpha=0.15, linewidth=0)
        axes.set_ylim(-0.2, 10)
        axes.set_title("" if found.identified else "not identified", fontsize=9, color="crimson")
        _label(axes, name, "likelihood lost" if name == "E" else "")
    return figure


def pairs(resampled: Bootstrap) -> Figure:
    """How the constants hang together over resamples."""
    names = ("E", "alpha", "beta", "a")
    figure = new_figure(height=7.0)
    grid = figure.subplots(4, 4)
    columns = {}
    for name in names:
        values = resampled.values(name)
        low, high = np.quantile(values, [0.01, 0.99])
        columns[name] = np.clip(values, low, high)
    for row, vertical in enumerate(names):
        for place, horizontal in enumerate(names):
            axes = grid[row, place]
            if place > row:
                axes.set_axis_off()
                continue
            if place == row:
                axes.hist(columns[vertical], bins=30)
                axes.set_yticks([])
            else:
                axes.plot(columns[horizontal], columns[vertical], ".", markersize=2, alpha=0.4)
            axes.tick_params(labelsize=7)
            axes.set_xlabel(horizontal if row == 3 else "")
            axes.set_ylabel(vertical if place == 0 and row else "")
    return figure


def predicted_against_seen(verdicts: Sequence[Mapping[str, Any]]) -> Figure:
    """Each registered run: the interval, the prediction, what came."""
    figure = new_figure(height=3.2)
    axes = figure.add_subplot()
    ordered = sorted(verdicts, key=lambda each: (each["compute"], each["parameters"]))
    for place, each in enumerate(ordered):
        axes.plot([place, place], [each["low"], each["high"]], color="gray", linewidth=6, alpha=0.35)
        axes.plot(place, each["predicted"], "_", color="black", markersize=16)
        axes.plot(place, each["seen"], "*", color="seagreen" if each["inside"] else "crimson", markersize=11)
    axes.set_xticks(
        range(len(ordered)),
        [
            f"N {each['parameters']:,}\nC {each['compute']:.1e}{', best' if each['best'] else ''}"
            for each in ordered
        ],
        fontsize=8,
    )
    axes.set_xlim(-0.6, len(ordered) - 0.4)
    _label(axes, "", "held-out loss, nats a token")
    return figure


def plan_card(plan: Plan) -> Figure:
    """Loss against size for the hours given; sizes within 1 % of the best are shaded."""
    figure = new_figure()
    axes = figure.add_subplot()
    sizes, losses = (np.array(column) for column in zip(*plan.curve, strict=True))
    axes.plot(sizes, losses, "o-", markersize=3, linewidth=1)
    axes.axvspan(*plan.flat, alpha=0.15, linewidth=0, label="within 1 % of the best")
    best = plan.prediction
    span = [[best.loss - best.low], [best.high - best.loss]]
    axes.errorbar(
        plan.count.active,
        best.loss,
        yerr=span,
        fmt="*",
        color="crimson",
        capsize=4,
        markersize=12,
        label=f"{100 * best.level:.0f} % interval",
    )
    axes.set_xscale("log")
    c = plan.run.config
    axes.set_title(
        f"{plan.hours:g} hours: {c.layers} layers of {c.hidden}, {c.tokens:,} tokens, loss {best.loss:.3f}",
        fontsize=10,
    )
    highest = max(best.high, min(losses.max(), losses.min() * 1.6))
    axes.set_ylim(0.98 * min(best.low, losses.min()), 1.02 * highest)
    axes.legend(fontsize=8, frameon=False)
    _label(axes, "parameters", "predicted loss, nats a token")
    return figure
