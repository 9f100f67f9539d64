"""What a training run is: one frozen dataclass, and what is derived where nothing was said.

No PyTorch here: the command line reads and checks a configuration before anything heavy is imported.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, ClassVar, TypeVar, cast

from octavo.errors import FormatError, OctavoError, UnsupportedError
from octavo.model_config import ModelConfig, RopeConfig

FILE_NAME = "training.json"
ARCHITECTURES = ("qwen3", "llama", "gpt2")
# Name -> parameters without embeddings; the dial of --size.
SIZES: Mapping[str, int] = {
    "nano": 400_000,
    "tiny": 1_300_000,
    "mini": 3_100_000,
    "small": 10_600_000,
    "medium": 25_000_000,
    "base": 85_000_000,
}
_SIZE_OF_MINUTES = ((1.0, "nano"), (5.0, "tiny"), (20.0, "mini"), (120.0, "small"), (1e9, "medium"))
DEFAULT_STEPS = 1000


class TrainingError(OctavoError):
    """Training cannot go on: a loss that is not finite, data that changed, a disk that is full."""


@dataclass(frozen=True, slots=True)
class TrainingConfig:
    """A run.  0 or None mean "derived": see `complete`.

    out: the folder that becomes a Hugging Face model folder.  data: files and folders, by default the source
    of Python's standard library.  column: of JSONL, CSV and Parquet.  tokenizer: "bpe", "characters", or a
    tokenizer.json or folder that has one.  validation: part of the data that is kept back.
    isolate: documents packed into one row do not see each other.

    size or parameters (without embeddings) is the dial; layers, hidden_size, heads, context (tokens of a row)
    overrule it.  steps, tokens or minutes say how long; the first that is given counts.
    batch_tokens: tokens of one update.  rows: rows of one forward pass; the rest is accumulated.

    The learning rate follows `schedule` with parts `warmup` and `decay` of the whole and ends at `final`.
    clip: norm of all gradients together; 0 for none.  precision: "auto", "float32" or "bfloat16".
    save_steps, save_minutes: a checkpoint at least so often; keep: how many stay.
    validate_steps: how often the loss on the validation part is taken and a text is sampled from `prompt`.
    fast: the fused functions; False for the slow twins.
    """

    # What train() is asked for, and parameters of a layer in squares of the width: 4 of attention, 8 of the
    # feed-forward layer.
    model: ClassVar[str] = "gpt"
    squares: ClassVar[int] = 12

    out: str
    data: tuple[str, ...] = ()
    column: str | None = None
    tokenizer: str = "bpe"
    vocabulary_size: int = 4096
    validation: float = 0.05
    isolate: bool = True

    architecture: str = "qwen3"
    size: str | None = None
    parameters: int = 0
    layers: int = 0
    hidden_size: int = 0
    heads: int = 0
    context: int = 256
    dropout: float = 0.0

    steps: int = 0
    tokens: int = 0
    minutes: float = 0.0
    batch_tokens: int = 0
    rows: int = 0

    optimizer: str = "muon"
    learning_rate: float = 0.0
    weight_decay: float = 0.1
    schedule: str = "warmup_stable_decay"
    warmup: float = 0.02
    decay: float = 0.5
    final: float = 0.02
    clip: float = 1.0
    precision: str = "auto"

    seed: int = 0
    save_steps: int = 0
    save_minutes: float = 5.0
    keep: int = 2
    validate_steps: int = 0
    prompt: str = ""
    threads: int = 0
    fast: bool = True

    def __post_init__(self) -> None:
        """Raises UnsupportedError that names the key for an impossible value."""
        _among("architecture", self.architecture, ARCHITECTURES)
        self._check_common()

    def _check_common(self) -> None:
        _among("precision", self.precision, ("auto", "float32", "bfloat16"))
        if self.size is not None:
            _among("size", self.size, tuple(SIZES))
        for name in ("steps", "tokens", "minutes", "batch_tokens", "rows", "layers", "hidden_size", "heads"):
            self._at_least(name, 0)
        for name in ("parameters", "learning_rate", "weight_decay", "clip", "save_steps", "validate_steps"):
            self._at_least(name, 0)
        for name in ("context", "keep"):
            self._at_least(name, 1)
        for name in ("validation", "dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise UnsupportedError(f"{name}: {getattr(self, name)}; a part, from 0 to below 1")

    def prepared(self) -> TrainingConfig:
        """With what is known before anything is derived."""
        return self

    def optimizer_options(self) -> dict[str, Any]:
        """Keywords of the optimizer beside learning rate and weight decay."""
        return {}

    def default_learning_rate(self, hidden: int) -> float:
        """What worked at 128 wide, scaled by the inverse root of the width."""
        scale = math.sqrt(128 / hidden)
        return {"muon": 1e-2, "lion": 3e-4, "sgd": 1e-1}.get(self.optimizer, 3e-3) * scale

    def _at_least(self, name: str, least: int) -> None:
        if not getattr(self, name) >= least:
            raise UnsupportedError(f"{name}: {getattr(self, name)}; it must be at least {least}")


def _among(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise UnsupportedError(f"{name}: {value!r}; one of {', '.join(known)}")


Config = TypeVar("Config", bound=TrainingConfig)


def complete(config: Config) -> Config:
    """The same run with every derived value filled in."""
    config = cast(Config, config.prepared())
    size = config.size
    if not (size or config.parameters or config.hidden_size or config.layers):
        size = "tiny"
        if config.minutes and not (config.steps or config.tokens):
            size = next(name for limit, name in _SIZE_OF_MINUTES if config.minutes <= limit)
    parameters = config.parameters or (SIZES[size] if size else 0)
    layers, hidden = _shape(parameters * 12 / config.squares, config.layers, config.hidden_size)
    heads = config.heads or max(1, hidden // (64 if hidden >= 384 else 32))
    if hidden % heads or (hidden // heads) % 2:
        raise UnsupportedError(f"heads: {heads} do not divide a hidden size of {hidden} into even widths")
    batch = config.batch_tokens or (4096 if hidden < 384 else 8192 if hidden < 768 else 16384)
    steps = config.steps
    if not steps and config.tokens:
        steps = -(-config.tokens // batch)
    elif not steps and not config.minutes:
        steps = DEFAULT_STEPS
    return replace(
        config,
        size=size,
        parameters=parameters,
        layers=layers,
        hidden_size=hidden,
        heads=heads,
        batch_tokens=batch,
        rows=config.rows or max(1, 8192 // config.context),
        steps=steps,
        learning_rate=config.learning_rate or config.default_learning_rate(hidden),
    )


def _shape(parameters: float, layers: int, hidden: int) -> tuple[int, int]:
    """(layers, hidden size) of about 12 layers hidden^2 parameters; 64 of width to a layer."""
    if not hidden:
        ideal = (parameters / (12 * layers)) ** 0.5 if layers else (64 * parameters / 12) ** (1 / 3)
        hidden = max(64, 64 * round(ideal / 64))
    return layers or max(
        1, round(parameters / (12 * hidden * hidden)) if parameters else hidden // 64
    ), hidden


def model_config(config: TrainingConfig, vocabulary_size: int, end: int | None) -> ModelConfig:
    """The model of a complete configuration.  end: the token that ends a text."""
    width = config.hidden_size // config.heads
    common: dict[str, Any] = {
        "architecture": config.architecture,
        "vocabulary_size": vocabulary_size,
        "context_length": config.context,
        "hidden_size": config.hidden_size,
        "layers": config.layers,
        "heads": config.heads,
        "key_value_heads": config.heads,
        "head_width": width,
        "attention_scale": width**-0.5,
        "beginning_token": end,
        "end_tokens": () if end is None else (end,),
        "add_beginning_token": end is not None,
    }
    if config.architecture == "gpt2":
        return ModelConfig(
            **common,
            feed_forward_size=4 * config.hidden_size,
            norm="layer",
            activation="gelu",
            gated=False,
            learned_positions=config.context,
        )
    # Two thirds of four times the width (Shazeer 2020), in whole cache lines.
    inner = 32 * round(8 * config.hidden_size / 3 / 32)
    rope = RopeConfig(theta=10_000.0, width=width)
    return ModelConfig(
        **common,
        feed_forward_size=inner,
        rope=rope,
        norm_epsilon=1e-6,
        query_key_norm=config.architecture == "qwen3",
    )


def write_config(config: TrainingConfig) -> None:
    """Into `out`, where resuming finds it."""
    folder = Path(config.out)
    folder.mkdir(parents=True, exist_ok=True)
    content = {"model": config.model, **asdict(config)}
    (folder / FILE_NAME).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def read_config(folder: Path) -> TrainingConfig:
    """The configuration of a run that was begun in `folder`; the folder may have been moved since."""
    path = folder / FILE_NAME
    if not path.is_file():
        raise FormatError(f"{folder}: no training was begun here: {FILE_NAME} is missing")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise FormatError(f"{path}: not JSON: {error}") from error
    kind = config_class(values.pop("model", "gpt"))
    known = {field.name for field in fields(kind)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise FormatError(f"{path}: unknown key {unknown[0]!r}")
    listed: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in values.items()
    }
    return kind(**{**listed, "out": str(folder)})


def config_class(model: str) -> type[TrainingConfig]:
    """The class of a model's configurations.  Raises FormatError for a model that is not known."""
    from octavo.training.tasks.encoder_config import EncoderConfig
    from octavo.training.tasks.translation_config import TranslationConfig

    classes = (TrainingConfig, EncoderConfig, TranslationConfig)
    for each in classes:
        if each.model == model:
            return each
    raise FormatError(f"model: {model!r}; one of {', '.join(each.model for each in classes)}")
