"""Published laws from their published runs: what is known to be right must come out, to its digits."""

from __future__ import annotations

import json
import math

import numpy as np
import published_runs as published
import pytest

pytest.importorskip("scipy")

from octavo.scaling.counting import chinchilla_forward  # noqa: E402
from octavo.scaling.fitting.forms import (  # noqa: E402
    fit_repetition,
    fit_tokens_of_compute,
    repetition_objective,
)
from octavo.scaling.fitting.isoflop import fit_isoflop, fit_power  # noqa: E402
from octavo.scaling.fitting.parametric import fit_parametric  # noqa: E402
from octavo.scaling.fitting.pitfalls import replay_published_optimizer  # noqa: E402
from octavo.scaling.laws import (  # noqa: E402
    CHINCHILLA,
    EPOCH,
    MUENNIGHOFF,
    ParametricLaw,
    pearce_song_exponent,
    serving_optimum,
)

TEX = np.array([0.5267228, 6.0073404, 6.0179186, 0.33917084, 0.2849083])


def check_law(law: ParametricLaw, e: float, a: float, b: float, alpha: float, beta: float) -> None:
    assert law.E == pytest.approx(e, abs=2e-4)
    assert law.A == pytest.approx(a, rel=5e-3)
    assert law.B == pytest.approx(b, rel=1e-2)
    assert law.alpha == pytest.approx(alpha, abs=2e-4)
    assert law.beta == pytest.approx(beta, abs=2e-4)


def test_epoch_huber() -> None:
    fit = fit_parametric(*published.epoch_240())
    check_law(fit.law, 1.81722, 477.83, 2143.4, 0.34731, 0.36717)
    assert fit.objective == pytest.approx(1.01827403e-3, rel=1e-6)


def test_epoch_least_absolute_deviations() -> None:
    """The published row: Huber with a free scale, which goes to zero."""
    fit = fit_parametric(*published.epoch_240(), estimator="lad")
    check_law(fit.law, 1.81684, 481.93, 2085.0, 0.34780, 0.36584)


def test_epoch_with_the_five_outliers() -> None:
    fit = fit_parametric(*published.epoch())
    assert (fit.beta, fit.E, fit.a) == pytest.approx((0.4531, 1.8913, 0.5646), abs=2e-3)


def test_epoch_bootstrap() -> None:
    resampled = fit_parametric(*published.epoch_240()).bootstrap(1000)
    assert float(np.median(resampled.a)) == pytest.approx(0.51, abs=0.01)
    low, high = resampled.interval("a", 0.8)
    assert high - low == pytest.approx(0.051, abs=0.008)


@pytest.mark.parametrize(("mean", "iterations", "e"), [(True, 2, 1.693), (False, 19, 1.698)])
def test_the_early_stop_is_seen(mean: bool, iterations: int, e: float) -> None:
    replay = replay_published_optimizer(fit_parametric(*published.epoch_240()), TEX, mean=mean)
    assert replay.warning is not None and "default ftol" in replay.warning
    assert replay.iterations == pytest.approx(iterations, abs=6 if iterations > 5 else 1)
    assert math.exp(replay.theta[0]) == pytest.approx(e, abs=2e-3)


def test_porian() -> None:
    """All 15 experiments: the stored pairs exactly, and the pairs from the curves by Akima."""
    for experiment in published.content("formll/formll_isoflops.json")["experiments"]:
        stored = experiment["published_fit"]["basic"]["n_exponent"]
        pairs = [pair for pair in experiment["optimal_pairs"] if pair["n"] is not None]
        law = fit_power([pair["flops"] for pair in pairs], [pair["n"] for pair in pairs])
        assert law.exponent == pytest.approx(stored, abs=1e-4)
        points = np.array(experiment["isoflop_points"], float)
        ours = fit_isoflop(points[:, 0], points[:, 1], points[:, 3])
        assert ours.a == pytest.approx(stored, abs=4e-3), experiment["file"]


def test_a_wide_parabola_fails_where_akima_does_not() -> None:
    experiment = published.content("formll/formll_isoflops.json")["experiments"][0]
    points = np.array(experiment["isoflop_points"], float)
    wide = fit_isoflop(points[:, 0], points[:, 1], points[:, 3], "parabola")
    akima = fit_isoflop(points[:, 0], points[:, 1], points[:, 3])
    assert abs(wide.a - 0.834) > 0.025 > 10 * abs(akima.a - 0.834)
    assert any("biased" in warning for warning in wide.warnings)


