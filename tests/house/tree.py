"""The files that the house rules are about."""

from __future__ import annotations

from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
FOLDERS = ("src", "native", "tests", "benchmarks", "examples")
SUFFIXES = (".py", ".pyi", ".cpp", ".h")


def source_files(*folders: str, suffixes: tuple[str, ...] = SUFFIXES) -> list[Path]:
    """Source files under folders of the repository, by default under all."""
    paths = [path for folder in folders or FOLDERS for path in sorted((REPOSITORY / folder).rglob("*"))]
    return [path for path in paths if path.suffix in suffixes and "__pycache__" not in path.parts]


def where(path: Path) -> str:
    """A path as a reader writes it."""
    return path.relative_to(REPOSITORY).as_posix()
