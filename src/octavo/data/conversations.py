"""Rows to tune on: files of conversations, pairs or texts -> tokens, and which of them are learned.

A row is an object with `messages` (OpenAI), `conversations` (ShareGPT), a prompt and its completion, or
`text`; JSONL, JSON, CSV, TSV and Parquet hold them.  Conversations are rendered with the model's own
template, turn by turn: what the template adds for an answer is the difference between the text with it and
the prompt before it.  So the mask needs no markers in the template, and the tokens before an answer are
those that the model will see.  Control tokens that stand in a row's contents are text, as in a prompt.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from octavo.errors import FormatError, TemplateError, UnsupportedError
from octavo.text.control_tokens import encode_apart, take_apart
from octavo.text.templates import ChatTemplate
from octavo.text.tokenizer import Tokenizer

MAX_LINE_BYTES = 1 << 24
# (prompt, completion) by the names that data sets use.
PAIRS = (("prompt", "completion"), ("question", "answer"), ("instruction", "output"), ("input", "output"))
_SHARE_GPT = {
    "human": "user", "gpt": "assistant", "system": "system", "user": "user", "assistant": "assistant",
    "tool": "tool", "function": "tool",
}  # fmt: skip
Turns = list[dict[str, Any]]


@dataclass(frozen=True, eq=False)
class Example:
    """tokens int32 [T]; learned bool [T]: which of them are to be predicted.  where: file and line."""

    tokens: NDArray[np.int32]
    learned: NDArray[np.bool_]
    where: str


def read_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(file:line, row) of a file.  Raises FormatError that names the line."""
    if not path.is_file():
        raise FormatError(f"{path}: no such file: --data takes .jsonl, .json, .csv, .tsv or .parquet")
    yield from _readers(path.suffix.lower(), path)


