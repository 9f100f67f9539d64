"""A narrow and cheap front door: what importing octavo brings along, and what it exports."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import octavo

# Each costs tens of milliseconds or more, or does not belong on the path of a request at all.
HEAVY = ("torch", "numpy", "tokenizers", "jinja2", "huggingface_hub", "rich", "transformers", "pydantic")


def modules_after(statement: str) -> set[str]:
    """Top-level names of all modules in a new Python after a statement."""
    program = f"import json, sys\n{statement}\nprint(json.dumps(sorted(sys.modules)))"
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return {name.split(".")[0] for name in json.loads(answer.stdout.splitlines()[-1])}


def test_import_octavo_brings_nothing_heavy() -> None:
    assert not modules_after("import octavo") & {*HEAVY, "click"}


@pytest.mark.parametrize("words", [["--help"], ["pull", "--help"], ["doctor", "--help"]])
def test_the_help_brings_nothing_heavy(words: list[str]) -> None:
    statement = f"from octavo.cli.main import main\nmain({words!r}, standalone_mode=False)"
    assert not modules_after(statement) & set(HEAVY)


def test_the_front_door_brings_no_torch() -> None:
    loaded = modules_after("import octavo; octavo.load; octavo.Model")
    assert "numpy" in loaded
    assert not loaded & {"torch", "transformers"}


def test_every_export_is_there_and_documented() -> None:
    assert sorted(octavo.__all__) == sorted(set(octavo.__all__))
    for name in octavo.__all__:
        assert getattr(octavo, name).__doc__, name
    assert set(octavo.__all__) <= set(dir(octavo))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        octavo.nothing  # noqa: B018
