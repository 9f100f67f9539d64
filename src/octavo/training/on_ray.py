"""The same run on a Ray cluster: Ray Train starts the processes, each calls `train`.

    from octavo.training import TrainingConfig
    from octavo.training.on_ray import train_on_ray

    train_on_ray(TrainingConfig(out="/shared/my-gpt", optimizer="adamw", steps=1000), workers=4)

What torchrun does on one machine (`distributed.py`): FSDP2 shards, DCP checkpoints.  `out` and the data must
be paths that all machines share.  Needs pip install 'octavo[ray]'.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from octavo.errors import UnsupportedError
from octavo.training.config import TrainingConfig
from octavo.training.loop import TrainingResult, has_run, resume, train


def train_on_ray(
    config: TrainingConfig, *, workers: int = 2, cores: float = 1, storage: Path | None = None
) -> TrainingResult:
    """`train`, or `resume` if the run was begun before, in `workers` processes of `cores` cores each.

    storage: where Ray keeps its own records; by default beside the run, in out/ray.  Raises UnsupportedError
    where Ray is missing; an error of a worker comes back as Ray's.
    """
    try:
        from ray.train import RunConfig, ScalingConfig
        from ray.train.torch import TorchConfig, TorchTrainer
    except ImportError as error:
        raise UnsupportedError("training on Ray needs it: pip install 'octavo[ray]'") from error
    config = replace(config, out=str(Path(config.out).expanduser().resolve()))
    records = storage or Path(config.out) / "ray"
    trainer: Any = TorchTrainer(
        _work,
        train_loop_config={"config": config},
        scaling_config=ScalingConfig(num_workers=workers, resources_per_worker={"CPU": cores}),
        torch_config=TorchConfig(backend="gloo"),
        run_config=RunConfig(name="octavo", storage_path=str(records.resolve())),
    )
    trainer.fit()
    return _result(config)


def _work(given: dict[str, Any]) -> None:
    """One of the processes; Ray has made the process group, and set what torchrun would have set."""
    config: TrainingConfig = given["config"]
    folder = Path(config.out)
    if has_run(folder):
        resume(folder)
    else:
        train(config)


def _result(config: TrainingConfig) -> TrainingResult:
    """What the run left in its folder."""
    from octavo.training.causal import Validation
    from octavo.training.metrics import read_metrics

    last = read_metrics(Path(config.out))[-1]
    found = None
    if "validation_loss" in last:
        found = Validation(last["validation_loss"], last["bits_per_byte"])
    return TrainingResult(
        Path(config.out), last["step"], last["tokens"], last["seconds"], last["loss"], found, False
    )
