"""octavo doctor: is everything here as it should be, and if not, how to mend it."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from octavo.cli.rendering import printable, reports_errors

if TYPE_CHECKING:
    from octavo.text.tokenizer import Tokenizer
    from octavo.weights.checkpoint import Checkpoint

LOW_DISK_BYTES = 2 << 30
LOW_MEMORY_BYTES = 1 << 30
DAMAGED_TOKENIZER = "the file's tokenizer is damaged: take another file of the model"

# Text whose ways through a tokenizer differ: case, digits, runs of spaces, code, accents, scripts, emoji.
ROUND_TRIP_TEXTS = (
    "hello, world! 1234567890",
    "def f(x):\n    return x  # two  spaces\n\ttab",
    "na\u00efve caf\u00e9, \u00dcber, \u0416\u0443\u043a, \u65e5\u672c\u8a9e, \u0639\u0631\u0628",
    "\U0001f600 \U0001f469\u200d\U0001f4bb \u20ac",
)


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report.  mend: what to do, empty where nothing is wrong."""

    check: str
    state: Literal["ok", "warning", "error"]
    found: str
    mend: str = ""


@click.command("doctor")
@click.argument("model", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@reports_errors
def command(model: str | None, as_json: bool) -> None:
    """Check this machine, and MODEL if it is named, and say how to mend what is wrong.

    Exit code 1 if something stops octavo from working.  Nothing is downloaded.
    """
    findings = [*machine_findings(), *(model_findings(model) if model else ())]
    broken = any(finding.state == "error" for finding in findings)
    if as_json:
        click.echo(json.dumps({"ok": not broken, "findings": [asdict(finding) for finding in findings]}))
    else:
        for finding in findings:
            _print(finding)
    if broken:
        sys.exit(1)


def _print(finding: Finding) -> None:
    colour = {"ok": "green", "warning": "yellow", "error": "red"}[finding.state]
    click.secho(f"{finding.state:8}", fg=colour, nl=False)
    click.echo(printable(f"{finding.check}: {finding.found}"))
    if finding.mend:
        click.echo(printable(f"        -> {finding.mend}"))


# --- the machine ---


def machine_findings() -> Iterator[Finding]:
    """Instruction set, processors, memory, cache folder, disk."""
    yield _instruction_set()
    yield _processors()
    yield _memory()
    yield from _cache_folder()


def _instruction_set() -> Finding:
    name = "instruction set"
    try:
        from octavo import _native

        isa = str(_native.isa())
    except ImportError as error:
        mend = "install octavo from its wheel, or build it: pip install . (needs a C++20 compiler)"
        return Finding(name, "error", f"the native core cannot be loaded: {error}", mend)
    except ValueError as error:  # OCTAVO_ISA names one that is not here
        return Finding(name, "error", str(error), "unset OCTAVO_ISA, or give it one of these names")
    if os.environ.get("OCTAVO_ISA"):
        return Finding(name, "warning", f"{isa}, forced by OCTAVO_ISA", "unset OCTAVO_ISA for the fastest")
    if isa == "scalar":
        mend = "expect a fraction of the speed; a processor with AVX2 (x86) or dotprod (ARM) runs far faster"
        return Finding(name, "warning", "scalar: this processor has none that octavo is written for", mend)
    return Finding(name, "ok", isa)


def _processors() -> Finding:
    from octavo import machine

    found = machine.processors()
    quota = "no CPU quota" if found.quota is None else f"a CPU quota of {found.quota:.2f} cores"
    words = f"{found.threads} threads by default, on {found.hardware_threads} hardware threads of "
    words += f"{found.cores} cores with {quota}"
    if found.quota is not None and found.quota < 1:
        return Finding("processors", "warning", words, "raise the container's CPU limit to at least one core")
    return Finding("processors", "ok", words)


def _memory() -> Finding:
    from octavo import machine

    available = machine.available_memory()
    words = f"{available / 2**30:.1f} GiB can be taken"
    if available < LOW_MEMORY_BYTES:
        mend = (
            "close other programs or raise the container's memory limit; octavo show MODEL says what it needs"
        )
        return Finding("memory", "warning", words, mend)
    return Finding("memory", "ok", words)


def _cache_folder() -> Iterator[Finding]:
    from octavo.weights import hub

    folder = hub.cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        mend = "set OCTAVO_HOME to a folder that can be written"
        yield Finding("cache folder", "error", f"{folder} cannot be written: {error.strerror or error}", mend)
        return
    models = hub.cached_models()
    size = sum(model.size for model in models)
    yield Finding("cache folder", "ok", f"{folder} ({len(models)} models, {size / 1e6:,.0f} MB)")
    free = shutil.disk_usage(folder).free
    words = f"{free / 2**30:.1f} GiB free"
    if free < LOW_DISK_BYTES:
        yield Finding("disk", "warning", words, "octavo remove MODEL makes room; OCTAVO_HOME moves the cache")
    else:
        yield Finding("disk", "ok", words)


# --- a model ---


def model_findings(model: str) -> Iterator[Finding]:
    """File, memory, tokenizer and chat template of a model that is here."""
    from octavo.errors import OctavoError
    from octavo.weights import hub
    from octavo.weights.checkpoint import open_checkpoint

    try:
        path = hub.resolve(model, offline=True)
        checkpoint = open_checkpoint(path)
    except OctavoError as error:
        yield Finding("model", "error", str(error), f"bring it (octavo pull {model}), or another file of it")
        return
    kind = checkpoint.config.architecture
    yield Finding("model", "ok", f"{path} ({kind}, {len(checkpoint.tensors)} tensors)")
    yield from _checksum(model, path)
    yield _model_memory(checkpoint)
    try:
        tokenizer = checkpoint.tokenizer()
        round_trip = _round_trip(tokenizer, lossy=checkpoint.config.is_encoder)
    except OctavoError as error:  # some damage shows only when a text is encoded
        yield Finding("tokenizer", "error", str(error), DAMAGED_TOKENIZER)
        return
    yield round_trip
    if not checkpoint.config.is_encoder:
        yield _template(checkpoint, tokenizer)


def _checksum(model: str, path: Path) -> Iterator[Finding]:
    from octavo.weights import hub

    known = hub.SHORT_NAMES.get(model)
    if known is None:
        return
    if hub.file_digest(path) == known.sha256:
        yield Finding("checksum", "ok", f"SHA-256 {known.sha256[:16]}...")
    else:
        mend = f"octavo remove {model} && octavo pull {model}"
        yield Finding("checksum", "error", "the file has changed since it was brought", mend)


def _model_memory(checkpoint: Checkpoint) -> Finding:
    from octavo import machine
    from octavo.cli.show import describe

    report = describe(checkpoint, None, "f16")
    needed, available = report["memory_bytes"], machine.available_memory()
    assert isinstance(needed, int)
    words = f"{needed / 1e6:,.0f} MB needed for {report['context']} tokens, {available / 1e6:,.0f} MB there"
    if needed > available:
        return Finding(
            "model memory", "error", words, "a smaller --context, --kv-type int8, or a smaller model"
        )
    return Finding("model memory", "ok", words)


def _round_trip(tokenizer: Tokenizer, *, lossy: bool) -> Finding:
    """Text to ids and back.  lossy: the tokenizer lowers case and drops accents on purpose (BERT)."""
    for text in ROUND_TRIP_TEXTS:
        ids = tokenizer.encode(text, add_special=False)
        back = tokenizer.decode(ids)
        wrong = not ids if lossy else back.strip() != text.strip()
        if wrong or any(not 0 <= token < tokenizer.vocabulary_size for token in ids):
            found = f"{text!r} came back as {back!r}"
            return Finding("tokenizer", "error", found, DAMAGED_TOKENIZER)
    return Finding("tokenizer", "ok", f"{tokenizer.vocabulary_size:,} tokens, text comes back whole")


def _template(checkpoint: Checkpoint, tokenizer: Tokenizer) -> Finding:
    from octavo.errors import TemplateError
    from octavo.text.templates import ChatTemplate

    if checkpoint.chat_template is None:
        return Finding("chat template", "ok", "none: a base model, octavo run continues the text")
    messages = [{"role": "user", "content": "octavo-doctor-question"}]
    try:
        template = ChatTemplate(checkpoint.chat_template, tokens=tokenizer.special_tokens)
        rendered = template.render(messages, add_generation_prompt=True)
    except TemplateError as error:
        return Finding("chat template", "error", str(error), "octavo run --raw works without the template")
    if "octavo-doctor-question" not in rendered:
        found = "it leaves the user's message out"
        return Finding("chat template", "error", found, "octavo run --raw works without the template")
    ids = tokenizer.encode(rendered, add_special=False, parse_special=True)
    beginnings = sum(1 for token in ids[:2] if token == tokenizer.beginning_id)
    if tokenizer.beginning_id is not None and beginnings == 2:
        found = "it writes the beginning token twice, which harms answers"
        return Finding(
            "chat template", "warning", found, "take another file of the model, or octavo run --raw"
        )
    return Finding("chat template", "ok", f"renders, {len(ids)} tokens for one short message")
