"""The others, each at its best: llama.cpp by its PyPI wheel and its own llama-bench, sentence-transformers.

xllamacpp wraps llama.cpp's server, whose timings hold the native steps and the sampling, and no HTTP.
OCTAVO_LLAMA_BENCH names llama-bench binaries of a native build (or of a fork) to measure too: a path, or
several as name=path,name=path.  llama-batched-bench is expected beside each.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.workload import Prompts

INSTALL = 'install the peers with: pip install "octavo[bench]"'


class MissingPeerError(RuntimeError):
    """A peer that a benchmark compares with is not installed."""


def import_peer(module: str) -> Any:
    """The peer's module.  Raises MissingPeerError that says how to install it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingPeerError(f"{module} is not installed: {INSTALL}") from error


class Xllamacpp:
    """llama.cpp by its PyPI wheel, in this process.  Speeds are tokens a second, of all sequences."""

    def __init__(self, path: Path, *, threads: int, sequences: int = 1, warm_up: bool = True) -> None:
        peer = import_peer("xllamacpp")
        parameters = peer.CommonParams()
        parameters.model.path = str(path)
        parameters.n_ctx = 4096 if sequences == 1 else 512 * sequences
        parameters.n_parallel = sequences
        parameters.n_batch, parameters.n_ubatch = 2048, 512
        parameters.flash_attn_type = peer.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_ENABLED
        parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = threads
        parameters.n_gpu_layers = 0
        parameters.fit_params = False  # it tries several sizes of context first, which costs start-up time
        parameters.cache_ram_mib = 0  # no copies of old prompts
        parameters.n_ctx_checkpoints = 0
        parameters.warmup = warm_up
        parameters.verbosity = 0
        self._server = peer.Server(parameters)
        self._prompts = Prompts()

    def prompt(self, tokens: int) -> float:
        """From taking up the prompt to its first token, by the server's own clock."""
        timings = self._complete(self._prompts.next(tokens), 1, cache_prompt=False)["timings"]
        return float(timings["prompt_per_second"])

    def generate(self, tokens: int, batch: int = 1, depth: int = 0) -> float:
        """Greedy generation after `depth` tokens: the sum of the slots' own speeds, in the peer's favour.

        The prompts are in the slots' caches before, so that all the sequences generate side by side.
        """
        prompts = [self._prompts.next(max(depth, 1)) for _ in range(batch)]
        self._complete_all(prompts, 1)
        answers = self._complete_all(prompts, tokens)
        return sum(float(answer["timings"]["predicted_per_second"]) for answer in answers)

    def first_token(self, text: str) -> str:
        """The first token after a text."""
        answer = self._server.handle_completions({"prompt": text, "n_predict": 1, "temperature": 0})
        return str(answer["choices"][0]["text"])

    def _complete(self, prompt: list[int], tokens: int, **more: object) -> dict[str, Any]:
        request = {"prompt": prompt, "n_predict": tokens, "ignore_eos": True, **more}
        request |= {"temperature": 0, "samplers": []}  # greedy, at the least cost
        answer: dict[str, Any] = self._server.handle_completions(request)
        if "timings" not in answer:
            raise RuntimeError(f"xllamacpp answered without timings: {json.dumps(answer)[:500]}")
        return answer

    def _complete_all(self, prompts: list[list[int]], tokens: int) -> list[dict[str, Any]]:
        answers: dict[int, dict[str, Any]] = {}

        def complete(slot: int) -> None:
            answers[slot] = self._complete(prompts[slot], tokens, id_slot=slot, cache_prompt=True)

        workers = [threading.Thread(target=complete, args=(slot,)) for slot in range(len(prompts))]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        if len(answers) < len(prompts):
            raise RuntimeError("xllamacpp: a completion failed; see its message above")
        return [answers[slot] for slot in sorted(answers)]


