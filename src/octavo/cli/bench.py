"""octavo bench: how fast this machine runs a model, beside how fast it could."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import click

from octavo import roofline
from octavo.cli.options import load_model
from octavo.cli.rendering import ProgressBar, notice, reports_errors

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from octavo.api import Model
    from octavo.decoding.kv_cache import KVChoice, KVType

BATCHES = (1, 4, 8)
DEEP = 2048  # tokens that are already there in the deep rows


@dataclass(frozen=True, slots=True)
class Row:
    """One measurement.  prompt, generate: tokens of each sequence in it, one of them 0.

    depth: tokens in the KV cache before.  tokens_per_second: of all sequences together.
    share_of_limit: of what memory bandwidth and arithmetic allow, 0 to 1 (see `octavo.roofline`).
    """

    prompt: int
    generate: int
    batch: int
    depth: int
    tokens_per_second: float
    share_of_limit: float


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured."""

    prompt: int
    generate: int
    depths: tuple[int, ...]
    repetitions: int  # of a prompt
    bandwidth_seconds: float


FULL = Sizes(prompt=512, generate=64, depths=(0, DEEP), repetitions=3, bandwidth_seconds=1.0)
QUICK = Sizes(prompt=128, generate=16, depths=(0,), repetitions=1, bandwidth_seconds=0.3)


@click.command("bench", context_settings={"max_content_width": 110})
@click.argument("model")
@click.option("--quick", is_flag=True, help="Shorter prompt and generation, at depth 0 only.")
@click.option("--threads", type=click.IntRange(min=1), help="Default: what this process may really use.")
@click.option("--kv-type", type=click.Choice(["auto", "f16", "int8"]), default="auto", show_default=True)
@click.option("--offline", is_flag=True, help="Never use the network.")
@click.option(
    "--json", "as_json", is_flag=True, help="One object: model, threads, isa, bandwidth_gb_s, rows."
)
@click.option("-q", "--quiet", is_flag=True, help="No progress bar.")
@reports_errors
def command(
    model: str, quick: bool, threads: int | None, kv_type: KVChoice, offline: bool, as_json: bool, quiet: bool
) -> None:
    """Speed of MODEL on prompts and in generation, for 1, 4 and 8 sequences, at depth 0 and 2048.

    It drives the native step itself: tokenizing and sampling are not in the figures (`octavo run` prints a
    speed that has them).  Each figure is the median of its steps.  The limit of a row is the slower of
    reading weights and KV cache at the memory bandwidth measured here and now, and, where it is known, of
    the multiplications at the measured speed of 8-bit dot products.
    """
    from octavo.decoding.kv_cache import resolve_kv_type

    sizes = QUICK if quick else FULL
    longest = max(sizes.depths) + max(sizes.prompt, sizes.generate + 2)
    with load_model(
        model,
        quiet=quiet,
        threads=threads,
        kv_type=kv_type,
        offline=offline,
        cache_tokens=max(BATCHES) * (longest + 32),
        max_sequences=max(BATCHES),
        draft="off",
    ) as loaded:
        machine = roofline.measure(loaded.threads, seconds=sizes.bandwidth_seconds)
        with ProgressBar("measuring", quiet=quiet) as progress:
            rows = list(measure(loaded, sizes, machine, progress, resolve_kv_type(kv_type, loaded.config)))
        report = {
            "model": model,
            "threads": loaded.threads,
            "isa": roofline.instruction_set(),
            "bandwidth_gb_s": round(machine.bandwidth_gb_s, 2),
            "rows": [asdict(row) for row in rows],
        }
    if as_json:
        click.echo(json.dumps(report))
    else:
        _print_table(report, rows, machine)
    skipped = [depth for depth in sizes.depths if depth not in {row.depth for row in rows}]
    if skipped and not quiet:
        notice(
            f"depth {skipped[0]} left out: the model's context holds {loaded.config.context_length} tokens"
        )


