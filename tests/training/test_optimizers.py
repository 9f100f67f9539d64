"""The optimizers against torch's where torch has them, and against their formulas where it has not."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from octavo.errors import UnsupportedError  # noqa: E402
from octavo.model_config import ModelConfig  # noqa: E402
from octavo.models.gpt import GPT  # noqa: E402
from octavo.training.clipping import clip_by_norm, clip_by_value  # noqa: E402
from octavo.training.optimizers import (  # noqa: E402
    OPTIMIZERS,
    SGD,
    AdaGrad,
    Adam,
    AdaMax,
    AdamW,
    Lion,
    Muon,
    NAdam,
    RMSProp,
    build_optimizer,
    hidden_matrices,
    orthogonalize,
)

STEPS = 20


def network(dtype: Any = torch.float32) -> Any:
    torch.manual_seed(5)
    layers = [torch.nn.Linear(6, 10), torch.nn.Tanh(), torch.nn.Linear(10, 10), torch.nn.Linear(10, 3)]
    return torch.nn.Sequential(*layers).to(dtype)


def run(build: Callable[[Any], Any], model: Any, steps: int = STEPS) -> Any:
    """The model after some steps on random regression, a new batch each step."""
    optimizer = build(model)
    dtype = next(model.parameters()).dtype
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        inputs = torch.randn(16, 6, generator=generator).to(dtype)
        optimizer.zero_grad()
        (model(inputs) - inputs[:, :3].sin()).square().mean().backward()
        optimizer.step()
    return model


def furthest(ours: Any, theirs: Any) -> float:
    pairs = zip(ours.parameters(), theirs.parameters(), strict=True)
    return max((a - b).abs().max().item() for a, b in pairs)


PAIRS = {
    "sgd": (lambda p: SGD(p, 0.1, weight_decay=0.1), lambda p: torch.optim.SGD(p, 0.1, weight_decay=0.1)),
    "momentum": (lambda p: SGD(p, 0.1, momentum=0.9), lambda p: torch.optim.SGD(p, 0.1, momentum=0.9)),
    "nesterov": (
        lambda p: SGD(p, 0.1, momentum=0.9, nesterov=True),
        lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, nesterov=True),
    ),
    "adagrad": (
        lambda p: AdaGrad(p, 0.1, weight_decay=0.1),
        lambda p: torch.optim.Adagrad(p, 0.1, weight_decay=0.1),
    ),
    "rmsprop": (
        lambda p: RMSProp(p, 0.01, weight_decay=0.1),
        lambda p: torch.optim.RMSprop(p, 0.01, weight_decay=0.1),
    ),
    "adam": (
        lambda p: Adam(p, 0.01, weight_decay=0.1),
        lambda p: torch.optim.Adam(p, 0.01, weight_decay=0.1),
    ),
    "adamax": (
        lambda p: AdaMax(p, 0.01, weight_decay=0.1),
        lambda p: torch.optim.Adamax(p, 0.01, weight_decay=0.1),
    ),
    "nadam": (
        lambda p: NAdam(p, 0.01, weight_decay=0.1),
        lambda p: torch.optim.NAdam(p, 0.01, weight_decay=0.1),
    ),
    "adamw": (
        lambda p: AdamW(p, 0.01, weight_decay=0.1, fused=False),
        lambda p: torch.optim.AdamW(p, 0.01, weight_decay=0.1),
    ),
    "adamw-fused": (
        lambda p: AdamW(p, 0.01, weight_decay=0.1),
        lambda p: torch.optim.AdamW(p, 0.01, weight_decay=0.1),
    ),
}


@pytest.mark.parametrize("name", PAIRS)
def test_rules_equal_torch(name: str) -> None:
    ours, theirs = PAIRS[name]
    start = network()
    mine = run(lambda model: ours(model.parameters()), network())
    their = run(lambda model: theirs(model.parameters()), network())
    assert furthest(mine, their) < 1e-6
    assert furthest(mine, start) > 1e-2


def test_fused_adamw_equals_the_written_rule_in_float64() -> None:
    results = [
        run(lambda model, fused=fused: AdamW(model.parameters(), 0.01, fused=fused), network(torch.float64))
        for fused in (False, True)
    ]
    assert furthest(*results) < 1e-12


def test_lion_is_its_formula() -> None:
    theta = torch.nn.Parameter(torch.tensor([1.0, -2.0, 3.0]))
    optimizer = Lion([theta], 0.1, betas=(0.9, 0.99), weight_decay=0.5)
    expected, mean = theta.detach().clone(), torch.zeros(3)
    for step in range(STEPS):
        gradient = torch.tensor([1.0, -0.2, 0.5]) * torch.tensor([1.0, (-1.0) ** step, 1.0 - 0.1 * step])
        theta.grad = gradient.clone()
        optimizer.step()
        expected = expected - 0.1 * (torch.sign(0.9 * mean + 0.1 * gradient) + 0.5 * expected)
        mean = 0.99 * mean + 0.01 * gradient
    assert torch.allclose(theta, expected, atol=1e-6)


@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 5, 12), (2, 12, 5)])
def test_orthogonalize_makes_all_singular_values_near_one_and_keeps_the_directions(shape: Any) -> None:
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    result = orthogonalize(matrices, dtype=torch.float64)
    values = torch.linalg.svdvals(result)
    assert values.min() > 0.6
    assert values.max() < 1.25
    left, _, right = torch.linalg.svd(matrices, full_matrices=False)
    turned = left.mT @ result @ right.mT  # diagonal if the directions are the same
    assert (turned - torch.diag_embed(turned.diagonal(dim1=-2, dim2=-1))).abs().max() < 1e-9
    alone = torch.stack([orthogonalize(each[None], dtype=torch.float64)[0] for each in matrices])
    assert torch.allclose(alone, result, atol=1e-12)


@pytest.mark.parametrize("matching", ["adam", "spectral"])
def test_muon_equals_torch_when_both_iterate_in_float32(
    matching: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not hasattr(torch.optim, "Muon"):
        pytest.skip("this torch has no Muon")
    monkeypatch.setattr(torch.Tensor, "bfloat16", lambda self: self)
    theirs = {"adam": "match_rms_adamw", "spectral": "original"}[matching]

    def matrices(model: Any) -> list[Any]:
        return [each for each in model.parameters() if each.ndim == 2]

    mine = run(
        lambda model: Muon(
            matrices(model), learning_rate=0.02, weight_decay=0.1, matching=matching, dtype="float32"
        ),
        network(),
    )
    their = run(
        lambda model: torch.optim.Muon(matrices(model), 0.02, weight_decay=0.1, adjust_lr_fn=theirs),
        network(),
    )
    assert furthest(mine, their) < 5e-6
    assert furthest(mine, network()) > 1e-2


def test_muon_takes_matrices_of_blocks_and_leaves_the_rest_to_adamw() -> None:
    config = ModelConfig(
        architecture="llama", vocabulary_size=20, context_length=32, hidden_size=16, layers=2, heads=4,
        key_value_heads=2, head_width=4, feed_forward_size=24, attention_scale=0.5,
    )  # fmt: skip
    model = GPT(config)
    names = hidden_matrices(model)
    assert all(name.startswith("blocks.") for name in names)
    assert len(names) == 2 * 7
    optimizer = build_optimizer("muon", model, learning_rate=0.01, weight_decay=0.1)
    rules = [(group["rule"], group["weight_decay"], len(group["params"])) for group in optimizer.param_groups]
    total = sum(1 for _ in model.parameters())
    assert rules == [("muon", 0.1, 14), ("adamw", 0.1, 1), ("adamw", 0.0, total - 15)]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_learns_and_resumes_from_plain_state(name: str) -> None:
    rate = {"adagrad": 0.1, "lion": 0.003}.get(name, 0.02)

    def build(model: Any) -> Any:
        return build_optimizer(name, model, learning_rate=rate, weight_decay=0.01)

    inputs = torch.randn(64, 6, generator=torch.Generator().manual_seed(2))

    def advance(model: Any, optimizer: Any, steps: int) -> float:
        for _ in range(steps):
            optimizer.zero_grad()
            loss = (model(inputs) - inputs[:, :3].sin()).square().mean()
            loss.backward()
            optimizer.step()
        return loss.item()

    model = network()
    optimizer = build(model)
    first = advance(model, optimizer, 1)
    advance(model, optimizer, 9)
    saved, weights = optimizer.state_dict(), copy.deepcopy(model.state_dict())
    assert all(torch.is_tensor(each) for state in saved["state"].values() for each in state.values())
    groups = json.loads(json.dumps(saved["param_groups"]))  # plain JSON, or this raises
    copied = {"state": copy.deepcopy(saved["state"]), "param_groups": groups}
    last = advance(model, optimizer, 10)
    assert last < 0.9 * first

    other = network()
    other.load_state_dict(weights)
    resumed = build(other)
    resumed.load_state_dict(copied)
    advance(other, resumed, 10)
    assert furthest(model, other) == 0.0


def test_unknown_names_and_options_are_named() -> None:
    model = network()
    with pytest.raises(UnsupportedError, match="'adamx' is not known; there are sgd, momentum"):
        build_optimizer("adamx", model, learning_rate=1.0, weight_decay=0.0)
    with pytest.raises(UnsupportedError, match="adam has no option 'momentum'; it has betas, epsilon"):
        build_optimizer("adam", model, learning_rate=1.0, weight_decay=0.0, momentum=0.9)
    with pytest.raises(ValueError, match="dtype is 'float16'"):
        build_optimizer("muon", model, learning_rate=1.0, weight_decay=0.0, dtype="float16")
    with pytest.raises(ValueError, match="one parameter has the shape"):
        Muon([torch.nn.Parameter(torch.zeros(3))], learning_rate=1.0)
    with pytest.raises(ValueError, match="nesterov needs a momentum"):
        SGD(model.parameters(), 0.1, nesterov=True)
    model.requires_grad_(False)
    with pytest.raises(UnsupportedError, match="all are frozen"):
        build_optimizer("adam", model, learning_rate=1.0, weight_decay=0.0)


def test_gains_and_biases_do_not_decay() -> None:
    optimizer = build_optimizer("adamw", network(), learning_rate=0.1, weight_decay=0.3)
    decays = {
        group["weight_decay"]: {each.ndim for each in group["params"]} for group in optimizer.param_groups
    }
    assert decays == {0.3: {2}, 0.0: {1}}


def with_gradients(*gradients: list[float]) -> list[Any]:
    parameters = [torch.nn.Parameter(torch.zeros(len(each))) for each in gradients]
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = torch.tensor(gradient)
    return [*parameters, torch.nn.Parameter(torch.zeros(1))]  # one that was not used


def test_clipping_by_norm_keeps_the_direction_and_by_value_does_not() -> None:
    parameters = with_gradients([3.0, 0.0], [4.0])
    assert clip_by_norm(parameters, 1.0).item() == pytest.approx(5.0)
    assert parameters[0].grad.tolist() == pytest.approx([0.6, 0.0])
    assert parameters[1].grad.tolist() == pytest.approx([0.8])
    assert clip_by_norm(parameters, 2.0).item() == pytest.approx(1.0)
    assert parameters[1].grad.tolist() == pytest.approx([0.8])
    parameters = with_gradients([3.0, -0.5], [-4.0])
    clip_by_value(parameters, 1.0)
    assert [each.grad.tolist() for each in parameters[:2]] == [[1.0, -0.5], [-1.0]]


def test_clipping_leaves_gradients_that_are_not_finite_to_be_seen() -> None:
    parameters = with_gradients([float("inf"), 1.0], [2.0])
    assert not clip_by_norm(parameters, 1.0).isfinite()
    assert parameters[1].grad.tolist() == [2.0]
    with pytest.raises(ValueError, match="above 0"):
        clip_by_norm(parameters, 0.0)
    assert clip_by_norm(with_gradients(), 1.0).item() == 0.0
