"""Real vocabularies against independent references, on 10,000 mixed lines each.

The references are transformers' conversion of GGUF, the original SentencePiece library and tokenizer.json.
Where they disagree with each other the reason is written beside the test.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from mixed_lines import mixed_lines
from sentencepiece_model import sentencepiece_model

from octavo.text.tokenizer import Tokenizer

pytestmark = pytest.mark.real

Metadata = Callable[[str], dict[str, Any]]
Models = Callable[[str], Path]
SMOLLM = "SmolLM2-135M-Instruct.Q4_1.gguf"
QWEN = "Qwen2.5-Coder-0.5B-Instruct.Q4_K_M.gguf"
GEMMA = "gemma3-270m.Q4_K_M.gguf"


@pytest.fixture(scope="module")
def lines() -> list[str]:
    return list(mixed_lines(10_000))


def _transformers(path: Path) -> Any:
    transformers = pytest.importorskip("transformers")
    return transformers.AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name).backend_tokenizer


def _differing(lines: Sequence[str], ours: Tokenizer, theirs: Any, *, parse_special: bool) -> list[str]:
    theirs.encode_special_tokens = not parse_special
    return [
        line
        for line in lines
        if ours.encode(line, add_special=False, parse_special=parse_special)
        != theirs.encode(line, add_special_tokens=False).ids
    ]


def test_smollm2(lines: list[str], real_metadata: Metadata, real_model: Models) -> None:
    """transformers' conversion knows GPT-2's cuts but not SmolLM2's digits, which its tokenizer.json (and
    llama.cpp) splits first: Sequence[Digits(individual_digits), ByteLevel].  The reference gets that here."""
    from tokenizers import pre_tokenizers

    ours, theirs = Tokenizer.from_gguf(real_metadata(SMOLLM)), _transformers(real_model(SMOLLM))
    without_numbers = [line for line in lines if not any(map(str.isnumeric, line))]
    assert _differing(without_numbers, ours, theirs, parse_special=False) == []
    theirs.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    for parse_special in (False, True):
        assert _differing(lines, ours, theirs, parse_special=parse_special) == []


def test_qwen2(lines: list[str], real_metadata: Metadata, real_model: Models) -> None:
    """transformers' conversion leaves out the NFC normalizer that its own Qwen2Tokenizer and Qwen's
    tokenizer.json have (llama.cpp has none either).  The reference gets it here."""
    from tokenizers import normalizers

    ours, theirs = Tokenizer.from_gguf(real_metadata(QWEN)), _transformers(real_model(QWEN))
    composed = [line for line in lines if normalizers.NFC().normalize_str(line) == line]
    assert len(composed) > 8_000
    assert _differing(composed, ours, theirs, parse_special=False) == []
    theirs.normalizer = normalizers.NFC()
    for parse_special in (False, True):
        assert _differing(lines, ours, theirs, parse_special=parse_special) == []


@pytest.mark.parametrize("dummy_prefix", [False, True])
def test_gemma_is_sentencepiece(lines: list[str], real_metadata: Metadata, dummy_prefix: bool) -> None:
    """Gemma's original is a SentencePiece model; with the prefix it stands for Llama 2 and Mistral."""
    sentencepiece = pytest.importorskip("sentencepiece")
    metadata = real_metadata(GEMMA)
    original = sentencepiece.SentencePieceProcessor()
    original.LoadFromSerializedProto(sentencepiece_model(metadata, dummy_prefix=dummy_prefix))
    ours = Tokenizer.from_gguf(metadata | {"tokenizer.ggml.add_space_prefix": dummy_prefix})
    ids = [ours.encode(line, add_special=False) for line in lines]
    assert ids == original.encode(lines)
    assert [ours.decode(line) for line in ids] == original.decode(ids)


