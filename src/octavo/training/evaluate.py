"""The loss of a trained folder on what was kept back, or on any text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from octavo.data.packing import PackedRows
from octavo.data.shards import tokenize_corpus
from octavo.errors import FormatError
from octavo.models.loading import load_tensors
from octavo.training.allocation import prepare_process
from octavo.training.causal import LanguageModelling, Validation
from octavo.training.config import read_config
from octavo.weights.checkpoint import open_checkpoint


def evaluate(folder: Path, data: Sequence[Path] = (), *, column: str | None = None) -> tuple[Validation, int]:
    """(loss and bits per byte, tokens that were scored), in float32.

    data: text to score; by default the whole part that training kept back.  Raises FormatError where nothing
    was kept back or nothing was trained.
    """
    prepare_process(0)
    config = replace(read_config(folder), fast=True)
    task = LanguageModelling(config, folder=folder)
    if data:
        assert task.tokenizer is not None
        corpus = tokenize_corpus(data, task.tokenizer, column=column)
        task.kept = PackedRows(corpus, config.context, 0, config.isolate)
        task.bytes_per_token = corpus.bytes / len(corpus)
    if task.kept is None:
        raise FormatError(f"{folder}: training kept nothing back (validation: 0): name a text with --data")
    checkpoint = open_checkpoint(folder)
    load_tensors(task.model, {name: tensor.numpy() for name, tensor in checkpoint.tensors.items()})
    found = task.validate(task.model, whole=True)
    assert found is not None
    return found, len(task.kept.corpus)
