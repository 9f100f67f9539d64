"""The corpus of a sweep: tokenized once, as `octavo train` does it, so that a plan's loss is that of its run.

The last documents, in the order of their hashes, are held out there as here.  The synthetic source has an
entropy that is known exactly.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from octavo.data.shards import TokenCorpus, tokenize_corpus
from octavo.data.sources import data_paths, list_files, read_documents
from octavo.data.vocabulary import train_tokenizer
from octavo.errors import FormatError
from octavo.scaling.sweeping.ladder import Ladder

_VOCABULARY_CHARACTERS = 10_000_000


@dataclass(frozen=True, slots=True)
class CorpusFacts:
    """entropy: of the source in nats a token, where it is known."""

    fingerprint: str
    tokens: int
    bytes: int
    entropy: float | None = None


def prepare_corpus(ladder: Ladder, folder: Path) -> CorpusFacts:
    """Make `folder` (tokens.bin, documents.bin, corpus.json) once; the facts of it."""
    facts = folder / "corpus.json"
    if not facts.exists():
        folder.mkdir(parents=True, exist_ok=True)
        entropy = None
        if ladder.synthetic:
            corpus, entropy = synthetic_corpus(**{k: float(v) for k, v in ladder.synthetic.items()})
        else:
            corpus = _tokenized(ladder, folder)
        corpus.tokens.astype(np.uint16).tofile(folder / "tokens.bin")
        corpus.starts.tofile(folder / "documents.bin")
        content = {
            "fingerprint": corpus.fingerprint,
            "tokens": len(corpus),
            "bytes": corpus.bytes,
            "entropy": entropy,
        }
        temporary = folder / ".corpus.json"
        temporary.write_text(json.dumps(content) + "\n", encoding="utf-8")
        os.replace(temporary, facts)
    return CorpusFacts(**json.loads(facts.read_text(encoding="utf-8")))


def open_corpus(folder: Path) -> TokenCorpus:
    """What `prepare_corpus` wrote, mapped."""
    facts = CorpusFacts(**json.loads((folder / "corpus.json").read_text(encoding="utf-8")))
    tokens = np.memmap(folder / "tokens.bin", np.uint16, mode="r")
    if len(tokens) != facts.tokens:
        raise FormatError(f"{folder}: {len(tokens)} tokens where {facts.tokens} should be; remove the folder")
    return TokenCorpus(
        tokens, np.fromfile(folder / "documents.bin", np.int64), facts.bytes, facts.fingerprint
    )


def _tokenized(ladder: Ladder, folder: Path) -> TokenCorpus:
    paths = list_files(data_paths(ladder.data, Path(ladder.folder)))
    # Pairs are counted on a part of the files that is spread over all of them.
    size = sum(path.stat().st_size for path in paths)
    step = max(1, round(size / _VOCABULARY_CHARACTERS))
    chosen = sorted(paths, key=lambda path: hashlib.sha256(path.name.encode()).digest())[::step]
    tokenizer = train_tokenizer(read_documents(chosen), kind="bpe", vocabulary_size=ladder.vocabulary)
    tokenizer.save(str(folder / "tokenizer.json"))
    return tokenize_corpus(paths, tokenizer)


def synthetic_corpus(
    vocabulary: float = 64, tokens: float = 1e6, seed: float = 0, exponent: float = 1.2
) -> tuple[TokenCorpus, float]:
    """A chain of first order whose rows are Zipf's law in an order of their own; with its entropy rate.

    The rate is sum_i pi_i H(P_i), pi the stationary distribution (Shannon 1948, section 7).
    """
    v, n = int(vocabulary), int(tokens)
    transition = transition_matrix(v, int(seed), exponent)
    cumulative = np.cumsum(transition, axis=1)
    draws = np.random.default_rng([int(seed), 1]).random(n)
    ids = np.zeros(n, np.uint16)
    state = 0
    for place in range(n):
        state = min(int(np.searchsorted(cumulative[state], draws[place])), v - 1)
        ids[place] = state
    name = f"synthetic-{v}-{n}-{int(seed)}-{exponent}"
    return TokenCorpus(ids, np.array([0, n], np.int64), n, name), entropy_rate(transition)


def transition_matrix(vocabulary: int, seed: int, exponent: float) -> NDArray[np.float64]:
    """[V, V]: row i is the distribution of what follows i."""
    generator = np.random.default_rng([seed, 0])
    weights = np.arange(1, vocabulary + 1, dtype=float) ** -exponent
    rows = [generator.permutation(weights) for _ in range(vocabulary)]
    return np.asarray(np.array(rows) / weights.sum(), np.float64)


def entropy_rate(transition: NDArray[np.float64]) -> float:
    """Nats a symbol."""
    stationary = np.full(len(transition), 1.0 / len(transition))
    for _ in range(1000):
        stationary = stationary @ transition
    logs = np.log(np.where(transition > 0, transition, 1.0))
    return float(-(stationary @ (transition * logs).sum(axis=1)))
