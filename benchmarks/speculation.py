"""Speculative decoding: tokens a second with drafts and without, beside llama.cpp's own speculation.

Works: HumanEval prompts as they stand and in chat, edits of code that is in the prompt, a summary that
quotes, records written anew as JSON; free chat and random tokens, where nothing can be gained and nothing may
be lost; four sequences at once.  One process holds octavo and the wheel of llama.cpp, which take turns.

OCTAVO_LLAMA_SPECULATION names the folder of a native build of llama.cpp: its llama-completion (no drafts),
llama-speculative-simple (a draft model) and llama-lookup (n-grams) take the place of the wheel, greedy only.
OCTAVO_SPECULATION_WORKS: names of works to measure, with semicolons; all by default.
"""

from __future__ import annotations

import functools
import gzip
import json
import os
import random
import re
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import octavo
from benchmarks.comparison import take_turns
from benchmarks.peers import MissingPeerError, import_peer
from benchmarks.report import Report, main
from benchmarks.workload import GENERATORS, MissingModelError, Options, model_paths
from octavo.decoding.sampling import SamplingOptions
from octavo.decoding.speculation.suffix import SuffixSource

TARGET, DRAFT, SMALL = "qwen2.5-coder-1.5b", "qwen2.5-coder-0.5b", "smollm2-135m"
GREEDY = SamplingOptions(temperature=0)
SAMPLED = SamplingOptions(temperature=0.8, seed=7)
SHARED = Path(os.environ.get("OCTAVO_SHARED", Path(__file__).resolve().parents[2] / "shared")) / "data"
Prompts = list[list[int]]


def problems() -> list[dict[str, Any]]:
    path = SHARED / "reasoning" / "HumanEval.jsonl.gz"
    if not path.exists():
        raise MissingModelError(f"{path} is not there: set OCTAVO_SHARED to the folder of shared data")
    return [json.loads(line) for line in gzip.open(path, "rt", encoding="utf-8")]


def chat(model: octavo.Model, text: str) -> list[int]:
    return model.encode_chat([{"role": "user", "content": text}])


def human_eval(model: octavo.Model) -> Prompts:
    return [model.tokenizer.encode(problem["prompt"]) for problem in problems()[20:36]]


def human_eval_chat(model: octavo.Model) -> Prompts:
    wish = "Complete this function.\n```python\n{}```"
    return [chat(model, wish.format(problem["prompt"])) for problem in problems()[36:52]]


def edits(model: octavo.Model) -> Prompts:
    wish = "Rename {} to {}_checked everywhere. Answer with the whole code only.\n```python\n{}{}```"
    return [
        chat(model, wish.format(p["entry_point"], p["entry_point"], p["prompt"], p["canonical_solution"]))
        for p in problems()[:16]
    ]


def summaries(model: octavo.Model) -> Prompts:
    lines = [line.strip() for line in (SHARED / "text" / "wikitext2-valid.txt").open(encoding="utf-8")]
    texts = [line for line in lines if 900 < len(line) < 1300][:16]
    wish = "Quote the three most important sentences of this text, word for word:\n\n{}"
    return [chat(model, wish.format(text)) for text in texts]


def records(model: octavo.Model) -> Prompts:
    generator, prompts = random.Random(0), []
    names = (SHARED / "text" / "names.txt").read_text().split()
    for _ in range(8):
        rows = [
            f"{name},{generator.randrange(18, 90)},{generator.choice(['Oslo', 'Lima', 'Turin', 'Quito'])}"
            for name in generator.sample(names, 10)
        ]
        table = "\n".join(["name,age,city", *rows])
        prompts.append(chat(model, f"Write this CSV as a JSON array of objects, nothing else.\n\n{table}"))
    return prompts


def free_chat(model: octavo.Model) -> Prompts:
    wishes = (
        "Tell me about the sea.",
        "Why do people dream?",
        "Write a poem about rain.",
        "Invent a recipe.",
    )
    return [chat(model, wish) for wish in wishes]


