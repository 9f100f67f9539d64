"""Rule 10: files under 400 lines, functions under 60, folders of at most a dozen files.

Whoever exceeds one writes the reason beside it: "More than 400 lines: ..." in the first lines of a file,
"More than 60 lines: ..." in or right above a function, "More than a dozen files: ..." in a folder's
__init__.py or README.md.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from tree import REPOSITORY, source_files, where

FILE_LINES, FUNCTION_LINES, FOLDER_FILES = 400, 60, 12
CPP_FUNCTION = re.compile(r"^(?!namespace|struct|class|enum|union|extern)[A-Za-z_].*\{$")


def reason_given(text: str, rule: str) -> bool:
    """Whether a text has the rule's words and, after the colon, at least a few words more."""
    return re.search(rf"{rule}: \w+(\W+\w+){{2}}", text) is not None


@pytest.mark.parametrize("path", source_files(), ids=where)
def test_files_are_short(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    if len(lines) > FILE_LINES:
        assert reason_given("\n".join(lines[:15]), "More than 400 lines"), (
            f"{where(path)}: {len(lines)} lines"
        )


def python_functions(text: str) -> Iterator[tuple[str, int, int, int]]:
    """(name, first line, last line, lines without the docstring), of functions; lines count from 1."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            last = node.end_lineno or node.lineno
            first = node.body[0]
            words = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
            docstring = (first.end_lineno or first.lineno) - first.lineno + 1 if words else 0
            yield node.name, node.lineno, last, last - node.lineno + 1 - docstring


def cpp_functions(text: str) -> Iterator[tuple[str, int, int, int]]:
    """The same of C++: it opens on a line without indent and ends with a brace in the first column."""
    start = 0
    for number, line in enumerate(text.splitlines(), 1):
        if not start and CPP_FUNCTION.match(line):
            start, name = number, line
        elif start and line.startswith("}"):
            yield name, start, number, number - start + 1
            start = 0


@pytest.mark.parametrize("path", source_files(), ids=where)
def test_functions_are_short(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    functions = python_functions(text) if path.suffix in (".py", ".pyi") else cpp_functions(text)
    for name, first, last, length in functions:
        if length > FUNCTION_LINES:
            nearby = "\n".join(lines[max(0, first - 4) : last])
            assert reason_given(nearby, "More than 60 lines"), (
                f"{where(path)}:{first}: {name}: {length} lines"
            )


def test_folders_are_small() -> None:
    counts = Counter(path.parent for path in source_files() if path.name != "__init__.py")
    for folder, count in counts.items():
        if count > FOLDER_FILES:
            notes = [folder / name for name in ("__init__.py", "README.md")]
            words = "\n".join(note.read_text(encoding="utf-8") for note in notes if note.exists())
            assert reason_given(words, "More than a dozen files"), f"{where(folder)}: {count} files"


def test_the_rules_are_really_counted() -> None:
    body = "    x = 1\n" * 61
    assert next(python_functions(f"def f():\n{body}"))[3] == 62
    assert next(cpp_functions("void f(int x) {\n" + body + "}\n"))[3] == 63
    assert not reason_given("More than 60 lines:", "More than 60 lines")
    assert reason_given("# More than 60 lines: a table of names", "More than 60 lines")
    assert any(where(path) == "tests/house/test_size.py" for path in source_files())
    assert (REPOSITORY / "pyproject.toml").exists()