@pytest.mark.parametrize(
    ("dataset", "run", "percent", "within"),
    [
        ("rpj", "open_lm_1b-32.0", 0.7103, 1e-3),
        ("rpj", "open_lm_7b-1.0", 0.7320, 1e-3),
        ("c4_original", "open_lm_7b-1.0", 4.295, 1e-2),
        ("rw_original", "open_lm_1b-16.0", 0.005, 1e-2),
        ("rw_original", "open_lm_7b-1.0", 1.62, 1e-2),
    ],
)
def test_gadre(dataset: str, run: str, percent: float, within: float) -> None:
    table = [row for row in published.rows("gadre/gadre_runs.csv") if row["dataset"] == dataset]
    small = ("d=96_l=8", "d=512_l=8", "d=576_l=24", "d=1024_l=24")
    chosen = [
        row
        for row in table
        if (any(name in row["name"] for name in small) and float(row["chinchilla_multiplier"]) == 1)
        or ("d=96_l=8" in row["name"] and float(row["chinchilla_multiplier"]) == 16)
    ]
    assert len(chosen) == 5
    fit = fit_parametric(
        *published.columns(chosen, "params", "tokens", "loss_c4_val"), delta=1e9, space="raw", tied=True
    )
    (row,) = [row for row in table if row["name"].endswith(run)]
    predicted = float(fit.predict(float(row["params"]), float(row["tokens"])))
    assert 100 * abs(predicted / float(row["loss_c4_val"]) - 1) == pytest.approx(percent, abs=within)


@pytest.mark.parametrize(
    ("column", "predicted", "seen", "within"),
    [("c4_ce_mean_last5", 2.3444, 2.4379, 2e-3), ("hellaswag_bpb_mean_last5", 0.6532, 0.6609, 1e-3)],
)
def test_olmo_ladder(column: str, predicted: float, seen: float, within: float) -> None:
    table = published.rows("olmo_ladder/olmo_ladder_runs.csv")
    chosen = [
        row
        for row in table
        if row["size"] in ("190M", "370M", "760M", "1B") and row["length"] in ("1xC", "2xC", "5xC", "10xC")
    ]
    assert len(chosen) == 16
    n, d, loss = published.columns(chosen, "n", "tokens", column)
    fit = fit_parametric(n, d, loss)
    (target,) = [row for row in table if row["size"] == "13B"]
    assert float(fit.predict(float(target["n"]), float(target["tokens"]))) == pytest.approx(
        predicted, abs=within
    )
    assert float(target[column]) == pytest.approx(seen, abs=1e-4)
    if column.startswith("c4"):
        assert float(np.abs(fit.predict(n, d) / loss - 1).mean()) == pytest.approx(0.00247, abs=2e-5)


@pytest.mark.parametrize(
    ("name", "alpha", "beta", "e", "objective"),
    [
        ("hot", 0.29287, 0.71287, 0.76226, 0.0019816129),
        ("cool_end", 0.30027, 0.58024, 0.72979, 0.0019640865),
        ("slim_chinchilla", 0.21378, 0.52601, 0.46845, 0.0001204363),
    ],
)
def test_gemstones(name: str, alpha: float, beta: float, e: float, objective: float) -> None:
    path = published.path(f"gemstones/wandb_df_for_fitting_{name}.jsonl")
    table = [json.loads(line) for line in path.read_text().splitlines()]
    fit = fit_parametric(*published.columns(table, "params_active_precise", "tokens", "final_loss"))
    assert (fit.alpha, fit.beta, math.log(fit.E)) == pytest.approx((alpha, beta, e), abs=1e-3)
    assert fit.objective == pytest.approx(objective, rel=1e-4)


def test_repeated_data() -> None:
    table = published.rows("datablations/repeated_data_runs_182.csv")
    columns = published.columns(table, "params", "tokens", "unique_tokens", "val_loss")
    assert float(MUENNIGHOFF.predict(6.34e9, 242e9, 25e9)) == pytest.approx(2.225644, abs=1e-6)
    assert repetition_objective(MUENNIGHOFF, *columns) == pytest.approx(0.0158259, abs=1e-6)
    n, d, unique, loss = columns
    left = MUENNIGHOFF.predict(n, d, unique) - loss
    assert 1 - (left**2).sum() / ((loss - loss.mean()) ** 2).sum() == pytest.approx(0.7722, abs=1e-4)
    better = fit_repetition(MUENNIGHOFF, *columns)
    assert better.objective == pytest.approx(0.0158047, abs=1e-6)
    assert (better.law.tokens_decay, better.law.parameters_decay) == pytest.approx((95.4, 1.71), rel=0.01)
    assert len(better.ridge) > 10  # flat: a point alone says too much


