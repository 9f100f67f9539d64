"""The command itself: help without the verbs' modules, near misses."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

from octavo.cli.main import VERBS, main

Invoke = Callable[..., Any]


def test_help_names_every_verb(invoke: Invoke) -> None:
    output = invoke(main, "--help").output
    assert all(f"  {verb} " in output for verb in VERBS)


def test_every_verb_has_help(invoke: Invoke) -> None:
    for verb in VERBS:
        result = invoke(main, verb, "--help")
        assert result.exit_code == 0 and "Usage: " in result.output, verb


def test_a_near_miss(invoke: Invoke) -> None:
    result = invoke(main, "lst")
    assert result.exit_code == 2 and "did you mean list?" in result.output


def test_an_unknown_verb_lists_them(invoke: Invoke) -> None:
    result = invoke(main, "zzzzzz")
    assert result.exit_code == 2 and "perplexity" in result.output


def test_help_imports_no_verb() -> None:
    program = (
        "import sys\nfrom octavo.cli.main import main\nmain(['--help'], standalone_mode=False)\n"
        "print([name for name in sys.modules if name.startswith('octavo.cli.')])"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert answer.stdout.splitlines()[-1] == "['octavo.cli.main']"


def test_as_a_module() -> None:
    answer = subprocess.run(
        [sys.executable, "-m", "octavo", "--version"], capture_output=True, text=True, check=True
    )
    assert answer.stdout.startswith("octavo ")