class SentenceTransformers:
    """An encoder in PyTorch, as its users have it."""

    def __init__(self, path: Path, *, threads: int, dtype: str = "float32") -> None:
        torch = import_peer("torch")
        torch.set_num_threads(threads)
        package = import_peer("sentence_transformers")
        self._model = package.SentenceTransformer(
            str(path), device="cpu", model_kwargs={"dtype": getattr(torch, dtype)}
        )

    def embed_seconds(self, texts: list[str]) -> float:
        """Time to embed all the texts, tokenizing included; it sorts them by length and batches by 32."""
        began = time.perf_counter()
        self._model.encode(texts, batch_size=32, show_progress_bar=False)
        return time.perf_counter() - began


@dataclass(frozen=True, slots=True)
class LlamaBench:
    """llama-bench and llama-batched-bench of one build; each figure is a run of its own, without sampling."""

    name: str
    binary: Path
    model: Path
    threads: int

    def prompt(self, tokens: int) -> float:
        return self._bench("-p", str(tokens), "-n", "0")

    def generate(self, tokens: int, batch: int = 1, depth: int = 0) -> float:
        if batch == 1 and depth == 0:
            return self._bench("-p", "0", "-n", str(tokens))
        binary = self.binary.with_name(self.binary.name.replace("llama-bench", "llama-batched-bench"))
        wanted = [max(depth, 1), tokens, batch]
        context = str(max(512, batch * (wanted[0] + tokens)))
        output = self._run(
            [str(binary), "-m", str(self.model), "-t", str(self.threads), "-tb", str(self.threads)]
            + ["-c", context, "-b", "2048", "-ub", "512", "-fa", "on", *(["-rtr"] if self._is_fork() else [])]
            + ["-npp", str(wanted[0]), "-ntg", str(tokens), "-npl", str(batch)]
        )
        for line in output.splitlines():
            cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
            if len(cells) == 10 and cells[:3] == [str(number) for number in wanted]:
                return float(cells[7])  # S_TG t/s
        raise RuntimeError(f"{binary.name} of {self.name} printed no row for {wanted}: {output[-500:]}")

    def version(self) -> str:
        """The build that the binary says it is."""
        row = self._rows("-p", "0", "-n", "1")[0]
        return f"build {row.get('build_number', '?')} ({row.get('build_commit', '?')})"

    def _bench(self, *work: str) -> float:
        return float(self._rows(*work)[0]["avg_ts"])

    def _rows(self, *work: str) -> list[dict[str, Any]]:
        # The fork repacks weights for its fastest kernels on request; llama.cpp does so unasked.
        extra = ["-rtr", "1"] if self._is_fork() else []
        command = [str(self.binary), "-m", str(self.model), "-t", str(self.threads), "-fa", "1", "-r", "1"]
        output = self._run([*command, *extra, *work, "-o", "json"])
        rows: list[dict[str, Any]] = json.loads(output[output.index("[") :])
        return rows

    def _is_fork(self) -> bool:
        """Whether it has ik_llama.cpp's options."""
        return "--run-time-repack" in self._run([str(self.binary), "--help"])

    def _run(self, command: list[str]) -> str:
        done = subprocess.run(command, capture_output=True, text=True, timeout=1_800)
        if done.returncode:
            raise RuntimeError(f"{Path(command[0]).name} of {self.name} failed: {done.stderr[-500:]}")
        return done.stdout + (done.stderr if "|" in done.stderr else "")


def llama_benches(model: Path, threads: int) -> list[LlamaBench]:
    """Those that OCTAVO_LLAMA_BENCH names.  Raises MissingPeerError where a path leads nowhere."""
    found = []
    for entry in filter(None, os.environ.get("OCTAVO_LLAMA_BENCH", "").split(",")):
        name, separator, path = entry.rpartition("=")
        binary = Path(path).expanduser()
        if not binary.is_file():
            raise MissingPeerError(
                f"OCTAVO_LLAMA_BENCH: {path} is no file: give a path or name=path,name=path"
            )
        found.append(LlamaBench(name if separator else "llama.cpp (native)", binary, model, threads))
    return found