def short_answers(model: octavo.Model) -> Prompts:
    wishes = (
        "What is the capital of France?",
        "Say hello.",
        "Name a colour.",
        "Who wrote Hamlet?",
        "Is a whale a fish?",
        "Name three fruits.",
    )
    return [chat(model, wish) for wish in wishes]


def random_tokens(model: octavo.Model) -> Prompts:
    generator = random.Random(1)
    return [[generator.randrange(1000, 40000) for _ in range(64)] for _ in range(8)]


def topics(model: octavo.Model) -> Prompts:
    """Stretches of unrelated text, so that what repeats is never what comes."""
    lines = [line.split() for line in (SHARED / "text" / "wikitext2-valid.txt").open(encoding="utf-8")]
    words = [word for line in lines[200:1500] for word in line]
    generator = random.Random(2)
    starts = [[generator.randrange(len(words) - 12) for _ in range(12)] for _ in range(8)]
    return [
        model.tokenizer.encode(" ".join(" ".join(words[at : at + 12]) for at in places)) for places in starts
    ]


Work = tuple[str, Callable[[octavo.Model], Prompts], SamplingOptions, int, int]  # and tokens, sequences
WORKS: dict[str, tuple[Work, ...]] = {
    TARGET: (
        ("HumanEval", human_eval, GREEDY, 96, 1),
        ("HumanEval in chat", human_eval_chat, GREEDY, 96, 1),
        ("HumanEval, temperature 0.8", human_eval, SAMPLED, 96, 1),
        ("code edit", edits, GREEDY, 96, 1),
        ("quoting summary", summaries, GREEDY, 96, 1),
        ("CSV to JSON", records, GREEDY, 128, 1),
        ("HumanEval, 4 sequences", human_eval, GREEDY, 64, 4),
    ),
    SMALL: (
        ("free chat", free_chat, SAMPLED, 192, 1),
        ("short answers", short_answers, GREEDY, 48, 1),
        ("random tokens", random_tokens, SAMPLED, 192, 1),
        ("changing topics", topics, SAMPLED, 192, 1),
        ("free chat, 4 sequences", free_chat, SAMPLED, 128, 4),
        ("random tokens, 4 sequences", random_tokens, SAMPLED, 128, 4),
        ("changing topics, 4 sequences", topics, SAMPLED, 128, 4),
        ("short answers, 4 sequences", short_answers, GREEDY, 48, 4),
        ("code edit", edits, GREEDY, 128, 1),
        ("code edit, 4 sequences", edits, GREEDY, 128, 4),
    ),
}


# Tokens of a sample at least: a short one would be as long as a hiccup of the machine.
SAMPLE_TOKENS = {TARGET: 192, SMALL: 1024}


class Octavo:
    """One loaded model, with its drafts or without."""

    def __init__(self, path: Path, draft: Path | None, threads: int) -> None:
        self.model = octavo.load(
            path, threads=threads, max_sequences=4, context=2048, draft=draft or "suffix"
        )
        self.speculation = self.model.engine.speculation
        if self.speculation is not None:
            # The contestants answer the same prompts: nobody may look at another's answer.
            self.speculation.sources = [SuffixSource(self.speculation.estimates, earlier=False)]
        self.small = self.speculation.model if self.speculation else None
        self.accepted: dict[str, list[int]] = {}

    def speed(self, drafts: str, prompts: Prompts, options: SamplingOptions, tokens: int) -> float:
        """Tokens a second of all sequences together, from when the last of them has its first token."""
        engine = self.model.engine
        if self.speculation is not None:
            self.speculation.model = self.small if drafts == "model" else None
            if self.small is not None:
                self.small.restart()  # what ended while it was left out was not forgotten
        engine.speculation = None if drafts == "off" else self.speculation
        ends = self.model.tokenizer.end_ids
        generations = [engine.submit(p, options, max_tokens=tokens, end_ids=ends) for p in prompts]
        for generation in generations:
            next(iter(generation), None)
        started = time.perf_counter()
        before = sum(len(g.tokens) for g in generations)
        for generation in generations:
            list(generation)
        seconds = time.perf_counter() - started
        counts = self.accepted.setdefault(drafts, [0, 0])
        counts[0] += sum(g.timings.accepted for g in generations)
        counts[1] += sum(g.timings.drafted for g in generations)
        return (sum(len(g.tokens) for g in generations) - before) / seconds