def _readers(suffix: str, path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    if suffix in (".jsonl", ".ndjson"):
        yield from _json_lines(path)
    elif suffix == ".json":
        rows = _parse(path.read_bytes(), str(path))
        if not isinstance(rows, list):
            raise FormatError(f"{path}: must be a list of rows; one row a line is .jsonl")
        yield from (
            (where := f"{path}: row {number}", _object(row, where)) for number, row in enumerate(rows, 1)
        )
    elif suffix in (".csv", ".tsv"):
        yield from _table(path, "\t" if suffix == ".tsv" else ",")
    elif suffix == ".parquet":
        yield from _parquet(path)
    elif suffix in (".txt", ".md"):
        for number, text in enumerate(path.read_text(encoding="utf-8-sig").split("\n\n"), 1):
            if text.strip():
                yield f"{path}: paragraph {number}", {"text": text.strip()}
    else:
        raise UnsupportedError(
            f"{path}: {suffix or 'no suffix'}: .jsonl, .json, .csv, .tsv, .parquet or .txt"
        )


def _json_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    with path.open("rb") as file:
        for number, line in enumerate(iter(lambda: file.readline(MAX_LINE_BYTES), b""), 1):
            if line.strip():
                where = f"{path}:{number}"
                yield where, _object(_parse(line, where), where)


def _parse(content: bytes, where: str) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{where}: broken JSON: {error}; mend this line or remove it") from error


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise FormatError(f"{where}: must be an object with messages, prompt and completion, or text")
    return value


def _table(path: Path, delimiter: str) -> Iterator[tuple[str, dict[str, Any]]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file, delimiter=delimiter)
        try:
            for row in rows:
                yield (
                    f"{path}:{rows.line_num}",
                    {key: value for key, value in row.items() if key and value is not None},
                )
        except (csv.Error, UnicodeDecodeError) as error:
            raise FormatError(f"{path}:{rows.line_num}: not a table of text: {error}") from error


def _parquet(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise UnsupportedError(f"{path}: reading Parquet needs pyarrow: pip install pyarrow") from error
    try:
        number = 0
        for batch in parquet.ParquetFile(path).iter_batches():
            for row in batch.to_pylist():
                number += 1
                yield f"{path}: row {number}", {key: value for key, value in row.items() if value is not None}
    except (ValueError, OSError) as error:  # pyarrow's own errors derive from these
        raise FormatError(f"{path}: {error}") from error


def turns_of(row: Mapping[str, Any], where: str) -> Turns | str:
    """A row's conversation, or its plain text.  Raises FormatError for a row that is neither."""
    if "messages" in row or "conversations" in row:
        key = "messages" if "messages" in row else "conversations"
        turns = row[key]
        if isinstance(turns, str):
            turns = _parse(turns.encode(), f"{where}: {key}")
        if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
            raise FormatError(f"{where}: {key}: must be a list of objects")
        return [_turn(turn, f"{where}: {key}[{index}]") for index, turn in enumerate(turns)]
    for prompt, completion in PAIRS:
        if prompt in row and completion in row:
            asked = row[prompt]
            if prompt == "instruction" and row.get("input"):
                asked = f"{asked}\n\n{row['input']}"
            before = (
                asked
                if isinstance(asked, list)
                else [{"role": "user", "content": _text(asked, where, prompt)}]
            )
            answer = row[completion]
            after = (
                answer
                if isinstance(answer, list)
                else [{"role": "assistant", "content": _text(answer, where, completion)}]
            )
            return [_turn(turn, where) for turn in (*before, *after)]
    if "text" in row:
        return _text(row["text"], where, "text")
    names = ", ".join(map(str, row))[:200]
    known = ", ".join(f"{prompt}+{completion}" for prompt, completion in PAIRS)
    raise FormatError(
        f"{where}: the row has {names}; it needs messages, conversations, text, or one of {known}"
    )


def _turn(turn: Any, where: str) -> dict[str, Any]:
    if isinstance(turn, dict) and "from" in turn and "value" in turn:
        if turn["from"] not in _SHARE_GPT:
            raise FormatError(f"{where}: from: {turn['from']!r:.40}; one of {', '.join(_SHARE_GPT)}")
        turn = {"role": _SHARE_GPT[turn["from"]], "content": turn["value"]}
    if not isinstance(turn, dict) or not isinstance(turn.get("role"), str):
        raise FormatError(f"{where}: a turn needs a role and a content")
    if turn.get("content") is None and not turn.get("tool_calls"):
        raise FormatError(f"{where}: a turn of {turn['role']} without content")
    return {"content": "", **{key: value for key, value in turn.items() if value is not None}}


def _text(value: Any, where: str, name: str) -> str:
    if not isinstance(value, str):
        raise FormatError(f"{where}: {name}: must be text, not {type(value).__name__}")
    return value


@dataclass(frozen=True, eq=False)
class Encoder:
    """Rows to examples, for one model.  end: the token that ends a text."""

    tokenizer: Tokenizer
    template: ChatTemplate
    end: int

    def example(self, row: Mapping[str, Any], where: str) -> Example:
        """Raises FormatError for a row without anything to learn."""
        turns = turns_of(row, where)
        if isinstance(turns, str):
            text = self.tokenizer.encode(turns)
            tokens, learned = [*text, self.end], [True] * (len(text) + 1)
        else:
            tools = row.get("tools")
            tokens, learned = self._conversation(turns, tools if isinstance(tools, list) else None, where)
        return Example(np.array(tokens, np.int32), np.array(learned, np.bool_), where)

    def _conversation(
        self, turns: Turns, tools: Sequence[Mapping[str, object]] | None, where: str
    ) -> tuple[list[int], list[bool]]:
        answers = [index for index, turn in enumerate(turns) if turn["role"] == "assistant"]
        if not answers:
            raise FormatError(
                f"{where}: no turn of the assistant: there is nothing to learn from this row; "
                "add its answer or remove the row"
            )
        turns, mark = take_apart(self.tokenizer, turns)
        try:
            whole = self.template.render(turns, add_generation_prompt=False, tools=tools)
            spans = []
            for index in answers:
                before = self.template.render(turns[:index], add_generation_prompt=True, tools=tools)
                after = self.template.render(turns[: index + 1], add_generation_prompt=False, tools=tools)
                # A template may write earlier answers otherwise than the last one (without its reasoning):
                # only what will stand there is learned.
                if after.startswith(before) and whole.startswith(after):
                    spans.append((len(before), len(after)))
        except TemplateError as error:
            raise FormatError(f"{where}: the model's template refuses this conversation: {error}") from error
        if not spans:
            raise FormatError(
                f"{where}: the model's template writes the last answer otherwise than its prompt begins: "
                "no part of the text can be told to be the assistant's"
            )
        tokens: list[int] = []
        learned: list[bool] = []
        position = 0
        for begin, end in spans:
            self._append(whole[position:begin], mark, False, tokens, learned)
            self._append(whole[begin:end], mark, True, tokens, learned)
            position = end
        self._append(whole[position:], mark, False, tokens, learned)
        while tokens and not learned[-1]:  # nothing after the last answer is worth a step
            tokens.pop()
            learned.pop()
        return tokens, learned

    def _append(self, text: str, mark: str, is_answer: bool, tokens: list[int], learned: list[bool]) -> None:
        ids = encode_apart(self.tokenizer, text, mark)
        count = len(ids)
        if is_answer:
            # Up to the end of the turn; what a template puts behind it (a line break) is never generated.
            ends = [index for index, token in enumerate(ids) if token in self.tokenizer.end_ids]
            if ends:
                count = ends[-1] + 1
            else:
                ids = [*ids, self.end]
                count = len(ids)
        tokens += ids
        learned += [is_answer and index < count for index in range(len(ids))]


def read_examples(paths: Sequence[Path], encoder: Encoder) -> list[Example]:
    """All rows of all files.  Raises FormatError for files without any."""
    examples = [encoder.example(row, where) for path in paths for where, row in read_rows(path)]
    if not examples:
        raise FormatError(f"{', '.join(map(str, paths))}: no rows: there is nothing to tune on")
    return examples
