"""Multi30k, English to German: the Transformer's recipe beside a GRU with attention of equal size and time.

One after the other, a thread each: the Transformer trains as its recipe says, the GRU for as many processor
seconds as that took.  Both translate the 1,000 sentences of test2016, lower-cased and tokenized as the data
is, greedily and by a beam of 5; BLEU is sacrebleu's.
"""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from benchmarks.recurrent_translation import RecurrentTranslator, train_recurrent
from benchmarks.report import Report, main
from benchmarks.workload import Options

BEAM, ALPHA = 5, 1.0


def folder() -> Path:
    """Where multi30k-train.en and the others are."""
    return Path(os.environ.get("OCTAVO_SHARED", Path(__file__).parents[2] / "shared")) / "data" / "pairs"


def run(options: Options) -> Report:
    report = Report("translation", "The Transformer translates better than a GRU for the same time", "BLEU")
    with tempfile.TemporaryDirectory() as out:
        ours = apart(transformer, out)
        found = {"octavo": ours, "GRU with attention": apart(recurrent, out, ours["seconds"])}
    for kind in ("greedy", f"beam of {BEAM}"):
        report.add("Multi30k test2016", kind, {name: [values[kind]] for name, values in found.items()})
    for name, values in found.items():
        report.notes.append(
            f"{name}: {values['parameters'] / 1e6:.2f} M parameters, {values['seconds'] / 60:.1f} minutes "
            f"of one core (user and system), {values['steps']:.0f} updates."
        )
    return report


def apart(racer: Callable[..., None], *arguments: object) -> dict[str, float]:
    """What a racer finds, in a process of its own."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=racer, args=(there, *arguments))
    process.start()
    there.close()
    found: dict[str, float] = here.recv()
    process.join()
    return found


def transformer(connection: Connection, out: str) -> None:
    """Trains by the recipe and translates."""
    from octavo.training import train
    from octavo.training.recipes.multi30k import multi30k
    from octavo.training.translate import Translator

    torch.set_num_threads(1)
    config = dataclasses.replace(multi30k(folder(), f"{out}/transformer"), threads=1)
    result = train(config)
    seconds = time.process_time()  # with the vocabulary and all validation
    translator = Translator(result.folder)
    sources, references = test_set()
    values = {"steps": result.steps, "seconds": seconds}
    values["parameters"] = sum(each.numel() for each in translator.model.parameters())
    for kind, beam in (("greedy", 1), (f"beam of {BEAM}", BEAM)):
        values[kind] = bleu(translator.translate(sources, beam=beam, alpha=ALPHA), references)
    connection.send(values)


def recurrent(connection: Connection, out: str, seconds: float) -> None:
    """Trains for the same time, on the same tokens and batches, and translates."""
    from octavo.training.config import complete
    from octavo.training.recipes.multi30k import multi30k
    from octavo.training.tasks.translation import Translation, encode_sources

    torch.set_num_threads(1)
    torch.manual_seed(0)
    task = Translation(complete(multi30k(folder(), out)))
    model = RecurrentTranslator(task.tokenizer.get_vocab_size(), task.padding)
    steps = train_recurrent(model, task.batches_of_pairs.batch, seconds)
    sources, references = test_set()
    ids = encode_sources(task.tokenizer, sources, task.end, task.padding, 128)
    values = {"steps": steps, "seconds": seconds}
    values["parameters"] = sum(each.numel() for each in model.parameters())
    for kind, beam in (("greedy", 1), (f"beam of {BEAM}", BEAM)):
        found = model.translate(ids, task.beginning, task.end, beam, ALPHA)
        texts = [text.strip() for text in task.tokenizer.decode_batch(found)]
        values[kind] = bleu(texts, references)
    connection.send(values)


def test_set() -> tuple[list[str], list[str]]:
    """Sources and references."""
    read = [
        (folder() / f"multi30k-test2016.{language}").read_text().splitlines() for language in ("en", "de")
    ]
    return read[0], read[1]


def bleu(found: list[str], references: list[str]) -> float:
    """Corpus BLEU (Papineni et al. 2002) as sacrebleu counts it by default (Post 2018)."""
    import sacrebleu

    return float(sacrebleu.corpus_bleu(found, [references], force=True).score)


if __name__ == "__main__":
    main(run)
