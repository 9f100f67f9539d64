"""octavo grammar: look at a grammar before a model is asked to keep to it."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from octavo.cli.rendering import reports_errors

if TYPE_CHECKING:
    from octavo.grammar import Grammar


def grammar_of_options(options: dict[str, Any]) -> Grammar | None:
    """Take the options that name a grammar out of a command's options; None without them."""
    kinds = ("json_schema", "regex", "grammar", "language", "choices")
    given = {kind: value for kind in kinds if (value := options.pop(kind, None)) is not None}
    if len(given) > 1:
        names = " and ".join("--" + kind.replace("_", "-") for kind in given)
        raise click.UsageError(f"{names}: a text can keep to one grammar at a time.")
    if not given:
        return None
    from octavo.grammar import Grammar  # not before: an answer without a grammar begins sooner

    if "json_schema" in given:
        return _from_schema(given["json_schema"])
    if "regex" in given:
        return Grammar.from_regex(given["regex"])
    if "language" in given:
        return Grammar.builtin(given["language"])
    if "choices" in given:
        return Grammar.from_choices(given["choices"].split(","))
    return read_grammar(Path(given["grammar"]))


def grammar_arguments(options: dict[str, Any]) -> dict[str, Any]:
    """Take the options about a grammar out of a command's options: arguments of `Model.generate`."""
    trigger, end = options.pop("trigger"), options.pop("trigger_end")
    grammar = grammar_of_options(options)
    if (trigger or end) and grammar is None:
        raise click.UsageError("--trigger says where a grammar begins: give one, as with --json-schema.")
    if end and not trigger:
        raise click.UsageError("--trigger-end needs --trigger, behind which the grammar begins.")
    arguments = {"grammar": grammar, "trigger": (trigger, end) if end else trigger}
    return {name: value for name, value in arguments.items() if value is not None}


def read_grammar(path: Path) -> Grammar:
    """A file's grammar: JSON Schema as .json, Lark as .lark, GBNF as .gbnf, else what its text looks like."""
    from octavo.grammar import Grammar

    text = _read(path)
    if path.suffix == ".json":
        return Grammar.from_json_schema(text)
    if path.suffix == ".lark":
        return Grammar.from_lark(text)
    return Grammar.from_gbnf(text) if path.suffix == ".gbnf" else Grammar.from_text(text)


def _from_schema(name: str) -> Grammar:
    """FILE, or MODULE:NAME of a pydantic model, dataclass or any other annotation."""
    from octavo.grammar import Grammar

    module, colon, member = name.partition(":")
    if colon and not Path(name).exists():
        import sys
        from importlib import import_module

        sys.path.insert(0, "")  # a module beside the user, as `python -m` would find it
        try:
            return Grammar.from_types(getattr(import_module(module), member))
        except (ImportError, AttributeError) as error:
            raise click.UsageError(f"--json-schema {name}: {error}") from error
    return Grammar.from_json_schema(_read(Path(name)))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise click.UsageError(f"{path}: not readable as UTF-8 text: {error}") from error


@click.group("grammar")
def command() -> None:
    """Look at a grammar before a model is asked to keep to it."""


@command.command("check")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@reports_errors
def check(file: Path, as_json: bool) -> None:
    """What of FILE (JSON Schema as .json, GBNF, Lark) is enforced, and the shortest text it allows.

    A keyword that cannot be enforced exactly is an error that names it and where it stands.
    """
    from octavo.grammar import GrammarCompiler, GrammarMatcher, TokenizerInfo

    begun = time.perf_counter()
    grammar = read_grammar(file)
    matcher = GrammarMatcher(
        GrammarCompiler(TokenizerInfo([bytes([byte]) for byte in range(256)])).compile(grammar)
    )
    shortest = matcher.closing_bytes()
    milliseconds = 1000 * (time.perf_counter() - begun)
    text = None if shortest is None else shortest.decode("utf-8", "replace")
    report = grammar.report
    if as_json:
        facts = {
            "enforced": report.enforced,
            "approximated": report.approximated,
            "ignored": report.ignored,
            "compile_milliseconds": round(milliseconds, 3),
            "shortest": text,
        }
        click.echo(json.dumps(facts, ensure_ascii=False))
        return
    for name, entries in (
        ("enforced", report.enforced),
        ("approximated", report.approximated),
        ("ignored", report.ignored),
    ):
        if entries:
            click.echo(f"{name:13} {', '.join(map(str, entries))}")
    click.echo(f"{'compiled in':13} {milliseconds:.1f} ms")
    click.echo(f"{'shortest text':13} {text if text is not None else 'longer than 4,096 bytes'}")
