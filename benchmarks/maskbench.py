"""MaskBench's development half: which documents each engine accepts, and how long compiling and masks take.

python -m benchmarks.maskbench [--every N] [--ordered] [--engines octavo,xgrammar,llguidance] [--masks
MODEL.gguf] [--json FILE]

Correctness is judged byte by byte (a vocabulary of the 256 bytes), and an accepted document must also be
complete. With --masks the same documents are written token by token in the model's vocabulary: a mask and a
step per token, all engines on the same schemas in one run, one thread each. octavo runs with properties in
any order, as the standard has it, unless --ordered.
"""

from __future__ import annotations

import argparse
import gc
import gzip
import json
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

SHARED = Path(os.environ.get("OCTAVO_SHARED", Path(__file__).parents[1].parent / "shared"))
DATA = SHARED / "data/json-schema/maskbench-dev.jsonl.gz"
SECONDS = 30


class Vocabulary:
    """Tokens as bytes, one end token, and a greedy longest-match tokenization that all engines share."""

    def __init__(self, tokens: list[bytes], end: int) -> None:
        self.tokens, self.end = tokens, end
        self._ids = {
            token: number for number, token in reversed(list(enumerate(tokens))) if token and number != end
        }
        self._longest = max(map(len, tokens))

    @classmethod
    def of_bytes(cls) -> Vocabulary:
        return cls([*(bytes((value,)) for value in range(256)), b"</s>"], 256)

    def encode(self, data: bytes) -> list[int]:
        result, at = [], 0
        while at < len(data):
            size = next(
                n for n in range(min(self._longest, len(data) - at), 0, -1) if data[at : at + n] in self._ids
            )
            result.append(self._ids[data[at : at + size]])
            at += size
        return result


class Octavo:
    def __init__(self, vocabulary: Vocabulary, any_order: bool) -> None:
        from octavo.grammar import Grammar, GrammarCompiler, GrammarMatcher, TokenizerInfo

        self.grammar, self.matcher, self.any_order = Grammar, GrammarMatcher, any_order
        self.compiler = GrammarCompiler(TokenizerInfo(vocabulary.tokens, stop_token_ids=[vocabulary.end]))
        self.row = np.zeros((1, self.compiler.info.mask_words), np.int32)

    def compile(self, schema: Any) -> Any:
        return self.compiler.compile(self.grammar.from_json_schema(schema, any_order=self.any_order))

    def begin(self, compiled: Any) -> Any:
        return self.matcher(compiled)

    def step(self, matcher: Any, token: int) -> bool:
        return bool(matcher.accept_token(token))

    def mask(self, matcher: Any) -> None:
        matcher.fill_next_token_bitmask(self.row)

    def complete(self, matcher: Any) -> bool:
        return bool(matcher.is_completed())


class XGrammar:
    def __init__(self, vocabulary: Vocabulary, any_order: bool) -> None:
        import xgrammar

        self.xgrammar, self.end = xgrammar, vocabulary.end
        info = xgrammar.TokenizerInfo(
            vocabulary.tokens, xgrammar.VocabType.RAW, stop_token_ids=[vocabulary.end], add_prefix_space=False
        )
        self.compiler = xgrammar.GrammarCompiler(info, max_threads=1, cache_enabled=False)
        self.row = xgrammar.allocate_token_bitmask(1, len(vocabulary.tokens))

    def compile(self, schema: Any) -> Any:
        return self.compiler.compile_json_schema(json.dumps(schema), strict_mode=False)

    def begin(self, compiled: Any) -> Any:
        return self.xgrammar.GrammarMatcher(compiled)

    def step(self, matcher: Any, token: int) -> bool:
        return bool(matcher.accept_token(token))

    def mask(self, matcher: Any) -> None:
        matcher.fill_next_token_bitmask(self.row)

    def complete(self, matcher: Any) -> bool:
        return bool(matcher.accept_token(self.end))


class LlGuidance:
    def __init__(self, vocabulary: Vocabulary, any_order: bool) -> None:
        import llguidance
        import llguidance.numpy

        self.peer, self.numpy, self.end = llguidance, llguidance.numpy, vocabulary.end
        self.tokenizer = llguidance.LLTokenizer(llguidance.TokenizerWrapper(_Tokens(vocabulary)))
        self.row = llguidance.numpy.allocate_token_bitmask(1, len(vocabulary.tokens))

    def compile(self, schema: Any) -> Any:
        grammar = self.peer.LLMatcher.grammar_from_json_schema(json.dumps(schema))
        matcher = self.peer.LLMatcher(self.tokenizer, grammar, log_level=0)
        if matcher.is_error():
            raise ValueError(matcher.get_error()[:200])
        return matcher

    def begin(self, compiled: Any) -> Any:
        return compiled.deep_copy()

    def step(self, matcher: Any, token: int) -> bool:
        return bool(matcher.try_consume_tokens([token]) == 1)

    def mask(self, matcher: Any) -> None:
        self.numpy.fill_next_token_bitmask(matcher, self.row, 0)

    def complete(self, matcher: Any) -> bool:
        return bool(matcher.is_accepting())


