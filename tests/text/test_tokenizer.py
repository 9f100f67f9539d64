"""Tokenizer on small vocabularies: what it promises, and what it does with broken files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mixed_lines import mixed_lines

from octavo.errors import FormatError, UnsupportedError
from octavo.text.tokenizer import Tokenizer

_SHARED_FIXTURE = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
_TEXTS = st.text() | st.text(alphabet="hello world<|im_start|><tool_call>\u2581\n12 ", max_size=60)


def _tokens(metadata: dict[str, Any], ids: list[int]) -> list[str]:
    return [metadata["tokenizer.ggml.tokens"][id] for id in ids]


def test_byte_level_merges_in_rank_order(byte_level_metadata: dict[str, Any]) -> None:
    tokenizer = Tokenizer.from_gguf(byte_level_metadata)
    ids = tokenizer.encode("hello world, hell 12")
    assert _tokens(byte_level_metadata, ids) == [
        "hello",
        "\u0120world",
        ",",
        "\u0120",
        "hell",
        "\u0120",
        "12",
    ]
    assert tokenizer.decode(ids) == "hello world, hell 12"


@pytest.mark.parametrize(
    ("name", "cuts"),
    [
        ("gpt-2", ["a", "\u0120", "\u01201234", "'s", "\u010a\u010a"]),
        ("smollm", ["a", "\u0120\u0120", "1", "2", "3", "4", "'s", "\u010a\u010a"]),
        ("qwen2", ["a", "\u0120", "\u0120", "1", "2", "3", "4", "'s", "\u010a\u010a"]),
        ("llama-bpe", ["a", "\u0120", "\u0120", "123", "4", "'s", "\u010a\u010a"]),
        ("tekken", ["a", "\u0120", "\u0120", "1", "2", "3", "4", "'s", "\u010a\u010a"]),
        ("gpt-4o", ["a", "\u0120", "\u0120", "123", "4", "'s", "\u010a\u010a"]),
        ("deepseek-v3", ["a", "\u0120\u0120", "123", "4", "'s", "\u010a\u010a"]),
        ("deepseek-coder", ["a", "\u0120\u0120", "1", "2", "3", "4", "'", "s", "\u010a", "\u010a"]),
    ],
)
def test_pretokenizers_cut_as_their_families_do(name: str, cuts: list[str]) -> None:
    from octavo.text.pretokenizers import pretokenizer

    pieces = pretokenizer(name).build().pre_tokenize_str("a  1234's\n\n")
    assert [piece for piece, _ in pieces] == cuts


def test_special_text_is_text_unless_asked(byte_level_metadata: dict[str, Any]) -> None:
    tokenizer = Tokenizer.from_gguf(byte_level_metadata)
    control = byte_level_metadata["tokenizer.ggml.tokens"].index("<|im_start|>")
    text = "<|im_start|>hello<|im_end|>"
    assert control not in tokenizer.encode(text)
    assert tokenizer.decode(tokenizer.encode(text)) == text
    marked = tokenizer.encode(text, parse_special=True)
    assert _tokens(byte_level_metadata, marked) == ["<|im_start|>", "hello", "<|im_end|>"]
    assert tokenizer.decode(marked) == "hello"
    assert tokenizer.decode(marked, skip_special=False) == text


def test_user_defined_tokens_always_match(byte_level_metadata: dict[str, Any]) -> None:
    tokenizer = Tokenizer.from_gguf(byte_level_metadata)
    ids = tokenizer.encode("hello<tool_call>hello")
    assert _tokens(byte_level_metadata, ids) == ["hello", "<tool_call>", "hello"]
    assert tokenizer.decode(ids) == "hello<tool_call>hello"


def test_beginning_and_end_follow_the_file(byte_level_metadata: dict[str, Any]) -> None:
    begin = byte_level_metadata["tokenizer.ggml.bos_token_id"]
    end = byte_level_metadata["tokenizer.ggml.eos_token_id"]
    plain = Tokenizer.from_gguf(byte_level_metadata)
    assert not plain.add_beginning and plain.beginning_id == begin
    flags = {"tokenizer.ggml.add_bos_token": True, "tokenizer.ggml.add_eos_token": True}
    tokenizer = Tokenizer.from_gguf(byte_level_metadata | flags)
    assert tokenizer.add_beginning
    assert tokenizer.encode("1") == [begin, *plain.encode("1"), end]
    assert tokenizer.encode("1", add_special=False) == plain.encode("1")
    llama = Tokenizer.from_gguf(byte_level_metadata | {"tokenizer.ggml.pre": "llama-bpe"})
    assert llama.add_beginning  # Llama 3 files from before the flag existed


def test_end_ids_hold_named_and_well_known_tokens(byte_level_metadata: dict[str, Any]) -> None:
    tokenizer = Tokenizer.from_gguf(byte_level_metadata)
    assert set(_tokens(byte_level_metadata, list(tokenizer.end_ids))) == {"<|im_end|>", "<|endoftext|>"}
    eot = {"tokenizer.ggml.eot_token_id": 5}
    assert 5 in Tokenizer.from_gguf(byte_level_metadata | eot).end_ids


def test_end_text_that_is_no_control_token_does_not_end(sentencepiece_metadata: dict[str, Any]) -> None:
    tokens = [*sentencepiece_metadata["tokenizer.ggml.tokens"], "<|im_end|>"]
    types = [*sentencepiece_metadata["tokenizer.ggml.token_type"], 4]
    scores = [*sentencepiece_metadata["tokenizer.ggml.scores"], 0.0]
    changes = {"tokens": tokens, "token_type": types, "scores": scores}
    metadata = sentencepiece_metadata | {f"tokenizer.ggml.{key}": value for key, value in changes.items()}
    assert Tokenizer.from_gguf(metadata).end_ids == {2}


def test_oss_models_go_on_after_end_of_a_message() -> None:
    from octavo.text.vocabulary import find_end_ids

    texts = {"<|return|>": 1, "<|call|>": 2, "<|end|>": 3}
    assert find_end_ids([1], texts) == {1, 2}
    assert find_end_ids([], {"<|end|>": 3}) == {3}


def test_qwen_composes_characters_first(byte_level_metadata: dict[str, Any]) -> None:
    qwen = Tokenizer.from_gguf(byte_level_metadata | {"tokenizer.ggml.pre": "qwen2"})
    assert qwen.encode("e\u0301") == qwen.encode("\u00e9")
    assert qwen.decode(qwen.encode("e\u0301")) == "\u00e9"


def test_whole_pieces_skip_merging_only_where_the_family_does(byte_level_metadata: dict[str, Any]) -> None:
    # "lo" is a token that no merge makes.
    tokens = [*byte_level_metadata["tokenizer.ggml.tokens"], "lo"]
    types = [*byte_level_metadata["tokenizer.ggml.token_type"], 1]
    metadata = byte_level_metadata | {"tokenizer.ggml.tokens": tokens, "tokenizer.ggml.token_type": types}
    for name, expected in (("gpt-2", ["l", "o"]), ("llama-bpe", ["lo"])):
        tokenizer = Tokenizer.from_gguf(metadata | {"tokenizer.ggml.pre": name})
        assert _tokens(metadata, tokenizer.encode("lo", add_special=False)) == expected


def test_a_vocabulary_without_some_bytes_drops_them_as_its_original_does(
    byte_level_metadata: dict[str, Any],
) -> None:
    tokens = list(byte_level_metadata["tokenizer.ggml.tokens"])
    tokens[tokens.index("\u00d1")] = "unused"  # byte 0xD1
    tokenizer = Tokenizer.from_gguf(byte_level_metadata | {"tokenizer.ggml.tokens": tokens})
    assert tokenizer.encode("a\u0440b") == tokenizer.encode("a") + [
        tokens.index("\u0122")
    ] + tokenizer.encode("b")


def test_sentencepiece_prefix_bytes_and_user_tokens(sentencepiece_metadata: dict[str, Any]) -> None:
    tokenizer = Tokenizer.from_gguf(sentencepiece_metadata)
    ids = tokenizer.encode("hello the \u00e9<user> b")
    assert _tokens(sentencepiece_metadata, ids) == [
        *("<s>", "\u2581hello", "\u2581the", "\u2581", "<0xC3>", "<0xA9>", "<user>", "\u2581", "b"),
    ]
    assert tokenizer.decode(ids) == "hello the \u00e9<user> b"
    assert tokenizer.decode(ids, continuation=True) == " hello the \u00e9<user> b"
    assert tokenizer.token_bytes(ids[4]) == b"\xc3" and tokenizer.token_bytes(1) == b""
    assert tokenizer.encode("", add_special=False) == []
    bare = Tokenizer.from_gguf(sentencepiece_metadata | {"tokenizer.ggml.add_space_prefix": False})
    assert _tokens(sentencepiece_metadata, bare.encode("hello")) == ["<s>", "he", "llo"]


def test_each_turn_of_a_sentencepiece_chat_begins_with_the_prefix(
    sentencepiece_metadata: dict[str, Any],
) -> None:
    tokenizer = Tokenizer.from_gguf(sentencepiece_metadata)
    ids = tokenizer.encode("<s>hello</s><s>the", add_special=False, parse_special=True)
    assert _tokens(sentencepiece_metadata, ids) == ["<s>", "\u2581hello", "</s>", "<s>", "\u2581the"]


def test_phi3_swallows_space_after_its_marks(sentencepiece_metadata: dict[str, Any]) -> None:
    phi3 = Tokenizer.from_gguf(sentencepiece_metadata | {"general.architecture": "phi3"})
    ids = phi3.encode("<s>\n hello", add_special=False, parse_special=True)
    assert _tokens(sentencepiece_metadata, ids) == ["<s>", "\u2581hello"]


def test_sentencepiece_without_byte_tokens_gives_one_unknown_for_a_run(
    sentencepiece_metadata: dict[str, Any],
) -> None:
    types = [1 if kind == 6 else kind for kind in sentencepiece_metadata["tokenizer.ggml.token_type"]]
    tokenizer = Tokenizer.from_gguf(sentencepiece_metadata | {"tokenizer.ggml.token_type": types})
    assert _tokens(sentencepiece_metadata, tokenizer.encode("a\u00e9\u00eab")) == [
        *("<s>", "\u2581", "a", "<unk>", "b"),
    ]


def test_wordpiece(wordpiece_metadata: dict[str, Any]) -> None:
    tokenizer = Tokenizer.from_gguf(wordpiece_metadata)
    ids = tokenizer.encode("Hello, WORLD unable xyz.")
    expected = [
        "[CLS]",
        "\u2581hello",
        "\u2581,",
        "\u2581world",
        "\u2581un",
        "able",
        "[UNK]",
        "\u2581.",
        "[SEP]",
    ]
    assert _tokens(wordpiece_metadata, ids) == expected
    assert tokenizer.decode(ids) == "hello, world unable."
    assert tokenizer.end_ids == frozenset()


@pytest.mark.parametrize("kind", ["byte_level_metadata", "sentencepiece_metadata", "wordpiece_metadata"])
@_SHARED_FIXTURE
@given(ids=st.lists(st.integers(0, 290), max_size=40), skip=st.booleans())
def test_stream_equals_decode(kind: str, ids: list[int], skip: bool, request: pytest.FixtureRequest) -> None:
    tokenizer = Tokenizer.from_gguf(request.getfixturevalue(kind))
    stream = tokenizer.stream(skip_special=skip)
    pushed = [stream.push(id) for id in ids]
    assert "".join(pushed) + stream.finish() == tokenizer.decode(ids, skip_special=skip)


@pytest.mark.parametrize("kind", ["byte_level_metadata", "sentencepiece_metadata"])
@pytest.mark.parametrize("parse_special", [False, True])
@_SHARED_FIXTURE
@given(text=_TEXTS)
def test_round_trip(kind: str, parse_special: bool, text: str, request: pytest.FixtureRequest) -> None:
    metadata = request.getfixturevalue(kind)
    if parse_special:  # SentencePiece then puts its prefix space after every control token
        metadata = metadata | {"tokenizer.ggml.add_space_prefix": False}
    tokenizer = Tokenizer.from_gguf(metadata)
    ids = tokenizer.encode(text, add_special=False, parse_special=parse_special)
    expected = text.replace("\u2581", " ") if kind == "sentencepiece_metadata" else text
    assert tokenizer.decode(ids, skip_special=False) == expected


@_SHARED_FIXTURE
@given(text=st.text(alphabet=st.characters(codec=None), max_size=50))
def test_surrogates_become_replacement_characters(text: str, byte_level_metadata: dict[str, Any]) -> None:
    tokenizer = Tokenizer.from_gguf(byte_level_metadata)
    expected = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    assert tokenizer.decode(tokenizer.encode(text)) == expected


def test_long_text_is_cut_where_nothing_changes(byte_level_metadata: dict[str, Any]) -> None:
    from tokenizers import Tokenizer as Library
    from tokenizers import models

    from octavo.text.pretokenizers import pretokenizer

    text = " ".join(mixed_lines(3_000, seed=7))
    for name in (
        "gpt-2",
        "smollm",
        "qwen2",
        "llama-bpe",
        "tekken",
        "gpt-4o",
        "deepseek-v3",
        "deepseek-coder",
    ):
        tokens = byte_level_metadata["tokenizer.ggml.tokens"][:-4]
        merges = [tuple(pair.split(" ")) for pair in byte_level_metadata["tokenizer.ggml.merges"]]
        library = Library(models.BPE(vocab={text: id for id, text in enumerate(tokens)}, merges=merges))
        cuts = pretokenizer(name)
        library.pre_tokenizer = cuts.build()
        metadata = byte_level_metadata | {"tokenizer.ggml.pre": name}
        tokenizer = Tokenizer.from_gguf(metadata | {"tokenizer.ggml.token_type": [1] * (len(tokens) + 4)})
        plain = tokenizer.decode(tokenizer.encode(text, add_special=False))  # composed where the family does
        assert tokenizer.encode(text, add_special=False) == library.encode(plain).ids


@pytest.mark.parametrize("kind", ["byte_level_metadata", "sentencepiece_metadata", "wordpiece_metadata"])
@pytest.mark.parametrize(
    "unit", ["a", " ", "\n", "\U0001f600", "\u0301", "\ud800", "<|im_start|>", "<|", "1"]
)
def test_long_monotonous_text(kind: str, unit: str, request: pytest.FixtureRequest) -> None:
    tokenizer = Tokenizer.from_gguf(request.getfixturevalue(kind))
    text = unit * (100_000 // len(unit))
    ids = tokenizer.encode(text, add_special=False)
    if kind == "byte_level_metadata":
        assert tokenizer.decode(ids) == text.replace("\ud800", "\ufffd")
    assert len(ids) <= 4 * len(text) + 1


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("model", "rwkv", "rwkv"),
        ("model", 3, "must be a string"),
        ("pre", "no-such-cuts", "no-such-cuts"),
        ("tokens", None, "array of strings"),
        ("tokens", [], "empty"),
        ("tokens", ["a", 1], "array of strings"),
        ("merges", None, "array of strings"),
        ("merges", [b"a b"], "array of strings"),
        ("token_type", [1, 2], "integers"),
        ("token_type", ["a"] * 270, "integers"),
        ("bos_token_id", 1_000_000, "outside"),
        ("eos_token_id", -1, "outside"),
        ("eos_token_id", "2", "outside"),
        ("add_bos_token", "yes", "true or false"),
    ],
)
def test_broken_byte_level_files_name_the_field(
    byte_level_metadata: dict[str, Any], field: str, value: object, said: str
) -> None:
    with pytest.raises((FormatError, UnsupportedError), match=said) as caught:
        Tokenizer.from_gguf(byte_level_metadata | {f"tokenizer.ggml.{field}": value})
    assert f"tokenizer.ggml.{field}" in str(caught.value)


@pytest.mark.parametrize("scores", [None, [0.0], ["a"] * 284, [float("nan")] * 284])
def test_broken_scores_are_refused(sentencepiece_metadata: dict[str, Any], scores: object) -> None:
    count = len(sentencepiece_metadata["tokenizer.ggml.tokens"])
    value = scores * count if isinstance(scores, list) and len(scores) != 1 else scores
    value = value[:count] if isinstance(value, list) else value
    with pytest.raises(FormatError, match=r"tokenizer\.ggml\.scores"):
        Tokenizer.from_gguf(sentencepiece_metadata | {"tokenizer.ggml.scores": value})


def test_a_merge_to_nowhere_is_a_format_error(byte_level_metadata: dict[str, Any]) -> None:
    merges = [*byte_level_metadata["tokenizer.ggml.merges"], "x y"]
    tokenizer = Tokenizer.from_gguf(byte_level_metadata | {"tokenizer.ggml.merges": merges})
    with pytest.raises(FormatError, match="xy"):
        tokenizer.encode("xy")


def test_ids_outside_the_vocabulary(byte_level_metadata: dict[str, Any]) -> None:
    tokenizer = Tokenizer.from_gguf(byte_level_metadata)
    assert tokenizer.token_bytes(tokenizer.vocabulary_size) == b""
    with pytest.raises(ValueError, match="negative"):
        tokenizer.decode([-1])


def test_from_file_reads_what_lies_beside_it(tmp_path: Path, byte_level_metadata: dict[str, Any]) -> None:
    from tokenizers import AddedToken, decoders, models
    from tokenizers import Tokenizer as Library

    from octavo.text.pretokenizers import pretokenizer

    tokens = byte_level_metadata["tokenizer.ggml.tokens"]
    merges = [tuple(pair.split(" ")) for pair in byte_level_metadata["tokenizer.ggml.merges"]]
    library = Library(models.BPE(vocab={text: id for id, text in enumerate(tokens[:-4])}, merges=merges))
    library.pre_tokenizer = pretokenizer("gpt-2").build()
    library.decoder = decoders.ByteLevel()
    library.add_tokens([AddedToken(tokens[-4], special=False, normalized=False)])
    library.add_special_tokens(tokens[-3:])
    path = tmp_path / "tokenizer.json"
    library.save(str(path))
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps(
            {"bos_token": "<|im_start|>", "eos_token": {"content": "<|im_end|>"}, "add_bos_token": True}
        )
    )
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [7]}))

    tokenizer = Tokenizer.from_file(path)
    same = Tokenizer.from_gguf(byte_level_metadata | {"tokenizer.ggml.add_bos_token": True})
    assert tokenizer.beginning_id == same.beginning_id and tokenizer.add_beginning
    assert tokenizer.end_ids == same.end_ids | {7}
    assert tokenizer.special_tokens == {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}
    for text in (*mixed_lines(300, seed=3), "<|im_start|>hello<tool_call> world<|im_end|>"):
        for parse_special in (False, True):
            ids = tokenizer.encode(text, parse_special=parse_special)
            assert ids == same.encode(text, parse_special=parse_special)
            assert tokenizer.decode(ids) == same.decode(ids)
    explicit = Tokenizer.from_file(path, {"eos_token_id": 9})
    assert explicit.end_ids == {9, tokens.index("<|im_end|>"), tokens.index("<|endoftext|>")}


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"version":"1.0"}', "[" * 100_000, '{"model":{"type":"BPE"}}']
)
def test_a_broken_tokenizer_json_is_a_format_error(tmp_path: Path, content: str) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(content)
    with pytest.raises(FormatError, match=r"tokenizer\.json"):
        Tokenizer.from_file(path, {})
