"""octavo train-draft: a small network that guesses a model's next tokens, from the model's own answers."""

from __future__ import annotations

import json
import math
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from octavo.cli.rendering import INTERRUPTED, ProgressBar, notice, reports_errors
from octavo.cli.train import require_torch

if TYPE_CHECKING:
    from octavo.data.hidden_states import HiddenStates
    from octavo.training.loop import TrainingResult
    from octavo.weights.checkpoint import Checkpoint

_RECORDING_SHARE = 0.5  # of the minutes
_DEFAULT_MINUTES = 5.0


@click.command("train-draft", context_settings={"max_content_width": 110})
@click.argument("model")
@click.option(
    "--data", "-d", multiple=True, required=True,
    help="Prompts or texts: .jsonl, .json, .csv, .tsv, .parquet, .txt; repeatable.",
)  # fmt: skip
@click.option(
    "--out", "-o", type=click.Path(file_okay=False),
    help="The head's folder. Default: where --draft head looks.",
)  # fmt: skip
@click.option(
    "--minutes", type=click.FloatRange(0, min_open=True),
    help="For all of it, half of it for answers.  [default: 5, without --steps]",
)  # fmt: skip
@click.option(
    "--steps", type=click.IntRange(1), help="Updates; then answers take no more than half of --minutes."
)
@click.option(
    "--tokens", type=click.IntRange(256), default=400_000, show_default=True, help="Most tokens of answers."
)
@click.option(
    "--answer-tokens", type=click.IntRange(8), default=256, show_default=True, help="Of one answer."
)
@click.option("--together", type=click.IntRange(1), default=12, show_default=True, help="Answers at a time.")
@click.option("--depths", type=click.IntRange(1, 16), default=4, show_default=True, help="Tokens ahead.")
@click.option(
    "--draft-tokens", type=click.IntRange(32), default=4096, show_default=True,
    help="How many of the vocabulary it can say.",
)  # fmt: skip
@click.option(
    "--inner-size", type=click.IntRange(32), help="Of its gated layer.  [default: twice the hidden size]"
)
@click.option("--learning-rate", type=click.FloatRange(0, min_open=True))
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--threads", type=click.IntRange(1), help="Default: what this process may really use.")
@click.option("--offline", is_flag=True, help="Never use the network.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object at the end.")
@click.option("--quiet", "-q", is_flag=True, help="Nothing on the screen but the result.")
@reports_errors
def command(
    model: str, data: tuple[str, ...], out: str | None, as_json: bool, quiet: bool, **options: Any
) -> None:
    """Train a draft head for a model: it makes octavo run MODEL --draft head faster and changes no text.

    The model answers the prompts itself; then the head learns to say the same from the model's hidden states.
    Ctrl-C during the answers goes on to training with those that are there; during training it saves.
    """
    require_torch()
    from octavo.training.draft_config import DraftConfig
    from octavo.training.draft_head import train_draft_head
    from octavo.training.live_view import LiveView

    silent = quiet or as_json
    minutes = options["minutes"] or (0.0 if options["steps"] else _DEFAULT_MINUTES)
    with tempfile.TemporaryDirectory(prefix="octavo-states-") as temporary:
        checkpoint, vocabulary, rows, folder = _record(model, data, Path(temporary), minutes, silent, options)
        folder = Path(out) if out else folder
        names = ("depths", "draft_tokens", "inner_size", "learning_rate", "seed", "threads", "steps")
        given = {name: options[name] for name in names if options[name] is not None}
        config = DraftConfig(
            out=str(folder), data=data, base=model, minutes=minutes * (1 - _RECORDING_SHARE), **given,
        )  # fmt: skip
        with LiveView(quiet=silent) as view:
            result = train_draft_head(config, checkpoint, vocabulary, rows, view=view)
    _conclude(result, rows, model, out is None, as_json)


def _record(
    name: str, data: tuple[str, ...], folder: Path, minutes: float, silent: bool, options: dict[str, Any]
) -> tuple[Checkpoint, list[str], HiddenStates, Path]:
    """The model's file, its vocabulary, what it answered, and where its head is looked for."""
    from octavo import api
    from octavo.data.hidden_states import HiddenStatesWriter, open_hidden_states
    from octavo.drafting.recording import AnswerRecorder, read_prompts
    from octavo.drafting.sources import head_folder
    from octavo.weights import hub
    from octavo.weights.checkpoint import open_checkpoint

    together, longest = options["together"], options["answer_tokens"]
    with ProgressBar("bringing the model", quiet=silent, byte_sizes=True) as progress:
        path = hub.resolve(name, progress=progress, offline=options["offline"])
    checkpoint = open_checkpoint(path)
    loaded = {"draft": "off", "max_sequences": together, "threads": options["threads"], "offline": True}
    with api.load(path, **loaded) as model:
        hidden = model.config.hidden_size
        prompts = read_prompts(
            [Path(each).expanduser() for each in data], model, room=model.context - longest
        )
        if not silent:
            notice(f"{len(prompts)} prompts; {path.name} answers them, {together} at a time")
        with HiddenStatesWriter(folder, hidden, most=options["tokens"]) as writer:
            with ProgressBar("answering (tokens)", quiet=silent) as progress:
                AnswerRecorder(model.engine, writer).record(
                    prompts, frozenset(model.tokenizer.end_ids), max_tokens=longest, together=together,
                    seconds=60 * minutes * _RECORDING_SHARE or math.inf, seed=options["seed"],
                    progress=lambda count: progress(count, options["tokens"]),
                )  # fmt: skip
        rows = open_hidden_states(folder, hidden)
        if not silent:
            notice(f"{len(rows):,} tokens of {writer.answers} answers")
        return checkpoint, list(model.tokenizer.tokens), rows, head_folder(checkpoint, model.tokenizer)


def _conclude(
    result: TrainingResult, rows: HiddenStates, model: str, is_default: bool, as_json: bool
) -> None:
    from octavo.adapters.draft_head import read_draft_head

    shares = read_draft_head(result.folder).config.acceptance
    if as_json:
        facts = {
            "folder": str(result.folder), "tokens": len(rows), "steps": result.steps,
            "seconds": round(result.seconds, 1), "acceptance_by_depth": list(shares),
            "loss": result.validation.loss if result.validation else None,
            "interrupted": result.interrupted,
        }  # fmt: skip
        click.echo(json.dumps(facts))
    else:
        listed = ", ".join(f"{share:.0%}" for share in shares)
        click.echo(f"{result.folder}: {result.steps} steps; right on prompts kept back, by depth: {listed}")
        notice(f'octavo run {model} "..." --draft {"head" if is_default else result.folder}')
    if result.interrupted:
        sys.exit(INTERRUPTED)
