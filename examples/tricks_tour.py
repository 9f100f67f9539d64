"""A tour of docs/tricks.md: tricks on and off, in less than a minute.    python examples/tricks_tour.py"""

import math

import torch
from torch import Tensor, nn

from octavo.layers import diagnose
from octavo.layers.dropout import Dropout, predict_with_dropout
from octavo.layers.initialization import initialize
from octavo.layers.normalization import BatchNorm, LayerNorm
from octavo.training.clipping import clip_by_norm
from octavo.training.optimizers import build_optimizer
from octavo.training.schedules import build_schedule

torch.manual_seed(0)
inputs = torch.randn(512, 32)
targets = (inputs[:, :4].prod(dim=1) > 0).long()  # the parity of four signs: no linear model can tell


def network(depth: int, activation: type[nn.Module], norm: type[nn.Module] | None = None) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width in (32, *[64] * (depth - 1)):
        layers += [nn.Linear(width, 64), activation()]
        if norm is not None:
            layers.insert(-1, norm(64, 1e-5))
    return nn.Sequential(*layers, nn.Linear(64, 2))


def train(
    model: nn.Module,
    name: str = "adam",
    rate: float = 1e-3,
    *,
    steps: int = 150,
    schedule: str = "constant",
    batch: int = 512,
    goal: float = 0.0,
) -> tuple[float, int]:
    """The loss over all inputs at the end, and after how many steps; the goal ends it early."""
    optimizer = build_optimizer(name, model, learning_rate=rate, weight_decay=0.0)
    multiplier = build_schedule(schedule, warmup=0.1, final=0.01)
    for step in range(steps):
        rows = torch.randperm(len(inputs))[:batch]
        for group in optimizer.param_groups:
            group["lr"] = rate * multiplier((step + 1) / steps)
        optimizer.zero_grad()
        loss: Tensor = nn.functional.cross_entropy(model(inputs[rows]), targets[rows])
        loss.backward()
        clip_by_norm(model.parameters(), 1.0)
        optimizer.step()
        if loss.item() < goal:
            break
    with torch.no_grad():
        whole: Tensor = nn.functional.cross_entropy(model(inputs), targets)
    return whole.item(), step + 1


print("1. First weights: how much smaller are the gradients of the first of 30 layers than of the last?")
for activation, scheme in ((nn.Sigmoid, "glorot"), (nn.ReLU, "glorot"), (nn.ReLU, "he"), (nn.SELU, "lecun")):
    model = network(30, activation)
    initialize(model, scheme)
    layers = diagnose(model, (inputs, targets)).layers
    ratio = math.log10(layers[0].gradient_rms / layers[-2].gradient_rms)
    print(f"   {activation.__name__:>8} with {scheme:<7} 10^{ratio:+.1f}")

print("\n2. Normalization: the loss of 20 layers of tanh after 150 steps (knowing nothing: 0.693)")
for norm in (None, BatchNorm, LayerNorm):
    print(f"   {norm.__name__ if norm else 'none':>10}  {train(network(20, nn.Tanh, norm))[0]:.3f}")

print("\n3. Optimizers: steps until the loss of 4 layers is below 0.1, of at most 300")
rates = {"sgd": 0.1, "momentum": 0.1, "nesterov": 0.1, "adagrad": 0.02, "lion": 3e-4, "muon": 0.01}
for name in ("sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adam", "nadam", "adamw", "lion", "muon"):
    torch.manual_seed(1)
    loss, steps = train(network(4, nn.ReLU), name, rates.get(name, 2e-3), steps=300, goal=0.1)
    print(f"   {name:>10}  {steps if loss < 0.2 else 'not yet'}")

print("\n4. Schedules: the loss after 300 steps of momentum on batches of 16, at a peak rate of 0.1")
for schedule in ("constant", "linear", "cosine", "exponential", "one_cycle", "warmup_stable_decay"):
    torch.manual_seed(1)
    loss, _ = train(network(4, nn.ReLU), "momentum", 0.1, steps=300, schedule=schedule, batch=16)
    print(f"   {schedule:>20}  {loss:.3f}")

print("\n5. Monte-Carlo dropout: how unsure is the model of what it has seen, and of what is far away?")
model = nn.Sequential(nn.Linear(32, 128), nn.ReLU(), Dropout(0.3), nn.Linear(128, 2))
train(model, steps=200)
for what, batch in (("seen", inputs), ("3 times as far out", 3 * torch.randn(512, 32))):
    deviation = predict_with_dropout(model, batch, passes=30).deviation.mean().item()
    print(f"   {what:>20}  deviation of the scores {deviation:.3f}")

print("\n6. What the diagnosis says of 40 layers of sigmoids")
model = network(40, nn.Sigmoid)
initialize(model, "glorot")
for warning in diagnose(model, (inputs, targets)).warnings():
    print(f"   {warning}")
