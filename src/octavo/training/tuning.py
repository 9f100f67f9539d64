"""Fine-tuning: a base model, rows to learn, and the training loop as it is.

`Tuning` is a task of `training/loop.py` whose `model` is what gets trained: the adapters (the base computes
beside them, frozen), or all of the model.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from octavo.adapters.base import Adapters, Method, build_adapted, build_full
from octavo.adapters.files import save_adapter
from octavo.adapters.merge import save_tuned
from octavo.data.conversations import Encoder, Example, read_examples
from octavo.data.packing import Batch
from octavo.errors import FormatError, UnsupportedError
from octavo.layers import byte_product
from octavo.models.gpt import GPT
from octavo.text.templates import ChatTemplate
from octavo.training.allocation import prepare_process
from octavo.training.causal import Validation
from octavo.training.checkpoints import list_checkpoints
from octavo.training.config import TrainingError
from octavo.training.held_out import batch_loss, batch_tokens, mean_loss, micro_batches
from octavo.training.loop import Trainer, TrainingResult, View
from octavo.training.optimizers.paged import page_state
from octavo.training.precision import DTYPES, choose_precision
from octavo.training.tuning_config import TuningConfig, read_tuning, with_rate, write_tuning
from octavo.weights.checkpoint import Checkpoint, open_checkpoint

_SAMPLE_TOKENS = 32
_VALIDATION_ROWS = 64


@dataclass(frozen=True, eq=False)
class Rows:
    """Examples to train on and those kept back; cut: how many were longer than the context."""

    training: list[Example]
    kept: list[Example]
    cut: int

    @property
    def learned_share(self) -> float:
        """The part of all tokens that is learned."""
        learned = sum(int(example.learned.sum()) for example in self.training)
        return learned / sum(len(example.tokens) for example in self.training)


def make_encoder(checkpoint: Checkpoint) -> Encoder:
    """The base's own tokenizer and template."""
    tokenizer = checkpoint.tokenizer()
    template = ChatTemplate(checkpoint.chat_template, tokens=tokenizer.special_tokens)
    ends = checkpoint.config.end_tokens or tuple(sorted(tokenizer.end_ids))
    if not ends:
        raise FormatError(f"{checkpoint.path}: the model has no end token: it could not learn where to stop")
    return Encoder(tokenizer, template, ends[0])


def read_tuning_rows(config: TuningConfig, encoder: Encoder) -> Rows:
    """The rows of a run.  Raises FormatError for rows that are too long or hold nothing to learn."""
    examples, cut = [], 0
    for example in read_examples([Path(name).expanduser() for name in config.data], encoder):
        if len(example.tokens) > config.context:
            if not config.cut:
                raise FormatError(
                    f"{example.where}: {len(example.tokens)} tokens, and a row takes {config.context}: "
                    "give a longer --context, or --cut to train on the beginning"
                )
            cut += 1
            end = config.context
            example = Example(example.tokens[:end], example.learned[:end], example.where)
        if example.learned[1:].any():
            examples.append(example)
        elif not config.cut:
            raise FormatError(f"{example.where}: no token of this row is learned: is the answer empty?")
    order = np.random.Generator(np.random.PCG64([config.seed, 77])).permutation(len(examples))
    kept = round(len(examples) * config.validation)
    if len(examples) - kept < 1:
        raise FormatError(f"{', '.join(config.data)}: {len(examples)} usable rows: too few to tune on")
    chosen = set(order[:kept].tolist())
    return Rows(
        [each for index, each in enumerate(examples) if index not in chosen],
        [examples[index] for index in sorted(chosen)],
        cut,
    )


