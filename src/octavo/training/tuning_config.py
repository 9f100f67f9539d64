"""What a fine-tuning is: a frozen dataclass over the one of training.  No PyTorch here."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from octavo.errors import FormatError, UnsupportedError
from octavo.training.config import TrainingConfig
from octavo.weights.adapter import AdapterConfig

FILE_NAME = "tuning.json"
METHODS = ("lora", "qlora", "full")
# "q8_0" is int8 with a scale for 32 neighbours.
BASE_FORMATS = ("nf4", "q8_0", "q4_1", "q4_0")
# What frozen layers are multiplied in where the rest computes in bfloat16.
PRODUCTS = ("auto", "int8", "bfloat16")
_RATES = {"lora": 2e-4, "qlora": 2e-4, "full": 2e-5}


@dataclass(frozen=True, slots=True)
class TuningConfig(TrainingConfig):
    """A run of `octavo tune`.  0 means "derived".

    base: the model.  method: "lora" and "qlora" train pairs of `rank` in `targets`; "full" trains all.
    rank_stabilized, decomposed: rsLoRA and DoRA.  up_rate: the learning rate of up by that of down (LoRA+,
    Hayou et al. 2024).  epochs: passes over the rows, where neither steps nor minutes are given.
    batch: rows of an update.  context: longer rows are cut (`cut`) or refused.
    patience: stop after so many validations without a better loss; 0 never.
    recompute: keep one block's activations instead of all (gradient checkpointing).  paged: the optimizer's
    state lies in a file in `out`.  base_format: what "qlora" makes of float weights; quantized files stay.
    products: what frozen layers are multiplied in; "auto" is int8 where the processor's kernels do that.
    """

    base: str = ""
    method: str = "lora"
    rank: int = 16
    alpha: float = 32.0
    targets: tuple[str, ...] = ("all-linear",)
    adapter_dropout: float = 0.0
    rank_stabilized: bool = False
    decomposed: bool = False
    up_rate: float = 1.0
    epochs: float = 1.0
    batch: int = 8
    cut: bool = False
    patience: int = 0
    recompute: bool = False
    paged: bool = False
    base_format: str = "nf4"
    products: str = "auto"

    def __post_init__(self) -> None:
        for name, known in (("method", METHODS), ("base_format", BASE_FORMATS), ("products", PRODUCTS)):
            if getattr(self, name) not in known:
                raise UnsupportedError(f"{name}: {getattr(self, name)!r}; one of {', '.join(known)}")
        if self.optimizer == "muon" and self.method != "full":
            raise UnsupportedError(
                "optimizer: muon is for whole matrices; adapters take adamw, adam, lion or sgd"
            )
        for name in ("rank", "batch", "context", "keep"):
            if getattr(self, name) < 1:
                raise UnsupportedError(f"{name}: {getattr(self, name)}; it must be at least 1")
        for name in ("alpha", "up_rate", "epochs"):
            if not getattr(self, name) > 0:
                raise UnsupportedError(f"{name}: {getattr(self, name)}; it must be above 0")
        for name in ("validation", "adapter_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise UnsupportedError(f"{name}: {getattr(self, name)}; a part, from 0 to below 1")

    @property
    def adapter(self) -> AdapterConfig:
        return AdapterConfig(
            rank=self.rank, alpha=self.alpha, dropout=self.adapter_dropout, targets=self.targets,
            rank_stabilized=self.rank_stabilized, decomposed=self.decomposed, base=self.base,
        )  # fmt: skip


def with_rate(config: TuningConfig) -> TuningConfig:
    """The learning rate filled in: what works for the method in common recipes."""
    return replace(config, learning_rate=config.learning_rate or _RATES[config.method])


def write_tuning(config: TuningConfig) -> None:
    """Into `out`, where resuming finds it."""
    folder = Path(config.out)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FILE_NAME).write_text(json.dumps(asdict(config), indent=1) + "\n", encoding="utf-8")


def read_tuning(folder: Path) -> TuningConfig:
    """The configuration of a run that was begun in `folder`."""
    path = folder / FILE_NAME
    if not path.is_file():
        raise FormatError(f"{folder}: no tuning was begun here: {FILE_NAME} is missing")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise FormatError(f"{path}: not JSON: {error}") from error
    known = {field.name for field in fields(TuningConfig)}
    if unknown := sorted(set(values) - known):
        raise FormatError(f"{path}: unknown key {unknown[0]!r}")
    lists = {name: tuple(values.get(name, ())) for name in ("data", "targets")}
    return TuningConfig(**{**values, **lists, "out": str(folder)})
