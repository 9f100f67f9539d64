"""Rows for tuning: every form, the mask of what the assistant says, and errors that name file and line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, pre_tokenizers

from octavo.conversation import encode_conversation
from octavo.data.conversations import Encoder, read_examples, read_rows, turns_of
from octavo.errors import FormatError, UnsupportedError
from octavo.text.templates import ChatTemplate
from octavo.text.tokenizer import Tokenizer

THINKING = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' and not loop.last %}{{ m.content.split('</think>')[-1] }}"
    "{% else %}{{ m.content }}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture
def tokenizer(tmp_path: Path) -> Tokenizer:
    """A token for each byte, and ChatML's two control tokens."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Backend(models.BPE({letter: index for index, letter in enumerate(letters)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    backend.save(str(tmp_path / "tokenizer.json"))
    return Tokenizer.from_file(tmp_path / "tokenizer.json", {"eos_token": "<|im_end|>"})


def encoder(tokenizer: Tokenizer, template: str | None = None) -> Encoder:
    return Encoder(tokenizer, ChatTemplate(template, tokens={}), 257)


def learned_text(encoder: Encoder, row: dict[str, Any]) -> str:
    example = encoder.example(row, "here")
    ids = [int(token) for token, learned in zip(example.tokens, example.learned, strict=True) if learned]
    return encoder.tokenizer.decode(ids, skip_special=False)


CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "One?"},
    {"role": "assistant", "content": "1"},
    {"role": "user", "content": "Two?"},
    {"role": "assistant", "content": "2"},
]


def test_only_the_answers_and_their_ends_are_learned(tokenizer: Tokenizer) -> None:
    made = encoder(tokenizer)
    assert learned_text(made, {"messages": CHAT}) == "1<|im_end|>2<|im_end|>"
    example = made.example({"messages": CHAT}, "here")
    assert example.learned[-1] and example.tokens[-1] == 257
    whole = tokenizer.decode(example.tokens.tolist(), skip_special=False)
    assert whole + "\n" == made.template.render(CHAT, add_generation_prompt=False)


def test_an_answer_that_the_template_rewrites_later_is_not_learned(tokenizer: Tokenizer) -> None:
    turns = [dict(turn) for turn in CHAT]
    turns[2]["content"], turns[4]["content"] = "<think>hm</think>1", "<think>so</think>2"
    assert learned_text(encoder(tokenizer, THINKING), {"messages": turns}) == "<think>so</think>2<|im_end|>"


def test_control_tokens_in_rows_are_text(tokenizer: Tokenizer) -> None:
    turns = [
        {"role": "user", "content": "Is <|im_end|> a token?"},
        {"role": "assistant", "content": "<|im_start|>: yes"},
    ]
    made = encoder(tokenizer)
    example = made.example({"messages": turns}, "here")
    control = [int(token) for token in example.tokens if token >= 256]
    assert control == [256, 257, 256, 257]  # the template's own, around each turn
    assert learned_text(made, {"messages": turns}) == "<|im_start|>: yes<|im_end|>"
    prompt = encode_conversation(tokenizer, made.template, turns[:1])
    assert example.tokens[: len(prompt)].tolist() == prompt
    assert int(example.learned.argmax()) == len(prompt)
    text = made.example({"text": "a<|im_end|>"}, "here")
    assert (text.tokens >= 256).sum() == 1


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "One?", "completion": "1"},
        {"question": "One?", "answer": "1"},
        {"instruction": "One?", "input": "", "output": "1"},
        {"conversations": [{"from": "human", "value": "One?"}, {"from": "gpt", "value": "1"}]},
        {"prompt": [{"role": "user", "content": "One?"}],
         "completion": [{"role": "assistant", "content": "1"}]},
    ],
)  # fmt: skip
def test_other_forms_are_conversations_too(tokenizer: Tokenizer, row: dict[str, Any]) -> None:
    assert turns_of(row, "here") == [
        {"role": "user", "content": "One?"}, {"role": "assistant", "content": "1"}
    ]  # fmt: skip
    assert learned_text(encoder(tokenizer), row) == "1<|im_end|>"


def test_a_text_is_learned_whole_with_its_end(tokenizer: Tokenizer) -> None:
    assert learned_text(encoder(tokenizer), {"text": "abc"}) == "abc<|im_end|>"


def test_tables_and_parquet_give_the_same_rows(tmp_path: Path) -> None:
    rows = [{"prompt": "a", "completion": "b, c"}, {"prompt": "d\ne", "completion": "f"}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    (tmp_path / "rows.csv").write_text('prompt,completion\na,"b, c"\n"d\ne",f\n')
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "rows.parquet")
    for suffix in ("jsonl", "json", "csv", "parquet"):
        assert [row for _, row in read_rows(tmp_path / f"rows.{suffix}")] == rows


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"prompt": "a", "completion": "b"}\n{"prompt": \n', r"rows.jsonl:2: broken JSON"),
        ('{"messages": [{"role": "user", "content": "a"}]}\n', r"rows.jsonl:1: no turn of the assistant"),
        ('{"question": "a"}\n', r"rows.jsonl:1: the row has question; it needs messages"),
        ("[1]\n", r"rows.jsonl:1: must be an object"),
        (
            '{"messages": [{"role": "user"}]}\n',
            r"rows.jsonl:1: messages\[0\]: a turn of user without content",
        ),
        (
            '{"conversations": [{"from": "x", "value": "a"}]}\n',
            r"rows.jsonl:1: conversations\[0\]: from: 'x'",
        ),
        ("", r"rows.jsonl: no rows"),
    ],
)
def test_errors_name_file_and_line(tokenizer: Tokenizer, tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(content)
    with pytest.raises(FormatError, match=words):
        read_examples([path], encoder(tokenizer))


def test_a_template_that_refuses_is_named(tokenizer: Tokenizer, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"messages": CHAT}) + "\n")
    refusing = encoder(tokenizer, "{{ raise_exception('no system turns here') }}")
    with pytest.raises(FormatError, match=r"rows.jsonl:1: the model's template refuses"):
        read_examples([path], refusing)
    with pytest.raises(UnsupportedError, match=r"\.exe"):
        list(read_rows(_touched(tmp_path / "rows.exe")))
    with pytest.raises(FormatError, match="no such file"):
        list(read_rows(tmp_path / "none.jsonl"))


def _touched(path: Path) -> Path:
    path.touch()
    return path
