"""Rule 6: a file is called by what it holds, in the words of the field."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tree import REPOSITORY, source_files, where

BANNED = {
    "util",
    "utils",
    "misc",
    "helper",
    "helpers",
    "manager",
    "managers",
    "common",
    "lib",
    "stuff",
    "tools",
}


@pytest.mark.parametrize("path", source_files(), ids=where)
def test_no_file_has_a_name_that_says_nothing(path: Path) -> None:
    words = set(re.split(r"[/_.-]", where(path).lower())) - {"py", "pyi", "cpp", "h"}
    assert not words & BANNED


@pytest.mark.parametrize("path", source_files("src", suffixes=(".py",)), ids=where)
def test_no_class_has_a_name_that_says_nothing(path: Path) -> None:
    for name in re.findall(r"^\s*class (\w+)", path.read_text(encoding="utf-8"), re.MULTILINE):
        words = {word.lower() for word in re.findall(r"[A-Z]?[a-z]+", name)}
        assert not words & {"manager", "helper", "util", "utils"}, name


@pytest.mark.parametrize("path", source_files(suffixes=(".cpp", ".h")), ids=where)
def test_the_core_knows_no_python_outside_bind(path: Path) -> None:
    if "bind" not in path.parts:
        includes = re.findall(r'#include [<"]([^>"]+)', path.read_text(encoding="utf-8"))
        assert not [name for name in includes if name.startswith(("nanobind", "Python"))]


def test_the_licence_is_whole() -> None:
    text = (REPOSITORY / "LICENSE").read_text(encoding="utf-8")
    assert (
        "Apache License" in text
        and "Version 2.0, January 2004" in text
        and "END OF TERMS AND CONDITIONS" in text
    )
