"""The documents say what is true: links lead somewhere, commands exist, code runs, the map is whole."""

from __future__ import annotations

import ast
import os
import re
import shlex
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import click
import pytest
from tree import REPOSITORY, where

from octavo.cli.main import VERBS

README = REPOSITORY / "README.md"
DOCUMENTS = sorted([*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").rglob("*.md")])
PATH = re.compile(
    r"`((?:src|native|tests|docs|benchmarks|examples)/[\w./-]*|[\w/]+\.(?:py|md|toml|txt|cpp|h))`"
)


def blocks(path: Path) -> Iterator[tuple[str, str]]:
    """(language, content) of the code blocks of a document."""
    yield from re.findall(r"^```(\w*)\n(.*?)^```", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("path", DOCUMENTS, ids=where)
def test_links_lead_to_files(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        if "://" not in target:
            assert (path.parent / target).exists(), target


@pytest.mark.parametrize("path", [README, REPOSITORY / "ARCHITECTURE.md"], ids=where)
def test_files_that_are_named_exist(path: Path) -> None:
    roots = [REPOSITORY, REPOSITORY / "src/octavo"]
    for name in PATH.findall(path.read_text(encoding="utf-8")):
        assert any((root / name).exists() for root in roots), name


def commands(path: Path) -> Iterator[list[str]]:
    for language, content in blocks(path):
        if language in ("", "sh", "bash", "console"):
            for line in content.splitlines():
                for part in line.split("|"):
                    words = shlex.split(part.split("  #")[0].removeprefix("$ "), comments=True)
                    if words and words[0] in ("octavo", "make"):
                        yield words


@pytest.mark.parametrize("path", DOCUMENTS, ids=where)
def test_commands_exist(path: Path) -> None:
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    for words in commands(path):
        if words[0] == "make":
            for verb in (word for word in words[1:] if "=" not in word):
                assert re.search(rf"^{re.escape(verb)}:", makefile, re.MULTILINE), words
        elif len(words) > 1 and not words[1].startswith("-"):
            check_options(words)


def check_options(words: list[str]) -> None:
    """The verb exists and knows the options that a line gives it."""
    assert words[1] in VERBS, words
    command = import_module(f"octavo.cli.{VERBS[words[1]][0]}").command
    if isinstance(command, click.Group) and len(words) > 2:  # octavo sweep run ...
        command = command.commands.get(words[2], command)
    known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
    used = {word.split("=")[0] for word in words[2:] if re.match(r"--?[a-z]", word)}
    assert used <= known, words


def test_python_in_documents_is_python() -> None:
    found = [content for path in DOCUMENTS for language, content in blocks(path) if language == "python"]
    assert found
    for content in found:
        ast.parse(content)


def test_the_readme_shows_code_early() -> None:
    lines = README.read_text(encoding="utf-8").splitlines()
    assert next(number for number, line in enumerate(lines, 1) if line.startswith("```")) <= 25


def test_the_map_of_files_is_whole() -> None:
    section = README.read_text(encoding="utf-8").split("## Map of files")[1].split("\n## ")[0]
    named = set(PATH.findall(section))
    for root in (REPOSITORY / "src/octavo", REPOSITORY / "native"):
        for folder in root.iterdir():
            if folder.is_dir() and any(folder.glob("*.[pch]*")) and folder.name != "__pycache__":
                assert f"{where(folder)}/" in named, f"{where(folder)}/ is not in README's map of files"


def test_the_help_of_main_is_that_of_the_verbs() -> None:
    for verb, (module, line) in VERBS.items():
        command = import_module(f"octavo.cli.{module}").command
        assert isinstance(command, click.Command)
        assert command.name == verb
        assert command.help, f"{verb} has no help"
        assert line.endswith(".")


@pytest.mark.real
def test_the_first_python_of_the_readme_runs(capsys: pytest.CaptureFixture[str]) -> None:
    folder = Path(os.environ.get("OCTAVO_TEST_MODELS", "~/.cache/octavo-models")).expanduser()
    model = folder / "SmolLM2-135M-Instruct.Q4_1.gguf"
    if not model.exists():
        pytest.skip(f"{model} is not there")
    code = next(content for language, content in blocks(README) if language == "python")
    exec(code.replace('"smollm2-135m"', repr(str(model))), {})
    assert "Paris" in capsys.readouterr().out
