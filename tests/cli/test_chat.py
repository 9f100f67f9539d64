"""octavo chat: turns, several lines, commands, and a conversation that outgrows its context."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from octavo.api import Model
from octavo.cli.chat import Conversation, command, read_message
from octavo.completion import ContextLengthError

Invoke = Callable[..., Any]
UseModel = Callable[..., dict[str, Any]]
Scripted = Callable[..., Callable[[bytes], int]]
MakeModel = Callable[..., Model]

TEMPLATE = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}[answer]"


def reader(*lines: str) -> Callable[[str], str]:
    rest: Iterator[str] = iter(lines)

    def read_line(_: str) -> str:
        try:
            return next(rest)
        except StopIteration:
            raise EOFError from None

    return read_line


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["hello"], "hello"),
        (["one \\", "two\\", "three"], "one \ntwo\nthree"),
        (['"""', "a", "", "b", '"""'], "a\n\nb"),
        (['"""a', 'b"""'], "a\nb"),
        (['"""one line"""'], "one line"),
        (["```python", "x = 1", "```"], "```python\nx = 1\n```"),
        (['"""'], None),
        ([], None),
    ],
)
def test_messages_of_one_or_more_lines(lines: list[str], message: str | None) -> None:
    if message is None:
        with pytest.raises(EOFError):
            read_message(reader(*lines))
    else:
        assert read_message(reader(*lines)) == message


def test_a_conversation_remembers(invoke: Invoke, use_model: UseModel) -> None:
    histories: list[bytes] = []

    def script(history: bytes) -> int:
        histories.append(history)
        return 256 if history.endswith(b"ok") else b"ok"[history.endswith(b"o")]

    use_model(script, template=TEMPLATE)
    result = invoke(command, "m", "--system", "s", "--temperature", "0", input="one\n\ntwo\n")
    assert result.exit_code == 0 and result.stdout == "ok\nok\n"
    assert histories[-1] == b"[system]s[user]one[assistant]ok[user]two[answer]ok"


def test_slash_commands(invoke: Invoke, use_model: UseModel, scripted: Scripted, tmp_path: Path) -> None:
    use_model(scripted("ok"), template=TEMPLATE)
    file, page = tmp_path / "talk.json", tmp_path / "talk.md"
    lines = [
        "/help",
        "/system be brief",
        "hi",
        f"/save {file}",
        f"/save {page}",
        "/clear",
        "/save",
        "/nonsense",
    ]
    lines += [f"/save {tmp_path}/no/such/folder/x.json", "/exit", "never asked"]
    result = invoke(command, "m", "--temperature", "0", input="\n".join(lines) + "\n")
    assert result.exit_code == 0 and result.stdout == "ok\n"
    assert json.loads(file.read_text()) == [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "ok"},
    ]
    assert "**user**\n\nhi" in page.read_text()
    for part in (
        "/clear ",
        "be brief",
        "forgotten",
        "where to?",
        "/nonsense: no such command",
        "No such file",
    ):
        assert part in result.stderr


def test_a_conversation_that_outgrows_its_context_says_so(make_model: MakeModel, capsys: Any) -> None:
    model = make_model(context=128, template=TEMPLATE)
    conversation = Conversation(model, "s")
    for number in range(6):
        messages = conversation.ask(f"question {number}")
        conversation.answer("an answer")
        assert len(model.encode_chat(messages)) <= 128 - 32
    assert messages[0] == {"role": "system", "content": "s"} and messages[1]["role"] == "user"
    assert len(messages) < 12 and conversation.left_out > 0
    assert len(conversation.turns) == 12
    assert "outgrown the context of 128 tokens" in capsys.readouterr().err


def test_a_message_that_cannot_fit_is_refused_and_forgotten(make_model: MakeModel) -> None:
    conversation = Conversation(make_model(context=128, template=TEMPLATE), None)
    conversation.ask("hello")
    conversation.answer("hi")
    with pytest.raises(ContextLengthError, match="context of 128"):
        conversation.ask("x" * 200)
    assert [turn["content"] for turn in conversation.messages()] == ["hello", "hi"]


def test_the_conversation_goes_on_after_a_refusal(
    invoke: Invoke, use_model: UseModel, scripted: Scripted
) -> None:
    use_model(scripted("ok"), template=TEMPLATE, context=128)
    result = invoke(command, "m", "--temperature", "0", input="x" * 200 + "\nhello\n")
    assert result.exit_code == 0 and result.stdout == "ok\n" and "error: the message needs" in result.stderr


def test_a_template_that_refuses_a_message_ends_nothing(
    invoke: Invoke, use_model: UseModel, scripted: Scripted
) -> None:
    refusing = (
        "{% if 'bad' in messages[-1].content %}{{ raise_exception('no bad words') }}{% endif %}" + TEMPLATE
    )
    use_model(scripted("ok"), template=refusing)
    result = invoke(command, "m", "--temperature", "0", input="bad\nhello\n")
    assert result.exit_code == 0 and result.stdout == "ok\n" and "no bad words" in result.stderr


def test_a_cut_answer_says_so(invoke: Invoke, use_model: UseModel, scripted: Scripted) -> None:
    use_model(scripted("0123456789"), template=TEMPLATE)
    result = invoke(command, "m", "--temperature", "0", "--max-tokens", "4", input="hello\n")
    assert result.stdout == "0123\n" and "was cut" in result.stderr
