"""A run that trains the 2017 Transformer on pairs of texts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from octavo.errors import UnsupportedError
from octavo.training.config import TrainingConfig


@dataclass(frozen=True, slots=True)
class TranslationConfig(TrainingConfig):
    """See TrainingConfig; what differs:

    data: text files of sources, with `targets` that run in parallel; or tables (JSONL, CSV, TSV, Parquet)
        whose `columns` are source and target.  validation_data and validation_targets: the same, instead of a
        part that is kept back.
    layers: of the encoder, and as many of the decoder.  context: tokens of a sentence at most; longer
        pairs are left out.  rows * context: tokens of one forward pass, padding counted; batch_tokens: of an
        update.
    The schedule is the paper's, linear warm-up and the inverse root of the step (section 5.3), and Adam has
    its constants; `warmup` is a part of the run.
    """

    model: ClassVar[str] = "seq2seq"
    squares: ClassVar[int] = 28  # 12 of an encoder's layer, 16 of a decoder's

    targets: tuple[str, ...] = ()
    columns: tuple[str, str] = ("source", "target")
    validation_data: tuple[str, ...] = ()
    validation_targets: tuple[str, ...] = ()
    feed_forward_size: int = 0
    label_smoothing: float = 0.1
    norm_position: str = "post"

    validation: float = 0.02
    vocabulary_size: int = 8000
    architecture: str = "seq2seq"
    context: int = 128
    rows: int = 16
    dropout: float = 0.1
    optimizer: str = "adam"
    weight_decay: float = 0.0
    schedule: str = "inverse_sqrt"
    warmup: float = 0.1

    def __post_init__(self) -> None:
        """Raises UnsupportedError that names the key for an impossible value."""
        if self.architecture != "seq2seq":
            raise UnsupportedError(f"architecture: {self.architecture!r}; a translator's is 'seq2seq'")
        if self.norm_position not in ("post", "pre"):
            raise UnsupportedError(f"norm_position: {self.norm_position!r}; one of post, pre")
        if not 0 <= self.label_smoothing < 1:
            raise UnsupportedError(f"label_smoothing: {self.label_smoothing}; a part, from 0 to below 1")
        if len(self.columns) != 2:
            raise UnsupportedError(f"columns: {self.columns}; two names or numbers: source and target")
        if self.tokenizer == "characters":
            raise UnsupportedError("tokenizer: 'characters'; a translator's is 'bpe' or a tokenizer.json")
        self._check_common()

    def optimizer_options(self) -> dict[str, Any]:
        """Adam's constants of section 5.3."""
        if self.optimizer in ("adam", "adamw"):
            return {"betas": (0.9, 0.98), "epsilon": 1e-9}
        return {}

    def default_learning_rate(self, hidden: int) -> float:
        """The peak of the paper's equation 3 with 4,000 steps of warm-up; Muon's as for other models."""
        if self.optimizer == "muon":
            return float(1e-2 * (128 / hidden) ** 0.5)
        return float(hidden**-0.5 * 4000**-0.5)
