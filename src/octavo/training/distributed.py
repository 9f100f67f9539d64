"""Several processes, one run: torchrun starts them, FSDP2 shards the weights, DCP the checkpoints.

    torchrun --nproc_per_node 2 --no-python octavo train --optimizer adamw --steps 1000 --out my-gpt

Each process takes its share of the rows of a step; losses and gradients are summed and divided by the targets
of the whole step, so the run is that of one process.  (Zhao et al. 2023, PyTorch FSDP; `fully_shard`.)
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist

from octavo.errors import UnsupportedError
from octavo.models.seq2seq import DecoderBlock
from octavo.training.config import TrainingConfig


@dataclass(frozen=True, slots=True)
class World:
    """This process's number and how many there are."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this process writes what is written once."""
        return self.rank == 0

    def total(self, value: float) -> float:
        """The sum over all processes."""
        if self.size == 1:
            return value
        tensor = torch.tensor(value, dtype=torch.float64)
        dist.all_reduce(tensor)
        return float(tensor)

    def any(self, value: bool) -> bool:
        """Whether it is true in one of the processes."""
        return value if self.size == 1 else self.total(float(value)) > 0


@contextmanager
def joined() -> Iterator[World]:
    """The world that torchrun made, or a world of one; a process group that was made here also ends here.

    A group that is left to the interpreter's end aborts the process now and then: a thread of gloo's that
    lets go of a Python object then is ended inside a destructor.
    """
    if "RANK" not in os.environ or int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield World()
        return
    if dist.is_initialized():  # by Ray, which ends it too
        yield World(dist.get_rank(), dist.get_world_size())
        return
    dist.init_process_group("gloo")
    try:
        yield World(dist.get_rank(), dist.get_world_size())
        dist.barrier()  # the first process keeps the others' addresses: it must not leave before them
    finally:
        dist.destroy_process_group()


def check(config: TrainingConfig, world: World) -> None:
    """Raises UnsupportedError for what needs one process."""
    if world.size == 1:
        return
    if config.optimizer not in ("adamw", "adam", "sgd", "lion"):
        raise UnsupportedError(
            f"optimizer: {config.optimizer} needs whole matrices; with several processes take adamw"
        )
    if not (config.steps or config.tokens):
        raise UnsupportedError("minutes: several clocks do not agree: say steps or tokens")
    if config.dropout:
        raise UnsupportedError("dropout: not with several processes")
    if config.precision == "bfloat16":
        raise UnsupportedError("precision: bfloat16: with several processes only float32")


def check_shares(batches: Callable[[int, int, int], Sequence[object]], world: World) -> None:
    """Raises UnsupportedError if a step gives the processes different numbers of micro-batches.

    Weights are gathered for each of them by all processes: one that has fewer would leave the others waiting.
    """
    shares = {len(batches(0, rank, world.size)) for rank in range(world.size)}
    if len(shares) > 1 or 0 in shares:
        raise UnsupportedError(
            f"batch_tokens: a step does not divide among {world.size} processes into equally many "
            "micro-batches: change batch_tokens or rows"
        )


def shard(model: nn.Module, world: World, forward_methods: Sequence[str]) -> None:
    """Shard the parameters of each block, and of what is outside them, over the processes.

    forward_methods: of the model, those that need the whole weights of what is outside the blocks.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    mesh = init_device_mesh("cpu", (world.size,))
    stacks = [each for each in model.modules() if isinstance(each, nn.ModuleList)]
    parts: list[nn.Module] = [*(block for stack in stacks for block in stack), model]
    for part in parts:
        sharded: Any = fully_shard(part, mesh=mesh)
        # Losses are divided by the targets of all processes already: gradients are plain sums.
        sharded.set_gradient_divide_factor(1.0)
        sharded.set_force_sum_reduction_for_comms(True)
    for name in forward_methods:
        register_fsdp_forward_method(model, name)
    for part in parts:
        if isinstance(part, DecoderBlock):  # it sees the source once, before its forward passes
            register_fsdp_forward_method(part, "read")


def clip(model: nn.Module, limit: float) -> float:
    """`clip_by_norm` of sharded gradients; the norm from before."""
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    whole: Any = torch.nn.utils.get_total_norm(gradients)
    norm = float(whole.full_tensor())
    if norm > limit:
        for gradient in gradients:
            gradient.mul_(limit / norm)
    return norm


def whole_parameters(model: nn.Module) -> dict[str, Tensor]:
    """Every parameter, gathered; all processes must call this."""
    found: dict[str, Tensor] = {}
    for name, parameter in model.named_parameters():
        sharded: Any = parameter.detach()
        found[name] = sharded.full_tensor() if hasattr(sharded, "full_tensor") else sharded
    return found


def save_shards(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Each process writes what it has."""
    from torch.distributed.checkpoint.state_dict import get_state_dict
    from torch.distributed.checkpoint.state_dict_saver import save

    weights, state = get_state_dict(model, optimizer)
    save({"model": weights, "optimizer": state}, checkpoint_id=str(folder))


def load_shards(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """From any number of processes that wrote into any other number."""
    from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
    from torch.distributed.checkpoint.state_dict_loader import load

    weights, state = get_state_dict(model, optimizer)
    content: dict[str, Any] = {"model": weights, "optimizer": state}
    load(content, checkpoint_id=str(folder))
    set_state_dict(model, optimizer, model_state_dict=content["model"], optim_state_dict=content["optimizer"])
