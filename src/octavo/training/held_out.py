"""The loss on rows that nothing was trained on.  Legend: B rows of a micro-batch, T tokens of its longest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from octavo.data.conversations import Encoder, Example, read_examples
from octavo.data.packing import IGNORED, Batch
from octavo.errors import FormatError
from octavo.models.gpt import GPT
from octavo.training.losses import linear_cross_entropy

# Of one forward pass, padding included.  512 take a quarter less memory, and a twentieth more time.
_MICRO_TOKENS = 1024


def micro_batches(examples: Sequence[Example]) -> Iterator[Batch]:
    """Examples of like length together, the longest first."""
    ordered = sorted(examples, key=lambda example: -len(example.tokens))
    while ordered:
        length = -(-(len(ordered[0].tokens) - 1) // 16) * 16
        count = max(1, _MICRO_TOKENS // max(length, 1))
        part, ordered = ordered[:count], ordered[count:]
        inputs = np.zeros((len(part), length), np.int64)
        targets = np.full((len(part), length), IGNORED, np.int64)
        for row, example in enumerate(part):
            size = len(example.tokens) - 1
            inputs[row, :size] = example.tokens[:-1]
            # By position, never by the token's id: a padding token may be the end token.
            targets[row, :size] = np.where(example.learned[1:], example.tokens[1:], IGNORED)
        yield Batch(inputs, targets, np.broadcast_to(np.arange(length), inputs.shape), None)


def batch_tokens(longest: int) -> int:
    """The most tokens of one forward pass over rows of at most so many."""
    return max(_MICRO_TOKENS, longest)


def batch_loss(model: GPT, batch: Batch, scale: float) -> Tensor:
    """scale * the sum of the losses of learned tokens, in nats; no logits are made for others."""
    hidden = model.hidden(torch.from_numpy(batch.inputs), torch.from_numpy(batch.positions[0].copy()))
    targets = torch.from_numpy(batch.targets).flatten()
    return linear_cross_entropy(hidden.flatten(0, 1), model.head_weight, targets, scale)


@torch.no_grad()
def mean_loss(model: GPT, examples: Sequence[Example]) -> float:
    """Nats a learned token."""
    training = model.training
    model.eval()
    total, count = 0.0, 0
    for batch in micro_batches(examples):
        total += float(batch_loss(model, batch, 1.0))
        count += batch.target_count
    model.train(training)
    return total / count


def read_held_out(paths: Sequence[Path], encoder: Encoder, *, rows: int, context: int) -> list[Example]:
    """The first rows of files, cut to the context.  FormatError where none has a token to learn."""
    found = []
    for example in read_examples(paths, encoder):
        part = Example(example.tokens[:context], example.learned[:context], example.where)
        if part.learned[1:].any():
            found.append(part)
        if len(found) == rows:
            break
    if not found:
        raise FormatError(
            f"{', '.join(map(str, paths))}: no row has a token to learn within {context} tokens"
        )
    return found
