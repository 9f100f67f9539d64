"""What a model of random logits writes within each schema of MaskBench: every text must satisfy its schema.

python -m benchmarks.random_texts [MODEL.gguf] [--every N] [--tokens N] [--ordered] [--json FILE]

Each token is drawn from the allowed ones of the model's vocabulary (else of bytes), all alike; after --tokens
of them octavo ends the text.  jsonschema is the judge.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np

from benchmarks.maskbench import Octavo, Vocabulary, model_vocabulary, schemas
from octavo.grammar import GrammarError


def random_text(
    engine: Octavo, vocabulary: Vocabulary, compiled: Any, tokens: int, seed: int
) -> bytes | None:
    """None where nothing may follow, or no ending is known after `tokens` tokens."""
    draw, matcher, text = np.random.default_rng(seed), engine.begin(compiled), b""
    for _ in range(tokens):
        engine.mask(matcher)
        bits = np.unpackbits(engine.row.view(np.uint8), bitorder="little")
        allowed = np.flatnonzero(bits)
        if len(allowed) == 0:
            return None
        token = int(draw.choice(allowed))
        if token == vocabulary.end:
            return text
        if not engine.step(matcher, token):
            raise AssertionError(f"token {token} was allowed behind {text!r} and is refused")
        text += vocabulary.tokens[token]
    ending = matcher.closing_bytes()
    return None if ending is None else text + ending


def judge(schema: Any, text: bytes) -> str:
    try:
        validator = jsonschema.validators.validator_for(schema, jsonschema.Draft202012Validator)
        return "valid" if validator(schema).is_valid(json.loads(text)) else "invalid"
    except (json.JSONDecodeError, UnicodeDecodeError):
        return "no JSON"
    except Exception:  # a schema that jsonschema cannot read
        return "not judged"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", help="a GGUF file, whose vocabulary is taken")
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--tokens", type=int, default=40)
    parser.add_argument("--ordered", action="store_true", help="properties in the schema's order only")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    vocabulary = model_vocabulary(options.model) if options.model else Vocabulary.of_bytes()
    engine = Octavo(vocabulary, not options.ordered)
    counts: Counter[str] = Counter()
    examples: dict[str, str] = {}
    for number, case in enumerate(schemas(options.every)):
        try:
            compiled = engine.compile(case["schema"])
        except GrammarError:
            counts["refused"] += 1
            continue
        text = random_text(engine, vocabulary, compiled, options.tokens, number)
        outcome = "no ending known" if text is None else judge(case["schema"], text)
        counts[outcome] += 1
        if outcome != "valid":
            examples[case["name"]] = f"{outcome}: {(text or b'').decode(errors='replace')[:300]}"
        if sum(counts.values()) % 200 == 0:
            print(dict(counts), flush=True)
    print(dict(counts))
    for name, example in examples.items():
        print(f"{name}: {example}")
    if options.json:
        options.json.write_text(json.dumps({"counts": counts, "examples": examples}, indent=1) + "\n")


if __name__ == "__main__":
    main()
