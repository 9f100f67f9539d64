"""SST-2 from what is at hand: our BERT pretrained on wikitext and SST-2's own sentences, then fine-tuned;
beside the same network from fresh weights, and the same network pretrained from left to right.

The left-to-right network is that of table 5 of Devlin et al. 2018: the same blocks, each token seeing only
those before it, pretrained to tell the next token, and judged by the state of the last one.
"""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.report import Report, main
from benchmarks.workload import Options
from octavo.data.packing import PackedRows
from octavo.layers.attention import Attention
from octavo.training import train
from octavo.training.config import complete, write_config
from octavo.training.loop import Trainer, TrainingResult
from octavo.training.recipes.sst2 import sst2, sst2_pretraining
from octavo.training.tasks.encoding import EncoderBatch
from octavo.training.tasks.labelled import Classifier, Labelling
from octavo.training.tasks.masked import MaskedLanguageModelling

KINDS = ("octavo, BERT", "octavo, fresh weights", "octavo, left to right")


def run(options: Options) -> Report:
    report = Report(
        "classification", "SST-2 by three beginnings, pretrained on 1.8 MB of text", "dev accuracy, %"
    )
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        texts = write_texts(Path(folder))
        pipes = []
        for kind in KINDS:
            here, there = context.Pipe()
            process = context.Process(target=contestant, args=(there, kind, folder, texts))
            process.start()
            pipes.append((kind, here, process))
        found = {}
        for kind, here, process in pipes:
            found[kind] = here.recv()
            process.join()
    report.add("SST-2", "dev", {kind: [100 * values["accuracy"]] for kind, values in found.items()})
    for kind, values in found.items():
        report.notes.append(
            f"{kind}: accuracy {100 * values['accuracy']:.1f}, f1 {values['f1']:.3f}, "
            f"{values['seconds'] / 60:.1f} minutes of one core, pretraining's among them."
        )
    return report


def data() -> Path:
    """Where text/ and classify/ are."""
    return Path(os.environ.get("OCTAVO_SHARED", Path(__file__).parents[2] / "shared")) / "data"


def write_texts(folder: Path) -> tuple[Path, Path]:
    """Paragraphs of wikitext and sentences of SST-2, a document a line."""
    paragraphs = (data() / "text/wikitext2-valid.txt").read_text().splitlines()
    rows = (data() / "classify/sst2-train.tsv").read_text().splitlines()
    files = folder / "wikitext.jsonl", folder / "sentences.jsonl"
    for file, lines in zip(files, (paragraphs, [row.split("\t")[0] for row in rows]), strict=True):
        file.write_text("".join(json.dumps(line.strip()) + "\n" for line in lines if line.strip()))
    return files


def contestant(connection: Connection, kind: str, folder: str, texts: tuple[Path, Path]) -> None:
    """Pretrains, if the kind is to, and fine-tunes."""
    torch.set_num_threads(1)
    out = f"{folder}/{kind.split()[-1]}"
    pretraining = dataclasses.replace(sst2_pretraining(texts, f"{out}-pretrained"), threads=1)
    files = data() / "classify/sst2-train.tsv", data() / "classify/sst2-dev.tsv"
    start: str | None = pretraining.out
    if kind == KINDS[0]:
        train(pretraining)
    elif kind == KINDS[1]:
        start = None
        task = MaskedLanguageModelling(complete(pretraining))  # for the vocabulary, which is the same for all
        task.tokenizer.save(f"{out}-tokenizer.json")
    else:
        run_task(pretraining, LeftToRight)
    tuning = sst2(*files, out, start, f"{out}-tokenizer.json" if start is None else "wordpiece")
    tuning = dataclasses.replace(tuning, threads=1)
    result = run_task(tuning, LeftToRightLabelling) if kind == KINDS[2] else train(tuning)
    assert result.validation is not None
    connection.send({**result.validation.scores, "seconds": time.process_time()})


def run_task(config: Any, task: type[MaskedLanguageModelling] | type[Labelling]) -> TrainingResult:
    """`train` of a task of one's own."""
    config = complete(config)
    write_config(config)
    return Trainer(config, task(config)).run()


def look_back(model: nn.Module) -> None:
    """Lets each token see only those before it."""
    for module in model.modules():
        if isinstance(module, Attention):
            module.config = dataclasses.replace(module.config, causal=True)


class LeftToRight(MaskedLanguageModelling):
    """Next tokens instead of masked ones."""

    def _build(self) -> Any:
        model = super()._build()
        look_back(model)
        return model

    def _masked(self, rows: Any, first: int, count: int, seed: int, step: int) -> EncoderBatch:
        assert isinstance(rows, PackedRows)
        packed = rows.batch(first, count)
        return EncoderBatch(
            packed.inputs, packed.targets, positions=packed.positions, documents=packed.documents
        )

    def sample(self, module: Any, seed: int) -> str:
        return ""


class LeftToRightLabelling(Labelling):
    """The last token's state instead of the first's."""

    def _build(self) -> Classifier:
        model = super()._build()
        look_back(model)
        return model

    def logits(self, module: Any, batch: EncoderBatch) -> Tensor:
        assert batch.present is not None
        hidden = module.bert(torch.from_numpy(batch.inputs))  # padding comes last: nobody sees it
        last = torch.from_numpy(batch.present.sum(axis=1) - 1)
        state = hidden[torch.arange(len(hidden)), last][:, None]
        logits: Tensor = module.classifier(module.dropout(module.pooler(state)))
        return logits


if __name__ == "__main__":
    main(run)
