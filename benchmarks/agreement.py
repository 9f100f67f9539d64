"""How right are the logits?  octavo and llama.cpp, each against the float reference on the same weights.

    python benchmarks/agreement.py MODEL.gguf... [--positions 2000] [--perplexity-tokens 16384]

For each model: mean KL(reference || engine) in nats and top-1 agreement over the first positions of a text,
and the perplexity of each over a longer stretch, in windows of --context tokens that do not overlap.  The
reference is models/gpt.py in float32 on the dequantized weights.  llama.cpp is the one in the wheel
`xllamacpp`, with its own defaults, called through its C interface.
"""

from __future__ import annotations

import argparse
import ctypes
import datetime
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from octavo.evaluation.agreement import Agreement
from octavo.evaluation.perplexity import perplexity
from octavo.weights.checkpoint import Checkpoint, open_checkpoint

Ids = NDArray[np.int32]
Logits = NDArray[np.float32]
Engine = Callable[[Ids], Logits]  # ids [T] -> logits [T, V], every call from an empty context

DEFAULT_TEXT = Path(os.environ.get("OCTAVO_SHARED", Path(__file__).resolve().parents[2] / "shared"))
DEFAULT_TEXT /= "data/text/wikitext2-valid.txt"


class LazyTensors(Mapping[str, NDArray[np.float32]]):
    """A checkpoint's tensors as float32 arrays, each made when asked, so that all never stand twice."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._tensors = checkpoint.tensors

    def __getitem__(self, name: str) -> NDArray[np.float32]:
        return self._tensors[name].numpy()

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


def reference_engine(checkpoint: Checkpoint, threads: int) -> Engine:
    """The plain forward in float32."""
    import torch

    from octavo.models.loading import build_model

    torch.set_num_threads(threads)
    model = build_model(checkpoint.config, LazyTensors(checkpoint))

    def logits(ids: Ids) -> Logits:
        with torch.inference_mode():
            result: Logits = model(torch.from_numpy(ids).long()[None])[0].numpy()
        return result

    return logits


def octavo_engine(path: Path, context: int, threads: int) -> Engine:
    """The native step, through the front door."""
    import octavo

    model = octavo.load(path, context=context, threads=threads)
    return lambda ids: model.logits(ids)


class _OpaqueParameters(ctypes.Structure):
    """llama.cpp's parameter structures: only the leading fields are named, the rest keep their defaults.

    Longer than the library's, which is harmless: they are passed in memory and it copies what it knows.
    """

    _fields_ = [("first", ctypes.c_uint32 * 3), ("rest", ctypes.c_uint8 * 1012)]


class _Batch(ctypes.Structure):
    _fields_ = [
        ("n_tokens", ctypes.c_int32),
        ("token", ctypes.POINTER(ctypes.c_int32)),
        ("embd", ctypes.c_void_p),
        ("pos", ctypes.POINTER(ctypes.c_int32)),
        ("n_seq_id", ctypes.POINTER(ctypes.c_int32)),
        ("seq_id", ctypes.POINTER(ctypes.POINTER(ctypes.c_int32))),
        ("logits", ctypes.POINTER(ctypes.c_int8)),
    ]


def _llama_library() -> ctypes.CDLL:
    import xllamacpp

    library = ctypes.CDLL(str(next(Path(xllamacpp.__file__).parent.glob("xllamacpp*.so"))))
    pointers = (
        "llama_model_load_from_file",
        "llama_init_from_model",
        "llama_get_memory",
        "llama_model_get_vocab",
    )
    for name in pointers:
        getattr(library, name).restype = ctypes.c_void_p
    library.llama_model_default_params.restype = _OpaqueParameters
    library.llama_context_default_params.restype = _OpaqueParameters
    library.llama_get_logits.restype = ctypes.POINTER(ctypes.c_float)
    quiet = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(lambda *_: None)
    library.quiet = quiet  # type: ignore[attr-defined]  # must live as long as the library calls it
    library.llama_log_set(quiet, None)
    library.llama_backend_init()
    return library


def llama_cpp_engine(path: Path, context: int, threads: int) -> Engine:
    """llama.cpp with the defaults of its library: float16 cache, flash attention as it sees fit."""
    library = _llama_library()
    model = library.llama_model_load_from_file(str(path).encode(), library.llama_model_default_params())
    if not model:
        raise SystemExit(f"llama.cpp cannot read {path}")
    parameters = library.llama_context_default_params()
    if list(parameters.first) != [512, 2048, 512]:
        raise SystemExit("this xllamacpp lays out its parameters otherwise than n_ctx, n_batch, n_ubatch")
    parameters.first[:] = context, context, context
    handle = ctypes.c_void_p(library.llama_init_from_model(ctypes.c_void_p(model), parameters))
    library.llama_set_n_threads(handle, threads, threads)
    memory = ctypes.c_void_p(library.llama_get_memory(handle))
    vocab = ctypes.c_void_p(library.llama_model_get_vocab(ctypes.c_void_p(model)))
    vocabulary_size = library.llama_vocab_n_tokens(vocab)

    def logits(ids: Ids) -> Logits:
        count = len(ids)
        integers = ctypes.c_int32 * count
        sequence = (ctypes.c_int32 * 1)(0)
        sequences = (ctypes.POINTER(ctypes.c_int32) * count)(*[sequence] * count)
        batch = _Batch(
            count, integers(*ids.tolist()), None, integers(*range(count)), integers(*[1] * count), sequences,
            (ctypes.c_int8 * count)(*[1] * count),
        )  # fmt: skip
        library.llama_memory_clear(memory, True)
        if library.llama_decode(handle, batch):
            raise SystemExit("llama.cpp could not decode the window")
        return np.ctypeslib.as_array(library.llama_get_logits(handle), (count, vocabulary_size)).copy()

    return logits


def windows(ids: Ids, context: int, beginning_token: int | None) -> Iterator[Ids]:
    """The text in pieces of `context` tokens; the first of each gives way to the beginning token, if any."""
    for start in range(0, len(ids), context):
        window = ids[start : start + context].copy()
        if beginning_token is not None:
            window[0] = beginning_token
        yield window


def compare(path: Path, options: argparse.Namespace) -> dict[str, Any]:
    """One row of figures for each engine."""
    checkpoint = open_checkpoint(path)
    config = checkpoint.config
    beginning = config.beginning_token if config.add_beginning_token else None
    wanted = max(options.positions, options.perplexity_tokens)
    text = options.text.read_text(encoding="utf-8")[: 8 * wanted]
    ids = np.array(checkpoint.tokenizer().encode(text, add_special=False), dtype=np.int32)[:wanted]
    reference = reference_engine(checkpoint, options.threads)
    engines: dict[str, Engine] = {}
    if "octavo" in options.engines:
        engines["octavo"] = octavo_engine(path, options.context, options.threads)
    if "llama.cpp" in options.engines:
        engines["llama.cpp"] = llama_cpp_engine(path, options.context, options.threads)

    agreements = {name: Agreement() for name in engines}
    for window in windows(ids[: options.positions], options.context, beginning):
        expected = reference(window)
        for name, engine in engines.items():
            agreements[name].update(expected, engine(window))
    rows: dict[str, Any] = {
        name: {"mean_kl": seen.mean_kl, "max_kl": seen.max_kl, "top1": seen.top1, "positions": seen.positions}
        for name, seen in agreements.items()
    }
    if options.perplexity_tokens:
        stretch = ids[: options.perplexity_tokens]
        for name, engine in {"reference": reference, **engines}.items():
            measured = perplexity(engine, stretch, options.context, beginning_token=beginning)
            rows.setdefault(name, {}).update(perplexity=measured.perplexity, tokens=measured.tokens)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--text", type=Path, default=DEFAULT_TEXT)
    parser.add_argument("--positions", type=int, default=2000)
    parser.add_argument("--context", type=int, default=512)
    parser.add_argument("--perplexity-tokens", type=int, default=16384, help="0 for none")
    parser.add_argument(
        "--engines", nargs="+", default=["octavo", "llama.cpp"], choices=["octavo", "llama.cpp"]
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="print one object instead of a table")
    options = parser.parse_args()

    results = {path.name: compare(path, options) for path in options.models}
    if options.json:
        json.dump({"date": datetime.date.today().isoformat(), "models": results}, sys.stdout, indent=1)
        return
    print(f"{datetime.date.today()}: {options.positions} positions, context {options.context}")
    print("| model | engine | mean KL (nats) | top-1 | perplexity |\n| --- | --- | --- | --- | --- |")
    for model, rows in results.items():
        for engine, row in rows.items():
            kl, top1 = (f"{row['mean_kl']:.6f}", f"{row['top1']:.2%}") if "mean_kl" in row else ("", "")
            measured = f"{row['perplexity']:.4f}" if "perplexity" in row else ""
            print(f"| {model} | {engine} | {kl} | {top1} | {measured} |")


if __name__ == "__main__":
    main()
