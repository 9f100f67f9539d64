"""What flows through a model, layer by layer: do activations and gradients vanish, explode or die?

The picture of Glorot and Bengio 2010 (figures 2 to 7), for any model and batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

Loss = Callable[[nn.Module, Any], Tensor]


@dataclass(frozen=True)
class LayerStatistics:
    """One layer, in the order in which the batch went through; deviations and rms are over all elements.

    dead: the part of units (last dimension) that are 0 for the whole batch.  The weight's figures are of the
    layer's parameters together and 0 where it has none.
    """

    name: str
    kind: str
    activation_mean: float
    activation_deviation: float
    dead: float
    gradient_rms: float  # of the loss, with respect to what the layer gives
    weight_rms: float
    weight_gradient_rms: float

    @property
    def gradient_to_weight(self) -> float:
        """The size of the gradient over that of the weight: layers far from the others learn apart."""
        return self.weight_gradient_rms / self.weight_rms if self.weight_rms else 0.0


@dataclass(frozen=True)
class Diagnosis:
    """The statistics of every layer, and the loss; print it, or `plot` it."""

    loss: float
    layers: tuple[LayerStatistics, ...]

    def warnings(self) -> list[str]:
        """What is out of the ordinary, in words; none if all is well."""
        found = [
            f"{layer.name}: {layer.dead:.0%} of its units are 0 for the whole batch"
            for layer in self.layers
            if layer.dead > 0.5
        ]
        found += [f"{layer.name}: not finite" for layer in self.layers if not _is_finite(layer)]
        for what, sizes in (
            ("gradients", [layer.gradient_rms for layer in reversed(self.layers)]),
            ("activations", [layer.activation_deviation for layer in self.layers]),
        ):
            sizes = [size for size in sizes if size > 0 and math.isfinite(size)]
            ratio = sizes[-1] / sizes[0] if sizes else 1.0
            if not 1e-3 < ratio < 1e3:
                direction = "from the output to the input" if what == "gradients" else "with depth"
                verb = "vanish" if ratio < 1 else "explode"
                found.append(f"{what} {verb}: they change by a factor of {ratio:.1e} {direction}")
        return found

    def __str__(self) -> str:
        rows = [f"{'layer':<40}{'mean':>10}{'deviation':>11}{'dead':>6}{'gradient':>10}{'grad/weight':>12}"]
        for layer in self.layers:
            rows.append(
                f"{layer.name[-39:]:<40}{layer.activation_mean:>10.3g}{layer.activation_deviation:>11.3g}"
                f"{layer.dead:>6.0%}{layer.gradient_rms:>10.2e}{layer.gradient_to_weight:>12.2e}"
            )
        return "\n".join([*rows, f"loss {self.loss:.4g}", *self.warnings()])

    def plot(self, path: Path | str) -> None:
        """Writes the picture to a file (png, svg or pdf, by its ending); needs matplotlib."""
        from matplotlib.figure import Figure

        depth = range(len(self.layers))
        figure = Figure(figsize=(max(6.0, 0.25 * len(self.layers)), 9.0), layout="constrained")
        panels = figure.subplots(3, 1, sharex=True)
        means = [layer.activation_mean for layer in self.layers]
        deviations = [layer.activation_deviation for layer in self.layers]
        panels[0].errorbar(depth, means, yerr=deviations, fmt="o", markersize=3, capsize=2)
        panels[0].set_ylabel("activation: mean, deviation")
        panels[1].plot(depth, [layer.gradient_rms for layer in self.layers], "o-", markersize=3)
        panels[1].set_ylabel("gradient of the output (rms)")
        panels[2].plot(depth, [layer.gradient_to_weight for layer in self.layers], "s", markersize=3)
        panels[2].set_ylabel("gradient / weight")
        for panel in panels[1:]:
            panel.set_yscale("log", nonpositive="mask")
        panels[2].set_xticks(list(depth), [layer.name for layer in self.layers], rotation=90, fontsize=6)
        figure.suptitle(f"loss {self.loss:.4g}")
        figure.savefig(path)


def diagnose(model: nn.Module, batch: Any, loss: Loss | None = None) -> Diagnosis:
    """One forward and one backward pass of a batch, with the statistics of every layer that was used.

    batch: int tokens [B, T] (each token is to be told from those before it), or a pair (inputs, targets) with
        class indices or numbers as targets; with `loss`, whatever it takes as its second argument.
    The model's gradients, mode and weights are as before when it returns.
    """
    parameters = list(model.parameters())
    kept = [parameter.grad for parameter in parameters]
    for parameter in parameters:
        parameter.grad = None
    try:
        with torch.enable_grad(), _watched(model) as outputs:
            value = (loss or default_loss)(model, batch)
            value.backward()  # type: ignore[no-untyped-call]
        layers = tuple(_statistics(name, module, output) for name, module, output in outputs)
    finally:
        for parameter, gradient in zip(parameters, kept, strict=True):
            parameter.grad = gradient
    return Diagnosis(value.item(), layers)


def default_loss(model: nn.Module, batch: Any) -> Tensor:
    """Cross-entropy for targets that are whole numbers, else mean squared error; batch as in `diagnose`."""
    inputs, targets = (batch[:, :-1], batch[:, 1:]) if isinstance(batch, Tensor) else batch
    outputs = model(inputs)
    if targets.is_floating_point():
        squared: Tensor = (outputs - targets).square().mean()
        return squared
    loss: Tensor = nn.functional.cross_entropy(outputs.flatten(0, -2), targets.flatten())
    return loss


@contextmanager
def _watched(model: nn.Module) -> Iterator[list[tuple[str, nn.Module, Tensor]]]:
    """Collects (name, module, output) of the modules without children, in the order of their calls."""
    outputs: list[tuple[str, nn.Module, Tensor]] = []
    hooks = []
    for name, module in model.named_modules():
        if next(module.children(), None) is None:

            def keep(module: nn.Module, _: Any, output: Any, name: str = name) -> None:
                if isinstance(output, Tensor) and output.is_floating_point():
                    if output.requires_grad:
                        output.retain_grad()
                    outputs.append((name, module, output))

            hooks.append(module.register_forward_hook(keep))
    try:
        yield outputs
    finally:
        for hook in hooks:
            hook.remove()


def _statistics(name: str, module: nn.Module, output: Tensor) -> LayerStatistics:
    values = output.detach().float()
    units = values.flatten(0, -2) if values.ndim > 1 else values[None]
    parameters = list(module.parameters(recurse=False))
    return LayerStatistics(
        name=name or type(module).__name__,
        kind=type(module).__name__,
        activation_mean=values.mean().item(),
        activation_deviation=values.std(correction=0).item(),
        dead=(units == 0).all(dim=0).float().mean().item(),
        gradient_rms=0.0 if output.grad is None else _rms([output.grad]),
        weight_rms=_rms(parameters),
        weight_gradient_rms=_rms([each.grad for each in parameters if each.grad is not None]),
    )


def _rms(tensors: list[Any]) -> float:
    count = sum(each.numel() for each in tensors)
    squares = sum(each.detach().double().square().sum().item() for each in tensors)
    return math.sqrt(squares / count) if count and math.isfinite(squares) else (math.nan if count else 0.0)


def _is_finite(layer: LayerStatistics) -> bool:
    return all(math.isfinite(each) for each in (layer.activation_deviation, layer.gradient_rms))
