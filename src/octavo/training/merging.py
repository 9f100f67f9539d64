"""What merging costs: the loss of each way to make an adapter part of its model, on rows held out.

An adapter was trained beside a base, quantized or not.  Its product may be added to
    base        the base's own values, unpacked, kept in bfloat16: what the adapter was trained on;
    original    the 16-bit weights that the base was quantized from: the quantization error, which the adapter
                has learned to live with, goes away (or comes in, as a stray term);
    quantized   the base's own values, and the sum quantized anew.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from octavo.adapters.base import build_adapted
from octavo.adapters.encoding import encode
from octavo.adapters.merge import merged_tensors
from octavo.data.conversations import Example
from octavo.models.loading import build_trainable
from octavo.training.held_out import mean_loss
from octavo.weights.adapter import Adapter, read_adapter
from octavo.weights.checkpoint import Checkpoint
from octavo.weights.tensor import TensorType


@dataclass(frozen=True, slots=True)
class TargetLoss:
    """loss: in nats a learned token."""

    target: str
    loss: float


def measure_targets(
    checkpoint: Checkpoint,
    adapter: Adapter,
    examples: Sequence[Example],
    quantized: TensorType,
    original: Checkpoint | None = None,
) -> Iterator[TargetLoss]:
    """The adapter beside its base first, then each target; computed in float32, one model at a time."""
    model, _ = build_adapted(
        checkpoint.config, checkpoint.tensors, adapter.config, initial=adapter, dtype=torch.float32
    )
    yield TargetLoss("beside the base", mean_loss(model, examples))
    del model
    yield TargetLoss("base, bf16", _merged_loss(checkpoint, adapter, examples, TensorType.BF16))
    if original is not None:
        again = read_adapter(adapter.path, original.config)  # it must fit there, too
        yield TargetLoss("original, bf16", _merged_loss(original, again, examples, TensorType.BF16))
    name = f"base, {quantized.name.lower()}"
    yield TargetLoss(name, _merged_loss(checkpoint, adapter, examples, quantized))


def _merged_loss(
    checkpoint: Checkpoint, adapter: Adapter, examples: Sequence[Example], kind: TensorType
) -> float:
    tensors = {
        name: encode(name, values, kind).numpy() for name, values in merged_tensors(checkpoint, adapter)
    }
    return mean_loss(build_trainable(checkpoint.config, tensors), examples)
