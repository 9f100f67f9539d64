"""Embedding texts with all-MiniLM-L6-v2: tokens a second, beside sentence-transformers."""

from __future__ import annotations

import contextlib
from pathlib import Path

from benchmarks.comparison import Measure, take_turns
from benchmarks.peers import import_peer
from benchmarks.report import Report, main
from benchmarks.worker import Worker
from benchmarks.workload import EMBEDDERS, Options, model_paths, texts_to_embed

# name: texts, words of the longest; MiniLM takes 256 tokens
WORKS = {"one short text": (1, 12), "128 texts of mixed length": (128, 160)}
ENGINES = {
    "octavo": "octavo-embedder",
    "sentence-transformers": "sentence-transformers",
    "sentence-transformers, bfloat16": "sentence-transformers-bfloat16",
}


def run(options: Options) -> Report:
    import_peer("sentence_transformers")
    report = Report("embedding", "Embedding outruns PyTorch", "tokens a second")
    for name, path in model_paths(options, EMBEDDERS).items():
        with contextlib.ExitStack() as stack:
            workers = {
                label: stack.enter_context(Worker(engine, path, threads=options.threads))
                for label, engine in ENGINES.items()
            }
            for work, (count, longest) in WORKS.items():
                texts = texts_to_embed(count, longest)
                tokens = _count_tokens(path, texts)
                contestants = {label: _measure(worker, texts, tokens) for label, worker in workers.items()}
                samples = take_turns(contestants, options.rounds, f"{name}, {work}")
                report.add(name, f"{work} ({tokens:,} tokens)", samples)
    return report


def _count_tokens(model: Path, texts: list[str]) -> int:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    tokenizer.no_padding()
    return sum(len(encoding.ids) for encoding in tokenizer.encode_batch(texts))


def _measure(worker: Worker, texts: list[str], tokens: int) -> Measure:
    return lambda: tokens / worker.call("embed_seconds", texts=texts)


if __name__ == "__main__":
    main(run)