def test_llama_3() -> None:
    table = published.rows("isoflop_openathena/isoflops_transform.csv")
    chosen = [row for row in table if row["experiment"] == "llama_3__raw_loss"]
    law = fit_tokens_of_compute(*published.columns(chosen, "budget", "tokens", "loss"))
    assert law.exponent == pytest.approx(0.537, abs=0.01)
    assert law.coefficient == pytest.approx(0.299, rel=0.05)
    assert float(law.predict(3.8e25)) == pytest.approx(16.1e12, rel=0.01)


def test_scalefit_points_on_raw_loss() -> None:
    table = published.rows("isoflop_openathena/isoflops_extract.csv")
    chosen = [row for row in table if row["experiment"].startswith("ml_scalefit")]
    n, d, loss = published.columns(chosen, "params", "tokens", "loss")
    fit = fit_parametric(n / 1e6, d / 1e9, loss, space="raw")
    assert fit.objective / len(loss) == pytest.approx(13.09e-6, rel=0.01)
    assert (fit.alpha, fit.beta, fit.E) == pytest.approx((0.369, 0.402, 1.872), rel=0.01)


def test_the_other_extraction_of_chinchilla() -> None:
    fit = fit_parametric(*published.columns(published.rows("kyo/df.csv"), "N", "D", "loss"))
    found = (fit.A, fit.B, fit.E, fit.alpha, fit.beta)
    assert found == pytest.approx((442, 1272, 1.784, 0.3426, 0.3420), rel=0.01)


def test_chinchilla_tables() -> None:
    tables = published.content("published/chinchilla_tables.json")
    sizes = (73e6, 305e6, 552e6, 1143e6, 1593e6, 6796e6)
    for (_, layers, hidden, inner, heads, width, ratio), size in zip(tables["tableA4"], sizes, strict=True):
        forward = chinchilla_forward(layers, hidden, inner, width, heads, embeddings=False)
        assert 3 * forward / (6 * size * 2048) == pytest.approx(ratio, abs=0.01)
    for size, flops, tokens in tables["table3_approach1"]:
        assert 6 * size * tokens == pytest.approx(flops, rel=0.05)
    odd = [row for row in tables["tableA3"] if abs(6 * row[0] * row[4] / row[3] - 1) > 0.05]
    assert [row[0] for row in odd] == [175e9]  # printed 1.26e24 where 1.26e25 is meant


def test_pearce_and_song() -> None:
    assert pearce_song_exponent(total=False) == pytest.approx(0.781, abs=0.006)
    assert pearce_song_exponent(total=True) == pytest.approx(0.515, abs=0.005)


def test_rounding_moves_the_optimum() -> None:
    printed = ParametricLaw(1.69, 406.4, 410.7, 0.34, 0.28)
    sizes = [law.optimum(5.76e23)[0] / 1e9 for law in (printed, CHINCHILLA, EPOCH)]
    assert sizes == pytest.approx([32.2, 40.4, 72.3], rel=0.01)


def test_sardana() -> None:
    from scipy.optimize import brentq

    compute = 10 ** brentq(lambda power: CHINCHILLA.optimum(10**power)[0] - 13e9, 20, 27)
    quality = float(CHINCHILLA.predict(13e9, CHINCHILLA.optimum(compute)[1]))
    n, d, total = serving_optimum(CHINCHILLA, quality, 2e12)
    assert (n, d, total) == pytest.approx((7.12e9, 1.295e12, 8.38e22), rel=2e-3)
    for budget, served, size, tokens in ((1e16, 1e9, 4.05e6, 494e6), (1e18, 1e10, 42.3e6, 4.78e9)):
        best = EPOCH.optimum(budget)
        n, d, _ = serving_optimum(EPOCH, float(EPOCH.predict(*best)), served)
        assert (n, d) == pytest.approx((size, tokens), rel=5e-3)


def test_step_law() -> None:
    names = ("lr_intercept", "lr_coefN", "lr_coefD", "bs_intercept", "bs_coefD")
    means = [
        column.mean()
        for column in published.columns(published.rows("steplaw/fitted_lr_bs_bootstrap_1000.csv"), *names)
    ]
    found = (math.exp(means[0]), means[1], means[2], math.exp(means[3]), means[4])
    assert found == pytest.approx((1.797, -0.7129, 0.3075, 0.5807, 0.5709), abs=1e-3)