class Tuning:
    """The task.  checkpoint: the base."""

    forward_methods: tuple[str, ...] = ("hidden",)
    tokenizer = None  # stays with the base

    def __init__(self, config: TuningConfig, checkpoint: Checkpoint, rows: Rows, encoder: Encoder) -> None:
        self.config, self.checkpoint, self.rows, self.encoder = config, checkpoint, rows, encoder
        dtype = DTYPES[config.precision]
        self.in_bytes = _multiplies_bytes(config)
        self.module: GPT
        self.model: Any
        if config.method == "full":
            self.module = self.model = build_full(checkpoint.config, checkpoint.tensors)
        else:
            method: Method = "qlora" if config.method == "qlora" else "lora"
            self.module, self.model = build_adapted(
                checkpoint.config,
                checkpoint.tensors,
                config.adapter,
                method=method,
                dtype=dtype,
                seed=config.seed,
                base_format=config.base_format,
                in_bytes=self.in_bytes,
            )
        self.module.recompute = config.recompute
        self.fingerprint = _fingerprint(checkpoint, rows)
        weights = _matrix_elements(checkpoint)
        trained = sum(parameter.numel() for parameter in self.model.parameters())
        # Frozen weights are in two products (forward, gradient of the input), trained ones in three.
        self.flops_per_token = 6.0 * weights if config.method == "full" else 4.0 * weights + 6.0 * trained
        self._longest = sorted(len(example.tokens) for example in rows.training)

    @property
    def kept_targets(self) -> int:
        """Tokens that a whole validation tells."""
        return sum(int(example.learned[1:].sum()) for example in self.rows.kept)

    def batches(self, step: int, rank: int = 0, world: int = 1) -> list[Batch]:
        """The micro-batches of a step: rows in an order of seed and epoch, those of like length together."""
        rows = self.rows.training
        places = range(step * self.config.batch, (step + 1) * self.config.batch)
        return list(micro_batches([rows[self._row(place)] for place in places]))

    def _row(self, place: int) -> int:
        epoch, index = divmod(place, len(self.rows.training))
        order = np.random.Generator(np.random.PCG64([self.config.seed, epoch])).permutation(
            len(self.rows.training)
        )
        return int(order[index])

    def loss(self, module: GPT, batch: Batch, scale: float) -> Tensor:
        """scale * the sum of the losses of learned tokens, in nats; no logits are made for others."""
        return batch_loss(module, batch, scale)

    @torch.no_grad()
    def validate(self, module: GPT, *, whole: bool = False) -> Validation | None:
        """The loss on rows that were kept back; None if there are none."""
        kept = self.rows.kept if whole else self.rows.kept[:_VALIDATION_ROWS]
        if not kept:
            return None
        loss = mean_loss(module, kept)
        learned = [int(token) for example in kept for token in example.tokens[1:][example.learned[1:]]]
        size = sum(len(self.encoder.tokenizer.token_bytes(token)) for token in learned)
        return Validation(loss, loss * len(learned) / math.log(2) / max(size, 1))

    @torch.no_grad()
    def sample(self, module: GPT, seed: int, tokens: int = _SAMPLE_TOKENS) -> str:
        """What the model answers to a row that was kept back, always the likeliest token."""
        if not self.rows.kept:
            return ""
        example = self.rows.kept[seed % len(self.rows.kept)]
        first = int(example.learned.argmax())
        ids = example.tokens[: max(first, 1)].tolist()
        begin = len(ids)
        module.eval()
        for _ in range(min(tokens, self.config.context - begin)):
            hidden = module.hidden(torch.tensor([ids]))[:, -1]
            token = int((hidden @ module.head_weight.to(hidden.dtype).T).argmax())
            if token in self.encoder.tokenizer.end_ids:
                break
            ids.append(token)
        module.train()
        return self.encoder.tokenizer.decode(ids[begin:])

    def save(self, folder: Path, parameters: dict[str, Tensor] | None = None) -> None:
        """The adapter, or for "full" the model."""
        if isinstance(self.model, Adapters):
            save_adapter(self.model, folder)
        else:
            save_tuned(self.checkpoint, self.model, folder)


class TuningTrainer(Trainer):
    """The loop over adapters: the base computes as it is, only rates and stopping are its own."""

    def _build(self) -> None:
        super()._build()
        task, config = cast(Tuning, self.task), cast(TuningConfig, self.config)
        self._worse = 0
        if config.paged:
            page_state(self.optimizer, self.out)
        if config.method == "full":
            return
        self.compute = cast(Any, _Fixed(task.module))
        if config.up_rate != 1.0:
            _split_rates(self.optimizer, {id(pair.up) for pair in task.model.pairs.values()}, config.up_rate)

    def restore(self, checkpoint: Path) -> None:
        """As of the loop; loading brings the optimizer's state into memory."""
        super().restore(checkpoint)
        if cast(TuningConfig, self.config).paged:
            page_state(self.optimizer, self.out)

    def _measure(self, *arguments: Any) -> Validation | None:
        best = self.state.best_loss
        found = super()._measure(*arguments)
        if found is not None:
            self._worse = self._worse + 1 if best is not None and found.loss >= best else 0
            patience = cast(TuningConfig, self.config).patience
            if patience and self._worse >= patience:
                self.state.steps = self.state.step
        return found


class _Fixed:
    """A compute copy that is the model itself: frozen weights never change, pairs are read as they are."""

    def __init__(self, module: GPT) -> None:
        self.module = module

    def refresh(self) -> None:
        """Nothing to do."""


