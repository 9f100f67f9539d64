"""doctor: what it finds on machines and models with something wrong, and that it says how to mend it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from byte_model import SPECIAL, TEMPLATE, write_byte_model

from octavo import machine
from octavo.cli.doctor import Finding, model_findings
from octavo.cli.doctor import command as doctor
from octavo.weights import hub

Invoke = Callable[..., Any]


def findings(model: Path | str) -> dict[str, Finding]:
    return {finding.check: finding for finding in model_findings(str(model))}


def machine_report(invoke: Invoke) -> dict[str, dict[str, str]]:
    report = json.loads(invoke(doctor, "--json").stdout)
    assert report["ok"] == all(finding["state"] != "error" for finding in report["findings"])
    return {finding["check"]: finding for finding in report["findings"]}


def test_every_check_of_the_machine(invoke: Invoke, cache_folder: Path) -> None:
    report = machine_report(invoke)
    assert list(report) == ["instruction set", "processors", "memory", "cache folder", "disk"]
    assert str(cache_folder) in report["cache folder"]["found"]
    assert all(finding["mend"] for finding in report.values() if finding["state"] != "ok")


def test_a_cache_folder_that_cannot_be_written(
    invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file"
    file.write_text("in the way")
    monkeypatch.setenv("OCTAVO_HOME", str(file / "folder"))
    result = invoke(doctor)
    assert result.exit_code == 1
    assert "cannot be written" in result.stdout and "OCTAVO_HOME" in result.stdout


def test_little_memory_and_a_small_quota(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "available_memory", lambda: 100 << 20)
    monkeypatch.setattr(machine, "processors", lambda: machine.Processors(8, 4, 0.5))
    report = machine_report(invoke)
    assert report["memory"]["state"] == "warning" and report["memory"]["mend"]
    assert report["processors"]["state"] == "warning"
    assert "1 threads by default" in report["processors"]["found"] and "0.50" in report["processors"]["found"]


def test_a_forced_instruction_set(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("octavo._native", reason="the native core is not built")
    monkeypatch.setenv("OCTAVO_ISA", "scalar")
    assert machine_report(invoke)["instruction set"]["state"] == "warning"
    monkeypatch.setenv("OCTAVO_ISA", "abacus")
    assert machine_report(invoke)["instruction set"]["state"] == "error"


def test_a_good_model(invoke: Invoke, tmp_path: Path) -> None:
    path = write_byte_model(tmp_path / "tiny.gguf")
    found = findings(path)
    assert list(found) == ["model", "model memory", "tokenizer", "chat template"]
    assert {finding.state for finding in found.values()} == {"ok"}
    assert "chat template: renders" in invoke(doctor, str(path)).stdout


def test_a_tokenizer_that_is_damaged(tmp_path: Path) -> None:
    # A merge that makes a token which the vocabulary does not have.
    path = write_byte_model(tmp_path / "tiny.gguf", merged="zz")
    found = findings(path)
    assert found["tokenizer"].state == "error" and "chat template" not in found


def test_a_model_that_does_not_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_byte_model(tmp_path / "tiny.gguf")
    monkeypatch.setattr(machine, "available_memory", lambda: 1000)
    found = findings(path)["model memory"]
    assert found.state == "error" and "--context" in found.mend


@pytest.mark.parametrize(
    ("template", "state", "words"),
    [
        (None, "ok", "base model"),
        (SPECIAL[0] * 2 + TEMPLATE, "warning", "twice"),
        (SPECIAL[0] + TEMPLATE, "ok", "renders"),
        ("nothing of yours", "error", "leaves the user's message out"),
        ("{{ ''.__class__.__mro__ }}", "error", ""),
        ("{% for", "error", ""),
    ],
)
def test_templates(tmp_path: Path, template: str | None, state: str, words: str) -> None:
    found = findings(write_byte_model(tmp_path / "tiny.gguf", template=template))["chat template"]
    assert found.state == state
    assert words in found.found
    assert (state == "ok") == (not found.mend)


def test_a_model_that_is_not_here() -> None:
    found = findings("smollm2-135m")
    assert list(found) == ["model"]
    assert found["model"].state == "error" and "octavo pull smollm2-135m" in found["model"].mend


def test_a_short_name_is_checked_byte_for_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache_folder: Path
) -> None:
    path = write_byte_model(tmp_path / "tiny.gguf")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    known = hub.KnownModel("tiny.gguf", path.stat().st_size, digest, "none", "", ("pypi:tiny==1.0",))
    monkeypatch.setitem(hub.SHORT_NAMES, "tiny", known)
    folder = cache_folder / "models/tiny"
    folder.mkdir(parents=True)
    (folder / "tiny.gguf").write_bytes(path.read_bytes())
    record = {"name": "tiny", "source": "", "entry": "tiny.gguf", "size": known.size, "sha256": digest}
    (folder / "octavo.json").write_text(json.dumps(record))
    assert findings("tiny")["checksum"].state == "ok"
    with (folder / "tiny.gguf").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x55")
    assert findings("tiny")["checksum"].state == "error"