def test_gemma_is_transformers(lines: list[str], real_metadata: Metadata, real_model: Models) -> None:
    """The one difference: a run of more spaces than the longest token of spaces (31) is cut as SentencePiece
    does, longest first; transformers' conversion merges it from pairs."""
    ours, theirs = Tokenizer.from_gguf(real_metadata(GEMMA)), _transformers(real_model(GEMMA))
    for parse_special in (False, True):
        differing = _differing(lines, ours, theirs, parse_special=parse_special)
        assert [line for line in differing if not re.search(" {32}", line)] == []


def test_minilm(lines: list[str], real_model: Models) -> None:
    transformers = pytest.importorskip("transformers")
    folder = real_model("all-MiniLM-L6-v2")
    ours = Tokenizer.from_file(folder / "tokenizer.json")
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    theirs.model_max_length = 1_000_000  # it would warn about long lines
    for parse_special in (False, True):
        ids = [ours.encode(line, parse_special=parse_special) for line in lines]
        assert ids == [theirs.encode(line, split_special_tokens=not parse_special) for line in lines]
    assert [ours.decode(line) for line in ids] == [
        theirs.decode(line, skip_special_tokens=True) for line in ids
    ]


def test_minilm_as_gguf_spells_it(lines: list[str], real_model: Models) -> None:
    """A WordPiece GGUF made from tokenizer.json's vocabulary gives the same ids and text."""
    import json

    path = real_model("all-MiniLM-L6-v2") / "tokenizer.json"
    vocabulary: dict[str, int] = json.loads(path.read_text())["model"]["vocab"]
    special = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")

    def spell(text: str) -> str:
        if text.startswith("[") and text.endswith("]"):
            return text
        return text[2:] if text.startswith("##") else "\u2581" + text

    tokens = [spell(text) for text in sorted(vocabulary, key=vocabulary.__getitem__)]
    metadata = {
        "tokenizer.ggml.model": "bert",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3 if text in special else 1 for text in tokens],
        "tokenizer.ggml.cls_token_id": vocabulary["[CLS]"],
        "tokenizer.ggml.seperator_token_id": vocabulary["[SEP]"],
        "tokenizer.ggml.unknown_token_id": vocabulary["[UNK]"],
    }
    from_gguf, from_file = Tokenizer.from_gguf(metadata), Tokenizer.from_file(path)
    for line in lines[:3_000]:
        for parse_special in (False, True):
            ids = from_gguf.encode(line, parse_special=parse_special)
            assert ids == from_file.encode(line, parse_special=parse_special)
            assert from_gguf.decode(ids) == from_file.decode(ids)


@pytest.mark.parametrize("file", [SMOLLM, QWEN, GEMMA])
def test_text_comes_back(file: str, lines: list[str], real_metadata: Metadata) -> None:
    from tokenizers import normalizers

    tokenizer = Tokenizer.from_gguf(real_metadata(file))
    decoded = [tokenizer.decode(tokenizer.encode(line)) for line in lines]
    if file == SMOLLM:  # has no token for some bytes
        missing = [
            byte
            for byte in range(256)
            if not any(tokenizer.token_bytes(id) == bytes([byte]) for id in range(500))
        ]
        expected = [
            bytes(b for b in line.encode() if b not in missing).decode("utf-8", "replace") for line in lines
        ]
    elif file == QWEN:
        expected = [normalizers.NFC().normalize_str(line) for line in lines]
    else:
        expected = [line.replace("\u2581", " ") for line in lines]
    assert decoded == expected


@pytest.mark.parametrize(
    ("file", "ends"),
    [
        (SMOLLM, {"<|im_end|>", "<|endoftext|>", "<reponame>"}),
        (QWEN, {"<|im_end|>", "<|endoftext|>", "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>"}),
        (GEMMA, {"<eos>", "<end_of_turn>"}),
    ],
)
def test_ends_of_generation(file: str, ends: set[str], real_metadata: Metadata) -> None:
    """llama.cpp's lists, without the "</s>" that is plain text here (an HTML tag in Gemma's vocabulary)."""
    metadata = real_metadata(file)
    tokenizer = Tokenizer.from_gguf(metadata)
    assert {metadata["tokenizer.ggml.tokens"][id] for id in tokenizer.end_ids} == ends