def _split_rates(optimizer: torch.optim.Optimizer, chosen: set[int], factor: float) -> None:
    """LoRA+ (Hayou et al. 2024): a group of their own for `up`, with a larger rate."""
    for group in list(optimizer.param_groups):
        fast = [each for each in group["params"] if id(each) in chosen]
        group["params"] = [each for each in group["params"] if id(each) not in chosen]
        if fast:
            options = {key: value for key, value in group.items() if key != "params"}
            optimizer.add_param_group({**options, "params": fast, "rate_factor": factor})


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a run will take, before it starts."""

    parameters: int
    base_bytes: int
    memory_bytes: int
    seconds: float


def estimate(task: Tuning, flops_per_second: float) -> Estimate:
    """By counting.  Half of the machine's peak is what training reaches on the whole."""
    config, model = task.config, task.checkpoint.config
    trained = sum(parameter.numel() for parameter in task.model.parameters())
    width = 2 if config.precision == "bfloat16" else 4
    elements = sum(math.prod(tensor.shape) for tensor in task.checkpoint.tensors.values())
    packed = sum(tensor.data.nbytes for tensor in task.checkpoint.tensors.values())
    base = {"lora": width * elements, "qlora": packed, "full": 8 * elements}[config.method]
    tokens = min(batch_tokens(task._longest[-1]), max(config.batch * task._longest[-1], 1))
    kept = (
        8 * model.hidden_size + 5 * model.feed_forward_size
    )  # numbers a token leaves in a layer for backward
    # With `recompute` the inputs of all blocks stay, and all of one block.
    layers_kept = 1 + model.layers * model.hidden_size / kept if config.recompute else model.layers
    activations = round(tokens * layers_kept * kept * width)
    steps = config.steps or math.ceil(config.epochs * len(task.rows.training) / config.batch)
    work = steps * config.batch_tokens * task.flops_per_token
    seconds = 60 * config.minutes if config.minutes and not config.steps else work / (0.5 * flops_per_second)
    return Estimate(
        trained, base, base + (8 if config.paged else 16) * trained + activations + (400 << 20), seconds
    )


def prepare(config: TuningConfig) -> Tuning:
    """Read base and rows.  Raises FormatError and UnsupportedError before anything is trained."""
    from octavo.weights import hub

    checkpoint = open_checkpoint(hub.resolve(config.base))
    shape = checkpoint.config
    encoder = make_encoder(checkpoint)
    config = with_rate(replace(config, context=min(config.context, shape.context_length)))
    rows = read_tuning_rows(config, encoder)
    steps = config.steps
    if not steps and not config.minutes:
        steps = max(1, math.ceil(config.epochs * len(rows.training) / config.batch))
    mean = sum(len(example.tokens) - 1 for example in rows.training) / len(rows.training)
    config = replace(
        config,
        architecture=shape.architecture,
        layers=shape.layers,
        hidden_size=shape.hidden_size,
        heads=shape.heads,
        precision=choose_precision(config.precision, shape.hidden_size),
        batch_tokens=round(mean * config.batch),
        steps=steps,
    )
    return Tuning(config, checkpoint, rows, encoder)


def tune(task: Tuning, *, view: View | None = None) -> TrainingResult:
    """Train what `prepare` made; `out` becomes an adapter folder (or a model, of method "full")."""
    folder = Path(task.config.out)
    if list_checkpoints(folder):
        raise TrainingError(f"{folder} holds a run already: octavo tune --resume {folder}, or another --out")
    prepare_process(task.config.threads)
    write_tuning(task.config)
    return TuningTrainer(task.config, task, view).run()


def resume_tuning(folder: Path, *, view: View | None = None) -> TrainingResult:
    """Go on from the newest checkpoint, exactly as if the run had never stopped."""
    config = read_tuning(folder)
    trainer = TuningTrainer(config, prepare(config), view)
    if checkpoints := list_checkpoints(folder):
        trainer.restore(checkpoints[-1])
    return trainer.run()


def _multiplies_bytes(config: TuningConfig) -> bool:
    """Whether frozen layers are multiplied in int8.  UnsupportedError where that is wanted and cannot be."""
    possible = config.method != "full" and config.precision == "bfloat16" and byte_product.available()
    if config.products == "int8" and not possible:
        raise UnsupportedError(
            "products: int8 needs method lora or qlora, precision bfloat16, and a processor whose AVX-512 "
            "multiplies bytes and bfloat16: leave it at auto"
        )
    return possible and config.products != "bfloat16"


def _matrix_elements(checkpoint: Checkpoint) -> int:
    """Weights that each token is multiplied with; a tied embedding counts as the head."""
    config = checkpoint.config
    skipped = {"position_embd.weight"} | (set() if config.tied_embeddings else {"token_embd.weight"})
    matrices = [
        each for name, each in checkpoint.tensors.items() if len(each.shape) == 2 and name not in skipped
    ]
    return sum(math.prod(matrix.shape) for matrix in matrices)


def _fingerprint(checkpoint: Checkpoint, rows: Rows) -> str:
    """Of the base and all rows, so that a run is not resumed with others."""
    from hashlib import sha256

    digest = sha256(f"{checkpoint.path.name} {checkpoint.config}".encode())
    for example in (*rows.training, *rows.kept):
        digest.update(example.tokens.tobytes())
        digest.update(example.learned.tobytes())
    return digest.hexdigest()
