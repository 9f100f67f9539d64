"""A corpus of prose for docs/scaling/prose.toml: the documentation in source archives of Python packages.

    python -m benchmarks.documentation_corpus corpus celery-5.7.0.tar.gz django-6.1.3.tar.gz ...

Nothing of an archive runs.  Only paragraphs of prose are kept, and of these what is new: each that was mostly
read before, in whatever document, is left out.  A text whose held-out part repeats what is trained on
has no power law: each token more makes the next repetition likelier.  docs/scaling/archives.txt names the
archives of the demonstration.
"""

from __future__ import annotations

import re
import sys
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path

_LEFT_OUT = re.compile(
    r"release|changelog|changes|history|whatsnew|what.s.new|news|thanks|authors|license|licence|copying"
    r"|/data/|benchmarks|tests?/|locale|requirements|plugin_list|/_",
    re.IGNORECASE,
)
_LEAST_BYTES = 500  # of a document
_LEAST_WORDS = 8  # of a paragraph; shorter ones are headings
_RUN = 5  # words; whether such a run has been seen tells what is a repetition
_LEAST_PROSE = 0.88  # letters and blanks among the characters of a paragraph; listings have fewer
_LEAST_LEFT = 0.3  # of a document when it is compressed; long tables of options have less


def documents(archives: list[Path]) -> dict[str, bytes]:
    """Path within its archive -> text, in the order of the paths, without what was mostly seen before."""
    found: dict[str, bytes] = {}
    for path in archives:
        with tarfile.open(path) as archive:
            for member in archive:
                if member.isfile() and _is_documentation(member.name):
                    file = archive.extractfile(member)
                    assert file is not None  # it is a file
                    found[member.name] = file.read()
    texts: dict[str, bytes] = {}
    seen: set[int] = set()
    for name in sorted(found, key=lambda name: Path(name).parts):
        try:
            text = found[name].decode()
        except UnicodeDecodeError:  # a page in Latin-1, of which archives hold a few
            continue
        kept = "\n\n".join(new_paragraphs(text, seen)).encode()
        if len(kept) >= _LEAST_BYTES and len(zlib.compress(kept)) >= _LEAST_LEFT * len(kept):
            texts[name] = kept + b"\n"
    return texts


def new_paragraphs(text: str, seen: set[int]) -> Iterator[str]:
    """The paragraphs of prose of which less than half has been seen; what is in them is seen from now on."""
    for paragraph in re.split(r"\n\s*\n", text):
        words = re.findall(r"\w+", paragraph.lower())
        letters = sum(character.isalpha() or character.isspace() for character in paragraph)
        # Directives, fields and tables begin with a sign; code has many.
        if (
            not paragraph.lstrip(" *-")[:1].isalpha()
            or len(words) < _LEAST_WORDS
            or letters < _LEAST_PROSE * len(paragraph)
        ):
            continue
        runs = {zlib.crc32(" ".join(words[at : at + _RUN]).encode()) for at in range(len(words) - _RUN + 1)}
        if 2 * len(runs & seen) < len(runs):
            yield paragraph
        seen |= runs


def _is_documentation(name: str) -> bool:
    if _LEFT_OUT.search(name):
        return False
    # Django's documentation is reStructuredText under another name.
    return name.endswith(".rst") or (name.startswith("django") and "/docs/" in name and name.endswith(".txt"))


def main() -> None:
    """Write one file for each document."""
    if len(sys.argv) < 3:
        sys.exit(f"what to do: python -m benchmarks.documentation_corpus FOLDER ARCHIVE...\n\n{__doc__}")
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    texts = documents([Path(name) for name in sys.argv[2:]])
    for number, text in enumerate(texts.values()):
        (folder / f"{number:05}.txt").write_bytes(text)
    print(f"{len(texts):,} documents, {sum(map(len, texts.values())):,} bytes in {folder}")


if __name__ == "__main__":
    main()
