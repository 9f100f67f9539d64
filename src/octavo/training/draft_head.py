"""Training a draft head on a model's own answers and the hidden states behind them.

Its formula is in octavo/adapters/draft_head.py.

The head starts from the model's state at a place of a text, reads the text's own next tokens, and carries its
own state on.  At each depth its law is pulled to the model's: the model's hidden states are recorded, so the
whole law is known, not only the token that was drawn.

B: stretches of a batch, L: places where a draft begins in each, K: depths, H: hidden size, D: tokens that the
head can say, U: tokens that the answers use.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from octavo.adapters.draft_head import (
    CONFIG_NAME,
    KIND,
    NORM_EPSILON,
    TENSORS_NAME,
    VERSION,
    DraftHeadConfig,
    fingerprint,
)
from octavo.data.hidden_states import HiddenStates
from octavo.errors import FormatError
from octavo.models.saving import write_aside
from octavo.training.causal import Validation
from octavo.training.checkpoints import FOLDER as CHECKPOINTS
from octavo.training.draft_config import DraftConfig
from octavo.training.loop import Trainer, TrainingResult, View
from octavo.training.precision import choose_precision
from octavo.weights.checkpoint import Checkpoint
from octavo.weights.tensor import Tensor as StoredTensor

_KEPT_OUT_OF = 16  # one prompt of so many is kept back
_MOST_KEPT = 2048  # places of them that are looked at
_LATER_COUNTS = 0.9  # each depth by the one before: it is reached more rarely
_SEEN_FOR_SCALE = 4096  # rows
_ROWS = 8192  # of an output matrix at once


class DraftNetwork(nn.Module):
    """The head in PyTorch; its parameters have the names of the file."""

    def __init__(self, config: DraftHeadConfig) -> None:
        super().__init__()
        hidden, inner = config.hidden_size, config.inner_size
        self.token_norm = nn.RMSNorm(hidden, eps=NORM_EPSILON)
        self.state_norm = nn.RMSNorm(hidden, eps=NORM_EPSILON)
        self.inner_norm = nn.RMSNorm(hidden, eps=NORM_EPSILON)
        self.output_norm = nn.RMSNorm(hidden, eps=NORM_EPSILON)
        self.input = nn.Linear(2 * hidden, hidden, bias=False)
        self.gate = nn.Linear(hidden, inner, bias=False)
        self.up = nn.Linear(hidden, inner, bias=False)
        self.down = nn.Linear(inner, hidden, bias=False)
        self.output = nn.Linear(hidden, config.draft_tokens, bias=False)

    def forward(self, embedded: Tensor, states: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings of the newest tokens and the states before them, [..., H]: logits [..., D] and the
        states after them [..., H]."""
        x = self.input(torch.cat([self.token_norm(embedded), self.state_norm(states)], dim=-1))
        n = self.inner_norm(x.float())  # norms are float32 where products are bfloat16
        x = x + self.down(functional.silu(self.gate(n)) * self.up(n))
        after = self.output_norm(x.float())
        return self.output(after), after

    @torch.no_grad()
    def begin(self, output: Tensor, seed: int) -> None:
        """As if the state stayed what it is.  output: the model's own rows [D, H], for scaled states."""
        generator = torch.Generator().manual_seed(seed)
        hidden = self.input.out_features
        for linear in (self.input, self.gate, self.up):
            linear.weight.normal_(0.0, linear.in_features**-0.5, generator=generator)
        self.input.weight[:, hidden:] *= 0.1
        self.input.weight[:, hidden:] += torch.eye(hidden)
        self.down.weight.zero_()
        self.output.weight.copy_(output)


@dataclass(frozen=True, eq=False)
class DraftBatch:
    """tokens int64 [B, L + K]: row numbers of the embeddings.  states float32 [B, L + K, H], scaled.
    answers [B, L + K]: whose rows they are."""

    tokens: Tensor
    states: Tensor
    answers: Tensor
    depths: int

    @property
    def token_count(self) -> int:
        return self.tokens.shape[0] * (self.tokens.shape[1] - self.depths)

    target_count = token_count

    def follows(self, depth: int) -> Tensor:
        """Where the places begin and `depth` further are one answer, bool [B, L]."""
        length = self.tokens.shape[1] - self.depths
        return self.answers[:, :length] == self.answers[:, depth : depth + length]