class LlamaCpp:
    """The wheel's server, with a kind of speculation or without."""

    def __init__(self, path: Path, draft: Path | None, kind: str, threads: int) -> None:
        peer = import_peer("xllamacpp")
        parameters = peer.CommonParams()
        parameters.model.path = str(path)
        parameters.n_ctx, parameters.n_parallel = 2048, 1
        parameters.flash_attn_type = peer.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_ENABLED
        parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = threads
        parameters.n_gpu_layers, parameters.fit_params, parameters.cache_ram_mib = 0, False, 0
        parameters.n_ctx_checkpoints, parameters.verbosity = 0, 0
        types = peer.common_speculative_type
        if kind == "model":
            parameters.speculative.types = [types.COMMON_SPECULATIVE_TYPE_DRAFT_SIMPLE]
            parameters.speculative.draft.mparams.path = str(draft)
            parameters.speculative.draft.n_gpu_layers = 0
            parameters.speculative.draft.cpuparams.n_threads = threads
        elif kind == "n-gram":
            parameters.speculative.types = [types.COMMON_SPECULATIVE_TYPE_NGRAM_SIMPLE]
        self._server = peer.Server(parameters)

    def speed(self, prompts: Prompts, options: SamplingOptions, tokens: int) -> float:
        request: dict[str, Any] = {
            "prompt": prompts[0],
            "n_predict": tokens,
            "cache_prompt": False,
            "temperature": options.temperature,
            "seed": 7,
        }
        answer = self._server.handle_completions(request)
        return float(answer["timings"]["predicted_per_second"])


class LlamaPrograms:
    """Programs of a native build; each figure is a run of its own, by the program's own clock."""

    PROGRAMS = {"off": "llama-completion", "model": "llama-speculative-simple", "n-gram": "llama-lookup"}
    _SPEED = re.compile(r"(?:decoded .* speed: +([\d.]+) t/s|[^t] eval time .*?([\d.]+) tokens per second)")

    def __init__(self, model: octavo.Model, path: Path, draft: Path | None, kind: str, threads: int) -> None:
        folder = Path(os.environ["OCTAVO_LLAMA_SPECULATION"]).expanduser()
        self._program = (folder / self.PROGRAMS[kind]).resolve()
        if not self._program.is_file():
            raise MissingPeerError(f"OCTAVO_LLAMA_SPECULATION: {self._program} is not there")
        self._tokenizer = model.tokenizer
        self._options = ["-m", str(path), "-t", str(threads), "-c", "2048", "-fa", "on", "--temp", "0"]
        if kind == "off":
            self._options += ["-no-cnv"]
        if kind == "model":
            self._options += ["-md", str(draft), "--spec-type", "draft-simple", "-td", str(threads)]

    def speed(self, prompts: Prompts, options: SamplingOptions, tokens: int) -> float:
        with tempfile.TemporaryDirectory() as folder:
            text = Path(folder) / "prompt"
            text.write_text(self._tokenizer.decode(prompts[0], skip_special=False), encoding="utf-8")
            command = [str(self._program), *self._options, "-f", str(text), "-n", str(tokens)]
            done = subprocess.run(command, capture_output=True, text=True, timeout=600, cwd=folder)
        found = self._SPEED.findall(done.stdout + done.stderr)
        if done.returncode or not found:
            raise RuntimeError(f"{self._program.name} said no speed: {done.stderr[-500:]}")
        return float("".join(found[-1]))