class _Tokens:
    """A tokenizer in the shape that llguidance asks for."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self.tokens, self.eos_token_id, self.bos_token_id = vocabulary.tokens, vocabulary.end, None
        self.special_token_ids = [vocabulary.end]

    def __call__(self, text: str | bytes) -> list[int]:
        return self.vocabulary.encode(text.encode() if isinstance(text, str) else text)


ENGINES = {"octavo": Octavo, "xgrammar": XGrammar, "llguidance": LlGuidance}


def schemas(every: int) -> Iterator[dict[str, Any]]:
    with gzip.open(DATA, "rt", encoding="utf-8") as lines:
        for number, line in enumerate(lines):
            if number % every == 0:
                yield json.loads(line)


def _too_long(*_: Any) -> None:
    raise TimeoutError(f"over {SECONDS} seconds")


def judge(
    engine: Any, vocabulary: Vocabulary, case: dict[str, Any], masks: list[float] | None
) -> tuple[str, float]:
    """The outcome for one schema, and the seconds that compiling it took."""
    start = time.perf_counter()
    try:
        compiled = engine.compile(case["schema"])
        engine.begin(compiled)
    except (TimeoutError, ValueError, RuntimeError) as error:
        return (
            "timeout" if isinstance(error, TimeoutError) else "compile error"
        ), time.perf_counter() - start
    seconds = time.perf_counter() - start
    outcome = "passing"
    for test in case["tests"]:
        accepted, matcher = True, engine.begin(compiled)
        for token in vocabulary.encode(json.dumps(test["data"], ensure_ascii=False).encode()):
            began = time.perf_counter()
            if masks is not None:
                engine.mask(matcher)
            accepted = engine.step(matcher, token)
            if masks is not None:
                masks.append(time.perf_counter() - began)
            if not accepted:
                break
        accepted = accepted and engine.complete(matcher)
        if accepted and not test["valid"]:
            return "invalid accepted", seconds
        if test["valid"] and not accepted:
            outcome = "valid rejected"
    return outcome, seconds


def run(name: str, vocabulary: Vocabulary, options: argparse.Namespace, with_masks: bool) -> dict[str, Any]:
    engine = ENGINES[name](vocabulary, not options.ordered)
    outcomes: dict[str, str] = {}
    compiling: list[float] = []
    masks: list[float] | None = [] if with_masks else None
    gc.collect()  # the modules imported so far are no engine's cost
    for case in schemas(options.every):
        signal.setitimer(signal.ITIMER_PROF, SECONDS)  # of work, not of waiting
        try:
            outcome, seconds = judge(engine, vocabulary, case, masks)
        except TimeoutError:
            outcome, seconds = "timeout", float(SECONDS)
        except Exception as error:  # whatever else an engine throws is a crash, and is counted
            print(f"{name}: {case['name']}: {type(error).__name__}: {str(error)[:100]}")
            outcome, seconds = "crash", 0.0
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
        outcomes[case["name"]] = outcome
        compiling.append(seconds)
    counts = dict(Counter(outcomes.values()))
    result = {"schemas": len(outcomes), "outcomes": counts, "compile_us": percentiles(compiling)}
    if masks:
        result["mask_us"] = percentiles(masks)
    print(f"{name:11} {result}", flush=True)
    return {**result, "failing": {key: value for key, value in outcomes.items() if value != "passing"}}


def percentiles(seconds: list[float]) -> dict[str, float]:
    values = np.array(seconds) * 1e6
    shares = {f"p{share:g}": float(np.percentile(values, share)) for share in (50, 95, 99, 99.9)}
    numbers = {"mean": float(values.mean()), **shares, "max": float(values.max())}
    return {key: round(value, 2) for key, value in numbers.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--every", type=int, default=1, help="take every Nth schema")
    parser.add_argument(
        "--ordered", action="store_true", help="octavo: properties in the schema's order only"
    )
    parser.add_argument("--engines", default="octavo,xgrammar,llguidance")
    parser.add_argument("--masks", help="a GGUF file, whose vocabulary the masks are timed on")
    parser.add_argument("--json", type=Path, help="write what was found to this file")
    options = parser.parse_args()
    signal.signal(signal.SIGPROF, _too_long)
    vocabulary = model_vocabulary(options.masks) if options.masks else Vocabulary.of_bytes()
    found = {
        name: run(name, vocabulary, options, with_masks=bool(options.masks))
        for name in options.engines.split(",")
    }
    if options.json:
        about = {"vocabulary": len(vocabulary.tokens), "every": options.every, "ordered": options.ordered}
        text = json.dumps({"date": time.strftime("%Y-%m-%d"), **about, "engines": found}, indent=1)
        options.json.write_text(text + "\n")


def model_vocabulary(path: str) -> Vocabulary:
    """The tokens of a GGUF file as bytes: a byte-level tokenizer's, or SentencePiece's with its <0x..>."""
    from gguf import GGUFReader

    fields = GGUFReader(path).fields
    texts = fields["tokenizer.ggml.tokens"].contents()
    kinds = fields["tokenizer.ggml.token_type"].contents()
    end = int(fields["tokenizer.ggml.eos_token_id"].contents())
    pieces = fields["tokenizer.ggml.model"].contents() == "llama"
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [value for value in range(256) if value not in visible]
    table = {chr(value): value for value in visible} | {chr(256 + n): value for n, value in enumerate(hidden)}
    tokens = []
    for text, kind in zip(texts, kinds, strict=True):
        if pieces:
            ordinary = text.replace("\u2581", " ").encode() if kind in (1, 4) else b""
            tokens.append(bytes((int(text[3:5], 16),)) if kind == 6 else ordinary)
        else:
            known = kind == 1 and all(character in table for character in text)
            tokens.append(bytes(table[character] for character in text) if known else b"")
    return Vocabulary(tokens, end)


if __name__ == "__main__":
    main()