class DraftHeadTask:
    """A task of `training/loop.py`.  Raises FormatError where there is too little to learn from."""

    forward_methods: tuple[str, ...] = ("forward",)
    tokenizer = None

    def __init__(
        self, config: DraftConfig, checkpoint: Checkpoint, vocabulary: list[str], rows: HiddenStates
    ) -> None:
        self.config, self.softcap = config, checkpoint.config.logit_softcap
        window = config.length + config.depths
        kept = rows.groups % _KEPT_OUT_OF == 0
        if len(np.unique(rows.groups)) < 2 or (~kept).sum() < 4 * window:
            raise FormatError(f"{len(rows)} tokens of answers are too few to train on: give more prompts")
        self.rows, self.kept = rows.part(~kept), rows.part(kept)
        self.chosen = choose_tokens(rows.tokens, config.draft_tokens, checkpoint.config.vocabulary_size)
        hidden = checkpoint.config.hidden_size
        self.head = DraftHeadConfig(
            model=checkpoint.path.name,
            fingerprint=fingerprint(checkpoint, vocabulary),
            hidden_size=hidden,
            vocabulary_size=checkpoint.config.vocabulary_size,
            inner_size=config.inner_size or 2 * hidden,
            draft_tokens=len(self.chosen),
            depths=config.depths,
        )
        self.used = np.unique(rows.tokens)
        self.embeddings = torch.from_numpy(rows_of(checkpoint.tensors["token_embd.weight"], self.used))
        output = checkpoint.tensors.get("output.weight", checkpoint.tensors["token_embd.weight"])
        some = np.asarray(self.rows.states[:_SEEN_FOR_SCALE], np.float32)
        sizes = np.sqrt(np.mean(some**2, axis=0) + 1e-12)
        self.scale = torch.from_numpy(1 / sizes)
        self.frozen = torch.from_numpy(rows_of(output, self.chosen) * sizes)
        self.model = DraftNetwork(self.head)
        self.model.begin(self.frozen, config.seed)
        self._bfloat16 = config.precision == "bfloat16"
        self.frozen_low = self.frozen.bfloat16() if self._bfloat16 else self.frozen
        self._greedy = greedy_tokens(output, self._kept_rows().states)
        parameters = sum(each.numel() for each in self.model.parameters())
        self.flops_per_token = config.depths * 6.0 * parameters + 2.0 * self.frozen.numel()
        self.fingerprint = hashlib.sha256(rows.tokens.tobytes()).hexdigest()

    @property
    def kept_targets(self) -> int:
        """Places that a validation looks at."""
        return len(self._kept_rows())

    def batches(self, step: int, rank: int = 0, world: int = 1) -> list[DraftBatch]:
        """One batch, drawn by seed and step."""
        generator = np.random.Generator(np.random.PCG64([self.config.seed, step]))
        window = self.config.length + self.config.depths
        starts = generator.integers(0, len(self.rows) - window, self.config.segments)
        return [self._batch(self.rows, starts[:, None] + np.arange(window))]

    def _batch(self, rows: HiddenStates, places: NDArray[np.integer]) -> DraftBatch:
        return DraftBatch(
            torch.from_numpy(np.searchsorted(self.used, rows.tokens[places])),
            torch.from_numpy(np.asarray(rows.states[places], np.float32)) * self.scale,
            torch.from_numpy(rows.answers[places]),
            self.config.depths,
        )

    def loss(self, module: DraftNetwork, batch: DraftBatch, scale: float) -> Tensor:
        """scale * the sum over places of the mean over depths of the cross-entropy with the model's law."""
        length = batch.tokens.shape[1] - batch.depths
        laws = self._laws(batch.states[:, 1:])
        total, weights = torch.zeros(()), 0.0
        with torch.autocast("cpu", torch.bfloat16, enabled=self._bfloat16):
            state = batch.states[:, :length]
            for depth in range(1, batch.depths + 1):
                embedded = self.embeddings[batch.tokens[:, depth - 1 : depth - 1 + length]]
                logits, state = module(embedded, state)
                losses = -(laws[:, depth - 1 : depth - 1 + length] * logits.float().log_softmax(-1)).sum(-1)
                total = total + _LATER_COUNTS**depth * (losses * batch.follows(depth)).sum()
                weights += _LATER_COUNTS**depth
        return total * (scale / weights)

    @torch.no_grad()
    def _laws(self, states: Tensor) -> Tensor:
        """The model's law over the head's tokens, after scaled states [..., H]: [..., D]."""
        logits = (states.to(self.frozen_low.dtype) @ self.frozen_low.T).float()
        if self.softcap:
            logits = self.softcap * torch.tanh(logits / self.softcap)
        return logits.softmax(-1)

    def validate(self, module: DraftNetwork, *, whole: bool = False) -> Validation | None:
        """The loss on prompts kept back, and the acceptance at each depth as scores."""
        batch = self._kept_batch()
        with torch.no_grad():
            loss = float(self.loss(module, batch, 1.0 / max(batch.target_count, 1)))
        shares = self.acceptance(module)
        return Validation(loss, 0.0, {f"depth {depth}": share for depth, share in enumerate(shares, 1)})

    def _kept_rows(self) -> HiddenStates:
        count = min(len(self.kept), _MOST_KEPT)
        return self.kept.part(np.arange(len(self.kept)) < count)

    def _kept_batch(self) -> DraftBatch:
        return self._batch(self._kept_rows(), np.arange(self.kept_targets)[None])

    @torch.no_grad()
    def acceptance(self, module: DraftNetwork) -> tuple[float, ...]:
        """At each depth, how often the head's likeliest token is the model's, where the tokens between were
        the text's; on prompts kept back."""
        batch, greedy = self._kept_batch(), torch.from_numpy(self._greedy)[None]
        chosen, length = torch.from_numpy(self.chosen), batch.tokens.shape[1] - batch.depths
        state, shares = batch.states[:, :length], []
        for depth in range(1, batch.depths + 1):
            embedded = self.embeddings[batch.tokens[:, depth - 1 : depth - 1 + length]]
            logits, state = module(embedded, state)
            right = chosen[logits.argmax(-1)] == greedy[:, depth : depth + length]
            there = batch.follows(depth)
            shares.append(float((right & there).sum()) / max(int(there.sum()), 1))
        return tuple(shares)

    def sample(self, module: DraftNetwork, seed: int) -> str:
        """Nothing: a head says nothing by itself."""
        return ""

    def save(self, folder: Path, parameters: dict[str, Tensor] | None = None) -> None:
        """The folder that `octavo run --draft` takes; every file is written aside and renamed."""
        from safetensors.torch import save

        state = self.model.state_dict() if parameters is None else parameters
        tensors = {
            name: value.to(torch.float32 if value.dim() == 1 else torch.float16).contiguous()
            for name, value in state.items()
        }
        tensors["state_scale"] = self.scale
        tensors["tokens"] = torch.from_numpy(self.chosen)
        write_aside(folder / TENSORS_NAME, save(tensors))
        head = replace(self.head, acceptance=tuple(round(each, 4) for each in self.acceptance(self.model)))
        facts = {"model_type": KIND, "version": VERSION, **asdict(head)}
        write_aside(folder / CONFIG_NAME, (json.dumps(facts, indent=1) + "\n").encode())


