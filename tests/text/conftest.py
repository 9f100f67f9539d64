"""Real models where they are present, and a small vocabulary of each kind made on the spot."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

REAL_MODELS = Path(os.environ.get("OCTAVO_TEST_MODELS", "~/.cache/octavo-models")).expanduser()


@pytest.fixture(scope="session")
def real_model() -> Callable[[str], Path]:
    """The path of a real model, or a skip."""

    def find(name: str) -> Path:
        path = REAL_MODELS / name
        if not path.exists():
            pytest.skip(f"no {path}; set OCTAVO_TEST_MODELS to the folder that holds it")
        return path

    return find


@pytest.fixture(scope="session")
def real_metadata(real_model: Callable[[str], Path]) -> Callable[[str], dict[str, Any]]:
    """GGUF metadata of a real model, or a skip."""
    known: dict[str, dict[str, Any]] = {}

    def read(name: str) -> dict[str, Any]:
        if name not in known:
            known[name] = read_gguf_metadata(real_model(name))
        return known[name]

    return read


def read_gguf_metadata(path: Path) -> dict[str, Any]:
    """All keys of a GGUF file, as Tokenizer.from_gguf takes them."""
    from octavo.weights.gguf import read_gguf

    return dict(read_gguf(path).metadata)


@pytest.fixture
def byte_level_metadata() -> dict[str, Any]:
    """A byte-level BPE of 256 bytes, a few merges, one user-defined and three control tokens."""
    from octavo.text.vocabulary import byte_alphabet

    merges = [
        "h e",
        "l l",
        "he ll",
        "hell o",
        "\u0120 w",
        "\u0120w o",
        "r l",
        "\u0120wo rl",
        "\u0120worl d",
        "1 2",
    ]
    tokens = [*byte_alphabet().values(), *(merge.replace(" ", "") for merge in merges)]
    types = [1] * len(tokens) + [4, 3, 3, 3]
    tokens += ["<tool_call>", "<|im_start|>", "<|im_end|>", "<|endoftext|>"]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.bos_token_id": tokens.index("<|im_start|>"),
        "tokenizer.ggml.eos_token_id": tokens.index("<|im_end|>"),
    }


@pytest.fixture
def sentencepiece_metadata() -> dict[str, Any]:
    """A SentencePiece BPE like Llama 2's: three control tokens, 256 bytes, pieces by falling score."""
    words = (
        "\u2581t he \u2581the ll he llo \u2581he \u2581hello \u2581w or ld \u2581world \u2581\u2581".split()
    )
    letters = ["\u2581", *"thelowrdab"]
    pieces = list(dict.fromkeys(words + letters))
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *pieces, "<user>"]
    types = [2, 3, 3, *[6] * 256, *[1] * len(pieces), 4]
    scores = [0.0] * 259 + [-float(rank) for rank in range(len(pieces))] + [0.0]
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.scores": scores,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
    }


@pytest.fixture
def wordpiece_metadata() -> dict[str, Any]:
    """A WordPiece vocabulary as GGUF spells it: words marked, continuations bare."""
    words = [
        "\u2581hello",
        "\u2581world",
        "\u2581un",
        "able",
        "\u2581,",
        "\u2581.",
        "\u2581a",
        "b",
        "\u2581[",
    ]
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *words]
    return {
        "tokenizer.ggml.model": "bert",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3, 3, 3, 3, *[1] * len(words)],
        "tokenizer.ggml.bos_token_id": 2,
        "tokenizer.ggml.seperator_token_id": 3,
        "tokenizer.ggml.unknown_token_id": 1,
        "tokenizer.ggml.padding_token_id": 0,
    }
