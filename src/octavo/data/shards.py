"""A corpus as ids on disk: tokenized once, memory-mapped ever after.

tokens.bin holds all ids one after another (uint16, or uint32 for a large vocabulary), documents.bin the place
where each document begins (int64) and, last, the number of tokens.  Both lie in a folder named after the
fingerprint of what they were made from, so that a changed file or tokenizer never meets old tokens.

Documents lie in the order of a hash of their tokens, the same on every machine.  Files sorted by name are
sorted by kind, too: their last part is another text than the rest, and a loss measured on it tells the
difference of the two.  Of shuffled documents the last are a fair sample, and equal ones stand side by side.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from octavo.data.sources import list_files, read_documents
from octavo.data.vocabulary import end_of_text_token
from octavo.errors import FormatError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_VERSION = 2
_BATCH_DOCUMENTS = 256
# A longer document is tokenized in pieces, cut at line ends, so that memory stays bounded.
_PIECE_CHARACTERS = 1 << 20


@dataclass(frozen=True, eq=False)
class TokenCorpus:
    """tokens: ids, one document after another.  starts: int64[documents + 1], where each begins, and the end.

    bytes: UTF-8 bytes of the text, for bits per byte.  fingerprint: of the text and the tokenizer.
    """

    tokens: NDArray[np.integer]
    starts: NDArray[np.int64]
    bytes: int
    fingerprint: str

    def __len__(self) -> int:
        return len(self.tokens)

    def split(self, validation_fraction: float) -> tuple[TokenCorpus, TokenCorpus]:
        """(training, validation): the last documents, or the end of the only one, are kept for validation."""
        total = len(self.tokens)
        cut = total - int(total * validation_fraction)
        inside = self.starts[1:-1]
        if len(inside):
            nearest = int(inside[np.abs(inside - cut).argmin()])
            if abs(nearest - cut) <= (total - cut) / 2:  # else one document is too large to go whole
                cut = nearest
        return self._part(0, cut), self._part(cut, total)

    def _part(self, begin: int, end: int) -> TokenCorpus:
        inside = self.starts[(self.starts > begin) & (self.starts < end)] - begin
        starts = np.concatenate(([0], inside, [end - begin])).astype(np.int64)
        share = (end - begin) / max(len(self.tokens), 1)
        part = f"{self.fingerprint}[{begin}:{end}]"
        return TokenCorpus(self.tokens[begin:end], starts, round(self.bytes * share), part)


def corpus_of(documents: Sequence[Sequence[int]], *, fingerprint: str = "memory") -> TokenCorpus:
    """A corpus in memory of documents that are ids already; one token counts as one byte."""
    lengths = [len(document) for document in documents]
    starts = np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
    tokens = np.concatenate([np.asarray(document, np.uint32) for document in documents])
    return TokenCorpus(tokens, starts, len(tokens), fingerprint)


def cache_folder() -> Path:
    """Where tokenized corpora are kept: OCTAVO_DATA_CACHE, or octavo/data in the user's cache folder."""
    given = os.environ.get("OCTAVO_DATA_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(given) if given else Path(base).expanduser() / "octavo" / "data"


def tokenize_corpus(
    paths: Sequence[Path], tokenizer: Tokenizer, *, column: str | None = None, cache: Path | None = None
) -> TokenCorpus:
    """The tokens of the files' documents, from the cache or made now.

    Each document is framed by the end-of-text token on both sides if the tokenizer has one: the first token
    is predicted too, and the end is learned.  Raises FormatError for a corpus without text.
    """
    fingerprint = corpus_fingerprint(paths, tokenizer, column)
    end = end_of_text_token(tokenizer)
    frame = [] if end is None else [end]
    documents = read_documents(paths, column=column)
    return stored_corpus(documents, tokenizer, fingerprint, before=frame, after=frame, cache=cache)


def stored_corpus(
    documents: Iterable[str],
    tokenizer: Tokenizer,
    fingerprint: str,
    *,
    before: Sequence[int] = (),
    after: Sequence[int] = (),
    as_given: bool = False,
    cache: Path | None = None,
) -> TokenCorpus:
    """The tokens of documents, each between `before` and `after`, made now or found by the fingerprint.

    The documents are read only if they are not there yet.  as_given: in their own order, which says what
    belongs together, rather than that of the hash.  Raises FormatError if none has any text.
    """
    folder = (cache or cache_folder()) / fingerprint
    if not (folder / "corpus.json").exists():
        with _written_whole(folder) as temporary:
            facts = _write(temporary, documents, tokenizer, (list(before), list(after)))
            if not as_given:
                _shuffle(temporary, np.dtype(facts["dtype"]))
            (temporary / "corpus.json").write_text(json.dumps({**facts, "fingerprint": fingerprint}))
    return _open(folder)


def corpus_fingerprint(paths: Sequence[Path], tokenizer: Tokenizer, column: str | None) -> str:
    """SHA-256 over the tokenizer and every byte of the files, as 32 hexadecimal digits."""
    digest = hashlib.sha256(f"{_VERSION} {column}\n{tokenizer.to_str()}\n".encode())
    for file in list_files(paths):
        with file.open("rb") as stream:
            content = hashlib.file_digest(stream, "sha256").hexdigest()
        digest.update(f"{file.suffix} {content}\n".encode())
    return digest.hexdigest()[:32]


@contextmanager
def _written_whole(folder: Path) -> Iterator[Path]:
    """A temporary folder beside it, renamed at the end: another process never sees half a corpus."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".making-", dir=folder.parent))
    try:
        yield temporary
        if not folder.exists():
            os.replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write(
    folder: Path, documents: Iterable[str], tokenizer: Tokenizer, frame: tuple[list[int], list[int]]
) -> dict[str, Any]:
    """tokens.bin and documents.bin in the documents' own order; what corpus.json says of them."""
    dtype = np.uint16 if tokenizer.get_vocab_size() <= 1 << 16 else np.uint32
    before, after = frame
    starts, total, text_bytes = [0], 0, 0
    with (folder / "tokens.bin").open("wb") as file:
        for ids, size in _encode(documents, tokenizer):
            array = np.asarray([*before, *ids, *after], dtype)
            file.write(array.tobytes())
            total, text_bytes = total + len(array), text_bytes + size
            starts.append(total)
    if total < 2:
        raise FormatError("the corpus is empty: none of the files holds any text")
    np.asarray(starts, np.int64).tofile(folder / "documents.bin")
    return {"version": _VERSION, "dtype": np.dtype(dtype).name, "bytes": text_bytes, "tokens": total}


def _shuffle(folder: Path, dtype: np.dtype[Any]) -> None:
    """Both files again in the order of the documents' hashes; one document is in memory at a time."""
    tokens = np.memmap(folder / "tokens.bin", dtype, mode="r")
    starts = np.fromfile(folder / "documents.bin", np.int64)
    keys = [hashlib.sha256(tokens[begin:end].data).digest() for begin, end in pairwise(starts)]
    order = sorted(range(len(keys)), key=keys.__getitem__)
    with (folder / "shuffled.bin").open("wb") as file:
        for document in order:
            tokens[starts[document] : starts[document + 1]].tofile(file)
    del tokens
    os.replace(folder / "shuffled.bin", folder / "tokens.bin")
    np.concatenate(([0], np.cumsum(np.diff(starts)[order]))).astype(np.int64).tofile(folder / "documents.bin")


def _encode(documents: Iterable[str], tokenizer: Tokenizer) -> Iterator[tuple[list[int], int]]:
    """(ids, UTF-8 bytes) of each document; the library encodes batches with all cores."""
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True  # "<|endoftext|>" within a document is text, not its end
    remaining = iter(documents)
    while batch := list(islice(remaining, _BATCH_DOCUMENTS)):
        pieces = [_pieces(document) for document in batch]
        flat = [piece for group in pieces for piece in group]
        encoded = iter(tokenizer.encode_batch(flat, add_special_tokens=False))
        for document, group in zip(batch, pieces, strict=True):
            ids = [id for _ in group for id in next(encoded).ids]
            yield ids, len(document.encode("utf-8", "surrogatepass"))


def _pieces(document: str) -> list[str]:
    if len(document) <= _PIECE_CHARACTERS:
        return [document]
    pieces, begin = [], 0
    while begin < len(document):
        end = min(begin + _PIECE_CHARACTERS, len(document))
        line_end = document.rfind("\n", begin, end)
        end = line_end + 1 if line_end > begin and end < len(document) else end
        pieces.append(document[begin:end])
        begin = end
    return pieces


def _open(folder: Path) -> TokenCorpus:
    facts = json.loads((folder / "corpus.json").read_text())
    if facts["dtype"] not in ("uint16", "uint32"):
        raise FormatError(f"{folder / 'corpus.json'}: dtype: {facts['dtype']!r}")
    tokens = np.memmap(folder / "tokens.bin", np.dtype(facts["dtype"]), mode="r")
    starts = np.fromfile(folder / "documents.bin", np.int64)
    if len(tokens) != facts["tokens"] or not len(starts) or starts[-1] != len(tokens):
        raise FormatError(f"{folder}: the files do not belong together; remove the folder to make it anew")
    return TokenCorpus(tokens, starts, int(facts["bytes"]), str(facts["fingerprint"]))
