"""Memory after a prompt and a generation: what is taken beyond the model file's size, beside llama.cpp."""

from __future__ import annotations

from pathlib import Path

from benchmarks.comparison import octavo_and_peer
from benchmarks.report import Report, main
from benchmarks.workload import GENERATORS, Options, model_paths

PROMPT = 512
TOKENS = 64
# What of the kernel's account is reported, and as what.
FIELDS = {"VmHWM": "peak resident", "Pss": "proportional", "Anonymous": "anonymous (not the file's pages)"}


def run(options: Options) -> Report:
    report = Report("memory", "Little more memory than the file is large", "MiB", more_is_better=False)
    for name, path in model_paths(options, GENERATORS).items():
        with octavo_and_peer(path, options) as workers:
            accounts = {}
            for engine, worker in workers.items():
                worker.call("prompt", tokens=PROMPT)
                worker.call("generate", tokens=TOKENS)
                accounts[engine] = memory_of(worker.process_id)
            touched = workers["octavo"].call("cache_bytes", tokens=PROMPT + TOKENS)
            whole = workers["octavo"].call("cache_bytes", tokens=path.stat().st_size)  # more than any pool
        # The peer clears its cache, of as many tokens, when it makes it; octavo's comes as it is needed.
        caches = {engine: (touched if engine == "octavo" else whole) / 2**20 for engine in accounts}
        file_size = path.stat().st_size / 2**20
        for field, label in FIELDS.items():
            samples = {engine: [account[field]] for engine, account in accounts.items()}
            report.add(name, label, samples)
        beyond = {
            engine: [account["VmHWM"] - file_size - caches[engine]] for engine, account in accounts.items()
        }
        report.add(name, f"peak beyond the file ({file_size:,.0f}) and KV cache", beyond)
        shares = ", ".join(f"{engine} {values[0] / file_size:.0%}" for engine, values in beyond.items())
        report.notes.append(f"{name}, peak beyond file and KV cache as a share of the file: {shares}.")
    report.notes.append(
        "One process each, Python itself included, and a float16 KV cache of 4,096 tokens (or of the model's "
        "own context, if shorter), of which octavo has touched what 576 tokens need; one sample, since it "
        "hardly varies."
    )
    return report


def memory_of(process_id: int) -> dict[str, float]:
    """The kernel's account of a process, in MiB.  Raises RuntimeError where the system gives none."""
    account: dict[str, float] = {}
    for name in ("status", "smaps_rollup"):
        try:
            lines = Path(f"/proc/{process_id}/{name}").read_text().splitlines()
        except OSError as error:
            raise RuntimeError("memory: this benchmark needs Linux's /proc/<pid>/smaps_rollup") from error
        for line in lines:
            field, _, value = line.partition(":")
            if value.endswith(" kB"):
                account.setdefault(field, float(value.removesuffix("kB")) / 1024)
    return account


if __name__ == "__main__":
    main(run)
