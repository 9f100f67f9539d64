"""From a configuration to its task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from octavo.training.causal import LanguageModelling
from octavo.training.config import TrainingConfig
from octavo.training.tasks.encoder_config import EncoderConfig
from octavo.training.tasks.translation_config import TranslationConfig


def build_task(config: TrainingConfig, *, folder: Path | None = None) -> Any:
    """The task of a complete configuration; folder: of a run that has a tokenizer already."""
    if isinstance(config, TranslationConfig):
        from octavo.training.tasks.translation import Translation

        return Translation(config, folder=folder)
    if isinstance(config, EncoderConfig):
        if config.task == "pretrain":
            from octavo.training.tasks.masked import MaskedLanguageModelling

            return MaskedLanguageModelling(config, folder=folder)
        from octavo.training.tasks.labelled import Labelling

        return Labelling(config, folder=folder)
    return LanguageModelling(config, folder=folder)
