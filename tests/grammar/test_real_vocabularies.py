"""Masks over real vocabularies against trying every token: byte-level BPE, SentencePiece, WordPiece."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from octavo.grammar import Grammar, GrammarCompiler, GrammarMatcher, TokenizerInfo, allocate_token_bitmask
from octavo.grammar.engine.reference import ReferenceRecognizer

pytestmark = pytest.mark.real

MODELS = Path(os.environ.get("OCTAVO_TEST_MODELS", Path.home() / ".cache" / "octavo-models"))
VOCABULARIES = {
    "SmolLM2-135M-Instruct.Q4_1.gguf": 49_152,
    "Qwen2.5-Coder-0.5B-Instruct.Q4_K_M.gguf": 151_936,
    "gemma3-270m.Q4_K_M.gguf": 262_144,
    "all-MiniLM-L6-v2": 30_522,
}
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 40, "pattern": "^[^0-9]*$"},
        "age": {"type": "integer", "minimum": 18, "maximum": 120},
        "tags": {"type": "array", "items": {"enum": ["new", "old", "newer"]}, "uniqueItems": True},
        "child": {"$ref": "#"},
    },
    "required": ["name", "age"],
}
GRAMMARS: dict[str, Callable[[], Grammar]] = {
    "schema": lambda: Grammar.from_json_schema(PERSON),
    "regex": lambda: Grammar.from_regex(r"(\w+ ?){3,9}[.!?](?! )"),
    "sums": lambda: Grammar.from_gbnf(
        'root ::= term ("+" term)*\nterm ::= "(" root ")" | [0-9]{1,3} | [^a-z()+]{2,}'
    ),
    "free text": lambda: Grammar.tagged("<call>", Grammar.from_choices(["yes", "no"]), "</call>"),
}
TRIED = 400  # tokens that the slow twin tries at each state, beside all that the native automaton tries
STEPS = 5


@cache
def information(name: str) -> TokenizerInfo:
    path = MODELS / name
    if not path.exists():
        pytest.skip(f"no {path}; set OCTAVO_TEST_MODELS to the folder that holds it")
    from octavo.weights.checkpoint import open_checkpoint

    tokenizer = open_checkpoint(path).tokenizer()
    return TokenizerInfo(
        [tokenizer.token_bytes(token) for token in range(len(tokenizer.tokens))],
        stop_token_ids=tokenizer.end_ids,
        vocabulary_size=VOCABULARIES[name],
    )


@pytest.mark.parametrize("kind", GRAMMARS)
@pytest.mark.parametrize("name", VOCABULARIES)
def test_masks_are_what_trying_every_token_gives(name: str, kind: str) -> None:
    info, grammar = information(name), GRAMMARS[kind]()
    assert len(info.token_bytes) >= 0.99 * VOCABULARIES[name]
    matcher = GrammarMatcher(GrammarCompiler(info).compile(grammar))
    twin, generator = ReferenceRecognizer(grammar.start), random.Random(f"{name} {kind}")
    mask = allocate_token_bitmask(1, info.vocabulary_size)
    for _ in range(STEPS):
        matcher.fill_next_token_bitmask(mask)
        allowed = np.unpackbits(mask.view(np.uint8), bitorder="little")[: info.vocabulary_size].astype(bool)
        tried = np.array([matcher.is_token_allowed(token) for token in range(info.vocabulary_size)])
        assert np.array_equal(allowed, tried), np.flatnonzero(allowed != tried)[:10]
        good, bad = np.flatnonzero(allowed).tolist(), np.flatnonzero(~allowed).tolist()
        some = generator.sample(good, min(TRIED, len(good))) + generator.sample(bad, min(TRIED, len(bad)))
        for token in some:
            data = info.token_bytes[token] if token < len(info.token_bytes) else b""
            if data:
                assert allowed[token] == twin.allows(data), (token, data)
        texts = [token for token in good if token not in info.stop_token_ids]
        if not texts:
            return
        token = generator.choice(texts)
        assert matcher.accept_token(token) and twin.accept_bytes(info.token_bytes[token])
