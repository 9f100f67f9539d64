"""How well a trained folder does on what was kept back, or on any data: losses, and a task's own scores.

Evaluation data takes the place of the training data, which need not be there any more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from octavo.errors import FormatError, UnsupportedError
from octavo.models.bert import MaskedLanguageModel, SequenceClassifier, TokenClassifier
from octavo.models.loading import load_tensors
from octavo.training.allocation import prepare_process
from octavo.training.causal import Validation
from octavo.training.config import TrainingConfig, read_config
from octavo.training.model_folders import load_encoder, load_seq2seq
from octavo.training.tasks.build import build_task
from octavo.training.tasks.encoder_config import EncoderConfig
from octavo.training.tasks.translation_config import TranslationConfig
from octavo.training.translate import Translator
from octavo.weights.checkpoint import open_checkpoint


def evaluate(
    folder: Path,
    data: Sequence[Path] = (),
    *,
    column: str | None = None,
    targets: Sequence[Path] = (),
    beam: int = 4,
    average: int = 1,
) -> tuple[Validation, int]:
    """(loss, bits per byte and scores, how many tokens or labels were told), in float32.

    data: what to score, of the kind that the model was trained on; by default the whole part that training
    kept back.  targets, beam, average: of translations.  scores: accuracy, f1 and matthews of a classifier,
    bleu of a translator.  Raises FormatError where nothing was kept back or nothing was trained.
    """
    config = replace(read_config(folder), fast=True)
    prepare_process(config.threads)
    task = build_task(_with_data(config, data, targets, column), folder=folder)
    if data and config.model == "gpt":
        task.kept = task.rows
    if task.kept is None:
        raise FormatError(f"{folder}: training kept nothing back (validation: 0): name a text with --data")
    module = _load(config, folder, task)
    if isinstance(config, TranslationConfig):
        translator = Translator(folder, average=average)
        module = translator.model
    found: Validation = task.validate(module, whole=True)
    if isinstance(config, TranslationConfig):
        found = replace(found, scores=_bleu(translator, task, beam))
    return found, task.kept_targets


def _with_data(
    config: TrainingConfig, data: Sequence[Path], targets: Sequence[Path], column: str | None
) -> TrainingConfig:
    """The configuration with other data for both training and validation, if there is any."""
    if targets and not isinstance(config, TranslationConfig):
        raise UnsupportedError("target: only translations have targets")
    if not data:
        return config
    names = tuple(map(str, data))
    if isinstance(config, TranslationConfig):
        others = tuple(map(str, targets))
        return replace(config, data=names, targets=others, validation_data=names, validation_targets=others)
    if isinstance(config, EncoderConfig):
        return replace(config, data=names, validation_data=names, column=column, start=None)
    return replace(config, data=names, validation=0.0, column=column)


def _load(config: TrainingConfig, folder: Path, task: Any) -> Any:
    """The trained weights in a model of the task's kind."""
    if isinstance(config, TranslationConfig):
        return load_seq2seq(folder)
    if isinstance(config, EncoderConfig):
        if config.task == "pretrain":
            return load_encoder(folder, MaskedLanguageModel, next_sentence=config.next_sentence, fast=True)
        kind: Any = TokenClassifier if config.task == "tokens" else SequenceClassifier
        return load_encoder(folder, kind, labels=len(task.labels), fast=True)
    checkpoint = open_checkpoint(folder)
    load_tensors(task.model, {name: tensor.numpy() for name, tensor in checkpoint.tensors.items()})
    return task.model


def _bleu(translator: Translator, task: Any, beam: int) -> dict[str, float]:
    """Corpus BLEU of what was kept back (Papineni et al. 2002; Post 2018); nothing without sacrebleu."""
    try:
        import sacrebleu
    except ImportError:
        return {}
    sources, references = task.kept_texts()
    found = translator.translate(sources, beam=beam)
    return {"bleu": float(sacrebleu.corpus_bleu(found, [references], force=True).score)}
