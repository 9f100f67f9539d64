"""A corpus of prose for docs/scaling/prose.toml: the documentation in source archives of Python packages.

    python -m benchmarks.documentation_corpus corpus celery-5.7.0.tar.gz django-6.1.3.tar.gz ...

Nothing of an archive runs.  What repeats itself is left out: lists of changes, generated lists, copies.
docs/scaling.md has the archives of the demonstration.
"""

from __future__ import annotations

import re
import sys
import tarfile
from pathlib import Path

_LEFT_OUT = re.compile(
    r"release|changelog|changes|history|whatsnew|what.s.new|news|thanks|authors|license|licence|copying"
    r"|/data/|benchmarks|tests?/|locale|requirements|plugin_list|/_",
    re.IGNORECASE,
)
_LEAST_BYTES = 500
_LEAST_LINE = 20  # bytes; shorter ones are the same everywhere


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
    seen: set[bytes] = set()
    for name in sorted(found, key=lambda name: Path(name).parts):
        lines = [line for line in found[name].splitlines() if len(line) >= _LEAST_LINE]
        # An installation guide for one more system is most of it the guide for the last one.
        new = sum(line not in seen for line in lines)
        if len(found[name]) >= _LEAST_BYTES and new > len(lines) / 2 and _is_utf8(found[name]):
            texts[name] = found[name]
            seen.update(lines)
    return texts


def _is_documentation(name: str) -> bool:
    if _LEFT_OUT.search(name):
        return False
    # Django's documentation is reStructuredText under another name.
    return name.endswith(".rst") or (name.startswith("django") and "/docs/" in name and name.endswith(".txt"))


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:  # a page in Latin-1, of which archives hold a few
        return False
    return True


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
