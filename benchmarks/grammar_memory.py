"""Memory while one compiler meets schema after schema, all different: it must stay flat.

python -m benchmarks.grammar_memory [MODEL.gguf] [--schemas 10000] [--json FILE]

Each schema is compiled and a document of it begun with masks over the vocabulary (of the model, else of
bytes); what is resident is read every thousand.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from benchmarks.maskbench import Vocabulary, model_vocabulary
from octavo.grammar import GrammarCompiler, GrammarMatcher, TokenizerInfo


def resident_megabytes() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return 0.0


def visit(compiler: GrammarCompiler, row: np.ndarray, number: int) -> None:  # type: ignore[type-arg]
    schema = {
        "type": "object",
        "properties": {
            f"name_{number}": {"type": "string", "minLength": number % 50, "maxLength": 60 + number % 977},
            f"kind_{number}": {"enum": [f"value {number}", f"other {number * 7}", number]},
            "list": {"type": "array", "items": {"type": "integer", "minimum": number}},
            "code": {"type": "string", "pattern": f"^[a-z]{{{1 + number % 9}}}-{number}$"},
        },
        "required": [f"kind_{number}", "list"],
    }
    matcher = GrammarMatcher(compiler.compile_json_schema(schema))
    for byte in f'{{"name_{number}": "some text'.encode():
        matcher.fill_next_token_bitmask(row)
        assert matcher.accept_bytes(bytes((byte,)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", help="a GGUF file, whose vocabulary is taken")
    parser.add_argument("--schemas", type=int, default=10_000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    vocabulary = model_vocabulary(options.model) if options.model else Vocabulary.of_bytes()
    compiler = GrammarCompiler(TokenizerInfo(vocabulary.tokens, stop_token_ids=[vocabulary.end]))
    row = np.zeros((1, compiler.info.mask_words), np.int32)
    found = {}
    for number in range(options.schemas):
        visit(compiler, row, number)
        if (number + 1) % 1000 == 0 or number == 0:
            found[number + 1] = round(resident_megabytes(), 1)
            shared = compiler.shared.bytes / 2**20
            print(
                f"{number + 1:6} schemas: {found[number + 1]:8.1f} MB resident, {shared:.1f} MB shared",
                flush=True,
            )
    if options.json:
        options.json.write_text(json.dumps({"resident_mb": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
