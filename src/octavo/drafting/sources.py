"""What guesses ahead for a model: the parts of speculative decoding, wired (docs/speculation.md)."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from pathlib import Path

from octavo import _native, machine
from octavo.adapters.draft_head import check_pair, fingerprint, is_draft_head, read_draft_head
from octavo.decoding.kv_cache import KVType, blocks_that_fit, resolve_kv_type
from octavo.decoding.plan import BLOCK_TOKENS, build_runner
from octavo.decoding.runner import Runner
from octavo.decoding.speculation import costs
from octavo.decoding.speculation.controller import Estimates
from octavo.decoding.speculation.draft_head import HeadRunner, HeadSource
from octavo.decoding.speculation.draft_model import ModelSource, check_vocabularies
from octavo.decoding.speculation.drawn import DrawnSource
from octavo.decoding.speculation.grammar_states import GrammarSource
from octavo.decoding.speculation.speculation import Rule, Speculation
from octavo.decoding.speculation.suffix import SuffixSource
from octavo.errors import ModelNotFoundError, OutOfMemoryError, UnsupportedError
from octavo.text.tokenizer import Tokenizer
from octavo.weights import hub
from octavo.weights.checkpoint import Checkpoint, open_checkpoint


def speculation_for(checkpoint: Checkpoint, threads: int, draft_max: int, rule: Rule) -> Speculation:
    """Drafts for a model, with what is known of this machine."""
    weights = sum(tensor.data.nbytes for tensor in checkpoint.tensors.values())
    host = f"{platform.node()} {os.cpu_count()} {_native.isa()}"
    key = f"{checkpoint.path.name} {weights} {threads} {host}"
    path = hub.cache_folder() / "step_costs.json"
    estimates = Estimates()
    return Speculation(
        [GrammarSource(estimates), SuffixSource(estimates)],
        estimates,
        costs=costs.load(path, key),
        on_measured=lambda measured: costs.save(path, key, measured),
        draft_max=draft_max,
        rule=rule,
    )


def draft_model(
    checkpoint: Checkpoint,
    tokenizer: Tokenizer,
    runner: Runner,
    threads: int,
    blocks: int,
    speculation: Speculation,
) -> ModelSource:
    """A smaller model that guesses for a larger one, with so many blocks of KV cache.

    OctavoError where their vocabularies differ.
    """
    if checkpoint.config.is_encoder:
        raise UnsupportedError(f"draft: {checkpoint.path.name} is an encoder and generates no tokens")
    check_vocabularies(tokenizer.tokens, checkpoint.tokenizer().tokens, name=checkpoint.path.name)
    kv_type = resolve_kv_type("auto", checkpoint.config)
    small = build_runner(
        checkpoint.config, checkpoint.tensors, threads, blocks, kv_type, logit_margin=1.0, coarse=True
    )
    own_noise = speculation.rule != "equality"
    return ModelSource(small, speculation.estimates, runner.vocabulary_size, own_noise=own_noise)


def head_folder(checkpoint: Checkpoint, tokenizer: Tokenizer) -> Path:
    """Where the draft head of a model is kept if nobody says otherwise: `heads/` of the cache folder."""
    return hub.cache_folder() / "heads" / fingerprint(checkpoint, tokenizer.tokens)


def draft_head(
    checkpoint: Checkpoint,
    tokenizer: Tokenizer,
    folder: Path | None,
    speculation: Speculation,
) -> HeadSource:
    """The trained head of a folder, or None: the one made for this model, in the cache.

    OctavoError where there is none, or where it was made for another model.
    """
    if folder is None:
        folder = head_folder(checkpoint, tokenizer)
        if not folder.is_dir():
            raise ModelNotFoundError(
                f"{checkpoint.path.name} has no draft head yet: octavo train-draft {checkpoint.path.name} "
                "--data FILE makes one in minutes"
            )
    head = read_draft_head(folder)
    check_pair(head, checkpoint, tokenizer.tokens, folder=folder)
    # One thread: a head lies in the cache, and waking a second one takes longer than its half of the work.
    runner = HeadRunner(head, checkpoint.tensors["token_embd.weight"], threads=1)
    vocabulary = checkpoint.config.vocabulary_size
    return HeadSource(runner, speculation.estimates, vocabulary, own_noise=speculation.rule != "equality")


def drafter(
    draft: str,
    resolve: Callable[[str], Path],
    checkpoint: Checkpoint,
    tokenizer: Tokenizer,
    runner: Runner,
    threads: int,
    speculation: Speculation,
) -> DrawnSource:
    """What `draft=` of `octavo.load` names: "head", a head's folder, or a smaller model that `resolve` finds.

    OctavoError where it is not there or is of another model, OutOfMemoryError where it does not fit.
    """
    folder = Path(draft).expanduser()
    if draft == "head" or is_draft_head(folder):
        return draft_head(checkpoint, tokenizer, None if draft == "head" else folder, speculation)
    small = open_checkpoint(resolve(draft))
    kept = resolve_kv_type("auto", small.config)
    blocks = blocks_beside_weights(small, runner.block_count * runner.block_size, kept)
    return draft_model(small, tokenizer, runner, threads, blocks, speculation)


def blocks_beside_weights(checkpoint: Checkpoint, tokens: int, kv_type: KVType) -> int:
    """Blocks of a KV cache for so many tokens; OutOfMemoryError where it does not fit beside the weights."""
    # The weights are packed into memory of our own; the file's pages can be dropped and do not count.
    weights = sum(tensor.data.nbytes for tensor in checkpoint.tensors.values())
    available = machine.available_memory()
    if weights > available:
        raise OutOfMemoryError(
            f"the weights of {checkpoint.path.name} need {weights / 2**20:,.0f} MiB and "
            f"{available / 2**20:,.0f} MiB are available: take a smaller model or quantization"
        )
    return blocks_that_fit(
        checkpoint.config,
        tokens,
        block_size=BLOCK_TOKENS,
        available_bytes=available - weights,
        kv_type=kv_type,
    )
