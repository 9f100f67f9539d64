"""Masks of octavo beside those of XGrammar and llguidance, token by token on the same texts; who is right.

python -m benchmarks.mask_differential MODEL.gguf [--every N] [--tokens N] [--json FILE]

A token that only octavo allows is right if the text with it, closed by octavo, satisfies jsonschema.  A token
that only a peer allows is right (and octavo too narrow) if the text with it, closed as any JSON, satisfies
jsonschema; otherwise nothing is proved.  Some tokens of each difference are tried.
"""

from __future__ import annotations

import argparse
import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np

from benchmarks.maskbench import ENGINES, Vocabulary, model_vocabulary, schemas
from octavo.grammar import Grammar, GrammarError, GrammarMatcher

TRIED = 3  # tokens of each difference


def satisfies(schema: Any, text: bytes) -> bool:
    try:
        validator = jsonschema.validators.validator_for(schema, jsonschema.Draft202012Validator)
        return bool(validator(schema).is_valid(json.loads(text)))
    except Exception:  # not JSON, or a schema that jsonschema cannot read
        return False


def closed(compiled: Any, text: bytes) -> bytes | None:
    matcher = GrammarMatcher(compiled)
    if not matcher.accept_bytes(text):
        return None
    ending = matcher.closing_bytes()
    return None if ending is None else text + ending


class Differential:
    def __init__(self, vocabulary: Vocabulary, seed: int = 0) -> None:
        self.vocabulary = vocabulary
        self.engines = {name: make(vocabulary, True) for name, make in ENGINES.items()}
        self.any_json = self.engines["octavo"].compiler.compile(Grammar.builtin_json())
        self.counts: Counter[str] = Counter()
        self.examples: dict[str, list[dict[str, str]]] = {}
        self.random = random.Random(seed)
        self.spelled = np.array([bool(token) for token in vocabulary.tokens])

    def mask(self, name: str, matcher: Any) -> np.ndarray[Any, np.dtype[np.bool_]]:
        engine, size = self.engines[name], len(self.vocabulary.tokens)
        engine.mask(matcher)
        words = np.ascontiguousarray(np.asarray(engine.row)).view(np.uint8)
        allowed = np.unpackbits(words, bitorder="little")[:size].astype(np.bool_)
        allowed[self.vocabulary.end] = False
        allowed &= self.spelled
        return allowed

    def schema(self, case: dict[str, Any], most: int) -> None:
        compiled = {}
        for name, engine in self.engines.items():
            try:
                compiled[name] = engine.compile(case["schema"])
            except (GrammarError, ValueError, RuntimeError):
                if name == "octavo":
                    return
        for test in case["tests"]:
            if test["valid"]:
                self.text(case, compiled, json.dumps(test["data"], ensure_ascii=False).encode(), most)

    def text(self, case: dict[str, Any], compiled: dict[str, Any], data: bytes, most: int) -> None:
        matchers = {name: self.engines[name].begin(one) for name, one in compiled.items()}
        before = b""
        for token in self.vocabulary.encode(data)[:most]:
            ours = self.mask("octavo", matchers["octavo"])
            for name in [name for name in matchers if name != "octavo"]:
                theirs = self.mask(name, matchers[name])
                self.counts[f"{name}: masks"] += 1
                self.counts[f"{name}: equal masks"] += bool((ours == theirs).all())
                self.settle(case, compiled["octavo"], before, name, np.flatnonzero(ours & ~theirs), True)
                self.settle(case, compiled["octavo"], before, name, np.flatnonzero(theirs & ~ours), False)
            for name in list(matchers):
                if not self.engines[name].step(matchers[name], token):
                    del matchers[name]
            if "octavo" not in matchers:
                return
            before += self.vocabulary.tokens[token]

    def settle(
        self, case: dict[str, Any], compiled: Any, before: bytes, name: str, tokens: Any, ours: bool
    ) -> None:
        for token in self.random.sample(list(tokens), min(TRIED, len(tokens))):
            text = before + self.vocabulary.tokens[int(token)]
            whole = closed(compiled if ours else self.any_json, text)
            right = whole is not None and satisfies(case["schema"], whole)
            if ours:
                kind = (
                    f"{name} refuses, and a valid text goes on so"
                    if right
                    else f"octavo allows, not {name}: ?"
                )
            else:
                kind = (
                    f"{name} allows, and a valid text goes on so"
                    if right
                    else f"{name} allows, not octavo: ?"
                )
            self.counts[kind] += 1
            shown = self.examples.setdefault(kind, [])
            if len(shown) < 12:
                names = {"schema": case["name"], "before": before[-60:].decode(errors="replace")}
                token_text = self.vocabulary.tokens[int(token)].decode(errors="replace")
                shown.append(
                    {**names, "token": token_text, "closed": (whole or b"").decode(errors="replace")[-80:]}
                )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="a GGUF file, whose vocabulary is taken")
    parser.add_argument("--every", type=int, default=40, help="take every Nth schema")
    parser.add_argument("--tokens", type=int, default=60, help="of each text")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    differential = Differential(model_vocabulary(options.model))
    for case in schemas(options.every):
        differential.schema(case, options.tokens)
    for kind, count in sorted(differential.counts.items()):
        print(f"{count:8} {kind}")
    if options.json:
        found = {"counts": dict(differential.counts), "examples": differential.examples}
        options.json.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