def measure(
    model: Model,
    sizes: Sizes,
    machine: roofline.Roofline,
    progress: Callable[[int, int], None],
    kv_type: KVType,
) -> Iterator[Row]:
    """The rows of the report, prompts first."""
    import numpy as np

    longest = max(sizes.prompt, sizes.generate + 2)
    depths = [depth for depth in sizes.depths if depth + longest <= model.config.context_length]
    plan = [(generates, batch, depth) for generates in (False, True) for depth in depths for batch in BATCHES]
    for done, (generates, batch, depth) in enumerate(plan):
        progress(done, len(plan))
        block_size = model.runner.block_size
        blocks_each = -(-(depth + longest) // block_size)
        with model.engine.borrow(batch * blocks_each) as blocks:
            tables = np.asarray(blocks, np.int32).reshape(batch, blocks_each)
            if generates:
                speed = batch / generation_step_seconds(model, tables, depth, sizes.generate)
                cost = roofline.step_cost(
                    model.runner, model.config, new=1, batch=batch, depth=depth, kv_type=kv_type
                )
                limit = batch / machine.seconds(cost)
            else:
                speed = batch * sizes.prompt / prompt_seconds(model, tables, depth, sizes)
                cost = roofline.step_cost(
                    model.runner, model.config, new=sizes.prompt, batch=batch, depth=depth
                )
                limit = batch * sizes.prompt / machine.seconds(cost)
        prompt, generate = (0, sizes.generate) if generates else (sizes.prompt, 0)
        yield Row(prompt, generate, batch, depth, round(speed, 2), round(speed / limit, 4))


def prompt_seconds(model: Model, tables: NDArray[np.int32], depth: int, sizes: Sizes) -> float:
    """Median time of one pass over a prompt of each sequence, in steps as large as they may be."""
    import numpy as np

    runner = model.runner
    batch, length = len(tables), sizes.prompt
    random = np.random.default_rng(0)
    tokens = random.integers(0, runner.vocabulary_size, batch * length, dtype=np.int32)
    rows = np.repeat(np.arange(batch, dtype=np.int32), length)
    positions = np.tile(np.arange(depth, depth + length, dtype=np.int32), batch)
    logits = np.empty((batch, runner.vocabulary_size), np.float32)

    def once() -> None:
        for start in range(0, batch * length, runner.max_step_tokens):
            part = slice(start, min(start + runner.max_step_tokens, batch * length))
            last = [
                index - start
                for index in range(length - 1, batch * length, length)
                if part.start <= index < part.stop
            ]
            outputs = np.asarray(last, np.int32)
            runner.step(tokens[part], positions[part], rows[part], tables, outputs, logits[: len(last)])

    # Several prompts are a long measurement as they are, and what was to be warmed up is warm by then.
    if batch > 1:
        return _median_seconds(once, 1, warm_up=0)
    return _median_seconds(once, sizes.repetitions, warm_up=1)


def generation_step_seconds(model: Model, tables: NDArray[np.int32], depth: int, count: int) -> float:
    """Median time of one step that gives each sequence its next (greedy) token."""
    import numpy as np

    runner = model.runner
    batch = len(tables)
    rows = np.arange(batch, dtype=np.int32)
    logits = np.empty((batch, runner.vocabulary_size), np.float32)
    tokens = np.arange(1, batch + 1, dtype=np.int32) % np.int32(runner.vocabulary_size)
    positions = np.full(batch, depth, np.int32)

    def once() -> None:
        nonlocal tokens, positions
        runner.step(tokens, positions, rows, tables, rows, logits)
        tokens, positions = logits.argmax(axis=1).astype(np.int32), positions + np.int32(1)

    return _median_seconds(once, count, warm_up=2)


def _median_seconds(once: Callable[[], None], repetitions: int, *, warm_up: int) -> float:
    for _ in range(warm_up):
        once()
    seconds = []
    for _ in range(repetitions):
        began = time.perf_counter()
        once()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def _print_table(report: dict[str, object], rows: Sequence[Row], machine: roofline.Roofline) -> None:
    from rich.console import Console
    from rich.table import Table

    click.echo(f"{report['model']}: {report['threads']} threads, {report['isa']}")
    click.echo(f"reading memory: {machine.bandwidth_gb_s:.1f} GB/s")
    if machine.operations_per_second:
        click.echo(f"8-bit dot products: {machine.operations_per_second / 1e12:.2f} T operations/s")
    table = Table()
    table.add_column("work")
    for name in ("batch", "depth", "tokens/s", "share of limit"):
        table.add_column(name, justify="right")
    for row in rows:
        work = f"prompt of {row.prompt}" if row.prompt else f"generate {row.generate}"
        share = f"{row.share_of_limit:.0%}" if row.generate or machine.operations_per_second else "-"
        table.add_row(work, str(row.batch), str(row.depth), f"{row.tokens_per_second:,.1f}", share)
    Console().print(table)