def peers_of(
    ours: Octavo, path: Path, draft: Path | None, threads: int
) -> dict[str, LlamaCpp | LlamaPrograms]:
    """llama.cpp with each kind of drafts and without."""
    kinds = ("off", "model", "n-gram") if draft else ("off",)
    if os.environ.get("OCTAVO_LLAMA_SPECULATION"):
        return {f"llama.cpp, {kind}": LlamaPrograms(ours.model, path, draft, kind, threads) for kind in kinds}
    return {f"llama.cpp, {kind}": LlamaCpp(path, draft, kind, threads) for kind in kinds}


def contestants(
    ours: Octavo, peers: Mapping[str, LlamaCpp | LlamaPrograms], prompts: Prompts, work: Work, least: int
) -> dict[str, Callable[[], float]]:
    """Each with the same prompts in the same order; a sample is at least so many tokens."""
    _, _, options, tokens, sequences = work

    def of(speed: Callable[[Prompts], float]) -> Callable[[], float]:
        place = [0]

        def measure() -> float:
            speeds: list[float] = []
            while len(speeds) * sequences * tokens < least:
                speeds.append(speed([prompts[(place[0] + n) % len(prompts)] for n in range(sequences)]))
                place[0] += sequences
            return statistics.harmonic_mean(speeds)

        return measure

    kinds = ("off", "suffix", "model") if ours.small is not None else ("off", "suffix")
    measures = {
        "octavo" if kind == kinds[-1] else f"octavo, {kind}": of(
            functools.partial(ours.speed, kind, options=options, tokens=tokens)
        )
        for kind in kinds
    }
    if sequences == 1:
        for name, peer in peers.items():
            if isinstance(peer, LlamaPrograms) and options is not GREEDY:
                continue
            measures[name] = of(functools.partial(peer.speed, options=options, tokens=tokens))
    return measures


def compared(taken: Sequence[float], plain: Sequence[float]) -> str:
    """Speeds beside those without drafts of the same rounds: a slow minute is in both of a pair."""
    total = sum(1 / x for x in plain) / sum(1 / x for x in taken)
    pairs = [one / other for one, other in zip(taken, plain, strict=True)]
    middle, low, high = statistics.median(pairs), min(pairs), max(pairs)
    quartiles = statistics.quantiles(pairs, n=4) if len(pairs) > 1 else [low, middle, high]
    return (
        f"{total:.2f} x without drafts; of {len(pairs)} pairs {middle:.3f} (median), "
        f"{quartiles[0]:.3f} to {quartiles[2]:.3f} (quartiles), {low:.2f} to {high:.2f} (all)"
    )


def run(options: Options) -> Report:
    wanted = [name for name in os.environ.get("OCTAVO_SPECULATION_WORKS", "").split(";") if name]
    report = Report("speculation", "Speculation pays, and never costs", "tokens a second")
    paths = model_paths(options, {name: GENERATORS[name] for name in WORKS})
    small = model_paths(Options(models=(DRAFT,)), GENERATORS)[DRAFT]
    for name, path in paths.items():
        draft = small if name == TARGET else None
        ours = Octavo(path, draft, options.threads)
        peers: Mapping[str, LlamaCpp | LlamaPrograms] = {}
        try:
            peers = peers_of(ours, path, draft, options.threads)
        except MissingPeerError as error:
            report.notes.append(str(error))
        for work in WORKS[name]:
            if wanted and work[0] not in wanted:
                continue
            ours.accepted.clear()
            samples = take_turns(
                contestants(ours, peers, work[1](ours.model), work, SAMPLE_TOKENS[name]),
                options.rounds,
                f"{name}, {work[0]}",
            )
            report.add(name, work[0], samples)
            plain = samples["octavo, off"]
            for engine, taken in samples.items():
                if engine.startswith("octavo") and taken is not plain:
                    report.notes.append(f"{name}, {work[0]}: {engine} {compared(taken, plain)}")
            report.notes.append(f"{name}, {work[0]}: accepted, drafted by source {ours.accepted}")
        ours.model.close()
    return report


if __name__ == "__main__":
    main(run)
