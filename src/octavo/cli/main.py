"""octavo: the command itself.  A verb's module is imported when the verb is used, so that --help is quick."""

from __future__ import annotations

import os
from importlib import import_module

import click

# numpy's linear algebra is not used; starting its threads would take a sixth of the way to a first token.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# verb -> (module of octavo.cli, line of the help); the order is that of the help.
VERBS = {
    "run": ("run", "One prompt, one answer."),
    "chat": ("chat", "A conversation in the terminal."),
    "embed": ("embed", "Texts to vectors."),
    "bench": ("bench", "How fast this machine runs a model, beside how fast it could."),
    "perplexity": ("perplexity", "How well a model predicts a text."),
    "train": ("train", "A model of your own, from text to a folder that runs."),
    "tune": ("tune", "A model fitted to your rows: LoRA, QLoRA, or all of it."),
    "train-draft": ("train_draft", "A small head that guesses a model's tokens ahead."),
    "merge": ("merge", "An adapter made part of its model."),
    "convert": ("convert", "An adapter as llama.cpp reads it."),
    "translate": ("translate", "Texts to another language, with a translator trained here."),
    "eval": ("evaluate", "How well a trained model does on data."),
    "report": ("report", "One page with the curves of a training run."),
    "plan": ("plan", "The model that your data, machine and hours are best spent on."),
    "sweep": ("sweep", "A ladder of small runs, to conclude from."),
    "scaling": ("scaling", "Laws from runs."),
    "grammar": ("grammar", "Check a grammar: what is enforced, the shortest text it allows."),
    "tokenizer": ("tokenizer", "Make a vocabulary of your own text."),
    "pull": ("pull", "Bring models into the cache."),
    "list": ("list_models", "Models in the cache, and short names of those that can be brought."),
    "show": ("show", "What a model is and what it needs."),
    "remove": ("remove", "Remove models from the cache."),
    "doctor": ("doctor", "Check this machine and a model, and say how to mend what is wrong."),
}


class Verbs(click.Group):
    """A group whose commands are imported on use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        command: click.Command = import_module(f"octavo.cli.{VERBS[cmd_name][0]}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl([(verb, line) for verb, (_, line) in VERBS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        # click's own hint at a near miss would import every verb.
        if args and args[0] not in VERBS and not args[0].startswith("-"):
            import difflib

            close = difflib.get_close_matches(args[0], VERBS, n=1)
            meant = f"; did you mean {close[0]}?" if close else f". A verb is one of: {', '.join(VERBS)}."
            ctx.fail(f"there is no verb {args[0]!r}{meant}")
        return super().resolve_command(ctx, args)


@click.command(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="octavo", message="octavo %(version)s")
def main() -> None:
    """Run small language models on the CPU.

    octavo run "Why is the sky blue?" answers with the default model; each verb has its own --help.
    """