def choose_tokens(said: NDArray[np.int32], most: int, vocabulary_size: int) -> NDArray[np.int32]:
    """Rising ids int32 of the commonest tokens, a multiple of 32 of them; where fewer were said, the first
    ids of the vocabulary fill up, which byte-pair encodings gave to what is common."""
    most = max(min(most, vocabulary_size) // 32 * 32, min(32, vocabulary_size // 16 * 16))
    counts = np.bincount(said, minlength=vocabulary_size)
    return np.sort(np.argsort(-counts, kind="stable")[:most]).astype(np.int32)


def rows_of(tensor: StoredTensor, rows: NDArray[np.integer]) -> NDArray[np.float32]:
    """Some rows of a stored matrix, float32 [rows, columns]."""
    data = tensor.data.reshape(tensor.shape[0], -1)[rows]
    return StoredTensor(tensor.name, tensor.type, (len(rows), tensor.shape[1]), data.reshape(-1)).numpy()


def greedy_tokens(output: StoredTensor, states: NDArray[np.float16]) -> NDArray[np.int64]:
    """The likeliest token of all the vocabulary after each state, int64 [rows]."""
    wide = torch.from_numpy(np.asarray(states, np.float32))
    best, tokens = torch.full((len(wide),), -torch.inf), torch.zeros(len(wide), dtype=torch.int64)
    for first in range(0, output.shape[0], _ROWS):
        part = rows_of(output, np.arange(first, min(first + _ROWS, output.shape[0])))
        values, places = (wide @ torch.from_numpy(part).T).max(-1)
        tokens = torch.where(values > best, places + first, tokens)
        best = torch.maximum(best, values)
    return tokens.numpy()


def train_draft_head(
    config: DraftConfig,
    checkpoint: Checkpoint,
    vocabulary: list[str],
    rows: HiddenStates,
    *,
    view: View | None = None,
) -> TrainingResult:
    """Train a head for a model on rows that `octavo.drafting.recording` made; `out` becomes its folder.

    Ctrl-C saves what is there.  Raises FormatError for too few rows.
    """
    hidden = checkpoint.config.hidden_size
    config = replace(
        config,
        architecture="draft head",
        hidden_size=hidden,
        layers=1,
        batch_tokens=config.segments * config.length,
        learning_rate=config.learning_rate or config.default_learning_rate(hidden),
        precision=choose_precision(config.precision, hidden),
    )
    result = Trainer(config, DraftHeadTask(config, checkpoint, vocabulary, rows), view).run()
    # A head is made in minutes: nothing is resumed.
    shutil.rmtree(Path(config.out) / CHECKPOINTS, ignore_errors=True)
    return result
