"""Activations, initialization, norms, dropout, penalties, freezing and diagnosis: each by what it is for."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch.nn import functional  # noqa: E402

from octavo.errors import UnsupportedError  # noqa: E402
from octavo.layers import diagnose  # noqa: E402
from octavo.layers.activations import ACTIVATIONS, FORMULAS, PReLU, geglu, leaky_relu, swiglu  # noqa: E402
from octavo.layers.dropout import (  # noqa: E402
    AlphaDropout,
    Dropout,
    alpha_dropout,
    dropout,
    monte_carlo_dropout,
    predict_with_dropout,
)
from octavo.layers.freezing import (  # noqa: E402
    GradualUnfreezing,
    discriminative_rates,
    freeze,
    layer_groups,
    unfreeze,
)
from octavo.layers.initialization import (  # noqa: E402
    fans,
    glorot_,
    he_,
    initialize,
    lecun_,
    mup_multipliers,
    scaled_residual_,
)
from octavo.layers.normalization import BatchNorm, LayerNorm  # noqa: E402
from octavo.layers.regularization import l1_penalty, l2_penalty, max_norm_, weights_of  # noqa: E402


def random(*shape: int, seed: int = 0) -> Any:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# --- activations ---


@pytest.mark.parametrize("name", FORMULAS)
def test_fused_activations_equal_their_formulas_and_so_do_their_slopes(name: str) -> None:
    x = torch.linspace(-8, 8, 4001, dtype=torch.float64)[torch.arange(4001) != 2000]  # without the kink at 0
    results = []
    for activation in (FORMULAS[name], ACTIVATIONS[name]):
        at = x.clone().requires_grad_()
        y = activation(at)
        y.sum().backward()
        results.append((y.detach(), at.grad))
    assert torch.allclose(results[0][0], results[1][0], atol=1e-9)
    assert torch.allclose(results[0][1], results[1][1], atol=1e-9)


def test_activations_far_out_are_finite() -> None:
    x = torch.tensor([-1e4, -100.0, 100.0])
    for name, formula in FORMULAS.items():
        at = x.clone().requires_grad_()
        formula(at).sum().backward()
        assert torch.isfinite(at.grad).all(), name


def test_leaky_parametric_and_gated_units() -> None:
    x, up = random(5, 4), random(5, 4, seed=1)
    assert torch.allclose(leaky_relu(x, 0.2), functional.leaky_relu(x, 0.2))
    assert torch.allclose(PReLU(4)(x), functional.prelu(x, torch.full((4,), 0.25)))
    assert torch.allclose(swiglu(x, up), functional.silu(x) * up)
    assert torch.allclose(geglu(x, up), functional.gelu(x) * up)


# --- initialization ---


@pytest.mark.parametrize("distribution", ["normal", "uniform"])
@pytest.mark.parametrize(
    ("fill", "variance"),
    [(glorot_, 2 / 900), (he_, 2 / 300), (lecun_, 1 / 300)],
    ids=("glorot", "he", "lecun"),
)
def test_variances_of_first_weights(fill: Callable[..., Any], variance: float, distribution: str) -> None:
    weight = fill(
        torch.empty(600, 300), distribution=distribution, generator=torch.Generator().manual_seed(0)
    )
    assert weight.var().item() == pytest.approx(variance, rel=0.02)
    assert abs(weight.mean().item()) < 0.05 * math.sqrt(variance)
    if distribution == "uniform":
        assert weight.abs().max().item() <= math.sqrt(3 * variance)
    again = fill(torch.empty(600, 300), distribution=distribution, generator=torch.Generator().manual_seed(0))
    assert torch.equal(weight, again)


def test_other_first_weights() -> None:
    assert fans(torch.empty(8, 4, 3, 3)) == (36, 72)
    with pytest.raises(ValueError, match="no fan-in"):
        fans(torch.empty(8))
    weight = scaled_residual_(torch.empty(400, 400), 8, generator=torch.Generator().manual_seed(0))
    assert weight.std().item() == pytest.approx(0.02 / 4, rel=0.02)
    with pytest.raises(UnsupportedError, match="'xavier' is not known; there are glorot, he, lecun"):
        initialize(torch.nn.Linear(2, 2), "xavier")  # type: ignore[arg-type]


def deep(activation: Any, scheme: Any, layers: int = 50, width: int = 128) -> Any:
    parts: list[Any] = []
    for _ in range(layers):
        parts += [torch.nn.Linear(width, width), activation()]
    model = torch.nn.Sequential(*parts)
    initialize(model, scheme, generator=torch.Generator().manual_seed(0))
    return model


@pytest.mark.parametrize(
    ("activation", "scheme", "stays"),
    [
        (torch.nn.ReLU, "he", True),
        (torch.nn.ReLU, "lecun", False),
        (torch.nn.SELU, "lecun", True),
        (torch.nn.Sigmoid, "glorot", False),
    ],
)
def test_gradients_keep_their_size_through_50_layers_only_with_the_matching_start(
    activation: Any, scheme: str, stays: bool
) -> None:
    model = deep(activation, scheme)
    found = diagnose(model, (random(64, 128), random(64, 128, seed=1)))
    first, last = found.layers[0].gradient_rms, found.layers[-2].gradient_rms
    assert (1e-2 < first / last < 1e2) is stays
    vanishing = [warning for warning in found.warnings() if "gradients vanish" in warning]
    assert bool(vanishing) is not stays


def test_mup_is_an_ordinary_model_at_the_base_width() -> None:
    base = mup_multipliers(64, 64, head_width=16, base_head_width=16)
    assert (base.hidden_deviation, base.hidden_learning_rate, base.output_scale) == (1.0, 1.0, 1.0)
    assert base.attention_scale == 1 / math.sqrt(16)
    wide = mup_multipliers(256, 64, head_width=64, base_head_width=16)
    assert (wide.hidden_deviation, wide.hidden_learning_rate, wide.output_scale) == (0.5, 0.25, 0.25)
    assert wide.attention_scale == 4 / 64


# --- normalization ---


def test_fused_layer_norm_equals_its_formula() -> None:
    fused, plain, x = LayerNorm(16, 1e-5), LayerNorm(16, 1e-5, fused=False), 3 * random(4, 16) + 1
    for norm in (fused, plain):
        norm.weight.data.copy_(random(16, seed=1))
        norm.bias.data.copy_(random(16, seed=2))
    assert torch.allclose(fused(x), plain(x), atol=1e-6)


def test_batch_norm_equals_torch_in_training_and_evaluation() -> None:
    ours, theirs = BatchNorm(6), torch.nn.BatchNorm1d(6)
    for step in range(3):
        x = 2 * random(9, 6, seed=step) + step
        assert torch.allclose(ours(x), theirs(x), atol=1e-5)
    ours.eval(), theirs.eval()
    assert torch.allclose(ours(x), theirs(x), atol=1e-5)
    assert torch.allclose(ours(x)[:1], ours(x[:1]), atol=1e-6)
    assert ours(random(2, 3, 6)).shape == (2, 3, 6)
    ours.train()
    with pytest.raises(ValueError, match="at least two examples"):
        ours(x[:1])


# --- dropout ---


def test_dropout_keeps_the_mean_and_alpha_dropout_the_variance_too() -> None:
    x, generator = random(400, 500), torch.Generator().manual_seed(1)
    dropped = dropout(x, 0.25, generator)
    assert (dropped == 0).float().mean().item() == pytest.approx(0.25, abs=0.01)
    kept = dropped != 0
    assert torch.allclose(dropped[kept], x[kept] / 0.75)
    alpha = alpha_dropout(x, 0.25, generator)
    assert alpha.mean().item() == pytest.approx(0.0, abs=0.02)
    assert alpha.std().item() == pytest.approx(1.0, abs=0.02)
    assert torch.equal(dropout(x, 0.0), x)
    assert torch.equal(alpha_dropout(x, 0.0), x)


@pytest.mark.parametrize("kind", [Dropout, AlphaDropout])
def test_dropout_layers_act_in_training_alone(kind: Any) -> None:
    torch.manual_seed(7)  # another than that of x: the same numbers would choose and be chosen
    layer, x = kind(0.25), random(400, 500)
    written = {Dropout: dropout, AlphaDropout: alpha_dropout}[kind](x, 0.25)
    dropped = layer(x)
    assert dropped.mean().item() == pytest.approx(written.mean().item(), abs=0.01)
    assert dropped.std().item() == pytest.approx(written.std().item(), abs=0.01)
    assert dropped.std().item() == pytest.approx(1.0 if kind is AlphaDropout else 0.75**-0.5, abs=0.02)
    layer.eval()
    assert torch.equal(layer(x), x)
    with pytest.raises(ValueError, match=r"in \[0, 1\), not 1.0"):
        kind(1.0)


def test_monte_carlo_dropout_is_on_inside_and_leaves_all_else_alone() -> None:
    torch.manual_seed(7)  # another than that of x: the same numbers would choose and be chosen
    parts = [torch.nn.Linear(4, 64), torch.nn.BatchNorm1d(64), Dropout(0.5), torch.nn.Dropout(0.5)]
    model = torch.nn.Sequential(*parts, torch.nn.Linear(64, 3)).eval()
    model[0].train()
    x = random(5, 4)
    with monte_carlo_dropout(model):
        assert [part.training for part in model] == [False, False, True, True, False]
        assert not torch.equal(model(x), model(x))
    assert [part.training for part in model] == [True, False, False, False, False]
    assert torch.equal(model(x), model(x))
    found = predict_with_dropout(model, x, passes=20, softmax=True)
    assert torch.allclose(found.mean.sum(dim=-1), torch.ones(5))
    assert (found.deviation > 0).all()
    with pytest.raises(ValueError, match="at least 2"):
        predict_with_dropout(model, x, passes=1)


# --- penalties and bounds ---


def test_penalties_have_the_gradients_of_their_formulas() -> None:
    model = torch.nn.Linear(3, 2)
    weights = weights_of(model)
    assert len(weights) == 1
    (l1_penalty(weights, 0.1) + l2_penalty(weights, 0.3)).backward()
    expected = 0.1 * model.weight.sign() + 0.3 * model.weight
    assert torch.allclose(model.weight.grad, expected)
    assert model.bias.grad is None


def test_max_norm_shortens_long_rows_alone() -> None:
    weight = torch.tensor([[3.0, 4.0], [0.3, 0.4], [0.0, 0.0]])
    max_norm_(weight, 1.0)
    assert torch.allclose(weight, torch.tensor([[0.6, 0.8], [0.3, 0.4], [0.0, 0.0]]))


# --- freezing ---


class Tower(torch.nn.Module):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(5, 4)
        self.blocks = torch.nn.ModuleList(torch.nn.Linear(4, 4) for _ in range(2))
        self.head = torch.nn.Linear(4, 3)

    def forward(self, x: Any) -> Any:
        x = self.embedding(x)
        for block in self.blocks:
            x = torch.relu(block(x))
        return self.head(x)


def test_gradual_unfreezing_goes_from_the_top_down() -> None:
    model = Tower()
    groups = layer_groups(model)
    assert [len(group) for group in groups] == [1, 2, 2, 2]
    schedule = GradualUnfreezing(groups)
    seen = []
    while True:
        seen.append([name for name, each in model.named_parameters() if each.requires_grad][0])
        if not schedule.advance():
            break
    assert seen == ["head.weight", "blocks.1.weight", "blocks.0.weight", "embedding.weight"]
    rates = [group["lr"] for group in discriminative_rates(groups, 1.0, factor=2.0)]
    assert rates == [0.125, 0.25, 0.5, 1.0]
    freeze(model)
    unfreeze(model.head)
    model(torch.arange(3)).sum().backward()
    assert [name for name, each in model.named_parameters() if each.grad is not None] == [
        "head.weight",
        "head.bias",
    ]
    with pytest.raises(UnsupportedError, match="no stack of layers"):
        layer_groups(torch.nn.Linear(2, 2))


# --- diagnosis ---


def test_diagnosis_tells_what_is_there_and_leaves_no_trace(tmp_path: Path) -> None:
    torch.manual_seed(7)  # another than that of x: the same numbers would choose and be chosen
    model = Tower()
    model.blocks[1].weight.data.zero_()
    model.blocks[1].bias.data.fill_(-1.0)
    model.head.weight.grad = torch.ones_like(model.head.weight)
    batch = (torch.arange(5)[None], torch.zeros(1, 5, dtype=torch.long))
    found = diagnose(model, batch)
    assert [layer.name for layer in found.layers] == ["embedding", "blocks.0", "blocks.1", "head"]
    expected = functional.cross_entropy(model(batch[0])[0], batch[1][0])
    assert found.loss == pytest.approx(expected.item())
    embedding = model.embedding.weight.detach()
    assert found.layers[0].activation_mean == pytest.approx(embedding.mean().item(), abs=1e-6)
    assert found.layers[0].weight_rms == pytest.approx(embedding.square().mean().sqrt().item(), rel=1e-5)
    assert found.layers[1].gradient_rms == 0.0  # the dead block above lets nothing through
    assert found.layers[3].gradient_rms > 0.0
    assert torch.equal(model.head.weight.grad, torch.ones_like(model.head.weight))
    assert model.embedding.weight.grad is None
    assert not any(module._forward_hooks for module in model.modules())
    assert "blocks.1" in str(found)
    assert "loss" in str(found)


def test_diagnosis_warns_of_dead_units_and_numbers_that_are_not() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))
    model[0].bias.data.fill_(-100.0)
    warnings = diagnose(model, (random(16, 4), random(16, 1))).warnings()
    assert any(warning.startswith("1: 100% of its units are 0") for warning in warnings)
    model[0].bias.data.fill_(math.nan)
    assert any(
        "not finite" in warning for warning in diagnose(model, (random(16, 4), random(16, 1))).warnings()
    )


def test_diagnosis_of_tokens_and_its_picture(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")

    class Head(Tower):
        def __init__(self) -> None:
            super().__init__()
            self.head = torch.nn.Linear(4, 5)

    found = diagnose(Head(), torch.randint(0, 5, (2, 7), generator=torch.Generator().manual_seed(0)))
    found.plot(tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
