"""A model small enough to read: bytes for tokens, and a step whose logits depend on the whole history."""

from __future__ import annotations

import hashlib
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from octavo.api import Model
from octavo.model_config import ModelConfig

END = 256  # the end token; 0 to 255 are bytes
VOCABULARY = 257
HIDDEN = 8

Script = Callable[[bytes], int]

# A background job of a script ignores Ctrl-C; programs that tests start and interrupt would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


class ByteDecoder:
    """Gives text only when a character is whole, as the real one does."""

    def __init__(self) -> None:
        self._bytes = b""

    def push(self, token: int) -> str:
        self._bytes += bytes([token]) if token < END else b""
        try:
            text = self._bytes.decode()
        except UnicodeDecodeError:
            return ""
        self._bytes = b""
        return text

    def finish(self) -> str:
        text, self._bytes = self._bytes.decode(errors="replace"), b""
        return text


class ByteTokenizer:
    """UTF-8 bytes; `<end>` is a special token."""

    vocabulary_size = VOCABULARY
    beginning_id = None
    end_ids = frozenset({END})
    add_beginning = False
    special_tokens: dict[str, str] = {"eos_token": "<end>"}

    def encode(self, text: str, *, add_special: bool = True, parse_special: bool = False) -> list[int]:
        if not parse_special:
            return list(text.encode())
        parts = [list(part.encode()) for part in text.split("<end>")]
        return parts[0] + [token for part in parts[1:] for token in (END, *part)]

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        end = b"" if skip_special else b"<end>"
        return b"".join(bytes([token]) if token < END else end for token in ids).decode(errors="replace")

    def token_bytes(self, token: int) -> bytes:
        return bytes([token]) if token < END else b""

    def stream(self, *, skip_special: bool = True, continuation: bool = False) -> ByteDecoder:
        return ByteDecoder()


class HistoryRunner:
    """Keeps token ids where a real runner keeps keys and values, so that a wrong block shows in the logits.

    `script` names the likeliest next token for a history of bytes; without one it is drawn from a hash of it.
    """

    vocabulary_size = VOCABULARY
    hidden_size = HIDDEN
    block_size = 32
    max_step_tokens = 64
    bytes_per_token = 1000

    def __init__(self, block_count: int = 64, script: Script | None = None) -> None:
        self.block_count = block_count
        self.script = script
        self.cells = np.full((block_count, self.block_size), -1, np.int32)
        self.steps = 0

    def _histories(
        self,
        tokens: NDArray[np.int32],
        positions: NDArray[np.int32],
        rows: NDArray[np.int32],
        tables: NDArray[np.int32],
    ) -> Iterator[list[int]]:
        assert len(tokens) <= self.max_step_tokens
        self.steps += 1
        for token, position, row in zip(tokens, positions, rows, strict=True):
            self.cells[tables[row, position // self.block_size], position % self.block_size] = token
        for position, row in zip(positions, rows, strict=True):
            used = tables[row, : position // self.block_size + 1]
            yield self.cells[used].reshape(-1)[: position + 1].tolist()

    def logits_after(self, history: Sequence[int]) -> NDArray[np.float32]:
        """What every path must give for this history."""
        digest = hashlib.sha256(np.asarray(history, np.int32).tobytes()).digest()
        logits = np.random.default_rng(list(digest)).normal(size=VOCABULARY).astype(np.float32)
        if self.script is not None:
            logits[self.script(bytes(token for token in history if token < END))] = 30
        return logits

    def states_after(self, history: Sequence[int]) -> NDArray[np.float32]:
        return self.logits_after(history)[:HIDDEN]

    def step(self, tokens: Any, positions: Any, rows: Any, tables: Any, outputs: Any, logits: Any) -> None:
        histories = list(self._histories(tokens, positions, rows, tables))
        for index, output in enumerate(outputs):
            logits[index] = self.logits_after(histories[output])

    def hidden(self, tokens: Any, positions: Any, rows: Any, tables: Any, outputs: Any, out: Any) -> None:
        histories = list(self._histories(tokens, positions, rows, tables))
        for index, output in enumerate(outputs):
            out[index] = self.states_after(histories[output])

    def cancel(self) -> None:
        pass


def says(answer: str, end: bool = True) -> Script:
    """A script that continues any prompt with `answer`, byte by byte, and then ends or begins again."""
    data = answer.encode()

    def next_token(history: bytes) -> int:
        for length in range(len(data), 0, -1):
            if history.endswith(data[:length]):
                return (END if end else data[0]) if length == len(data) else data[length]
        return data[0]

    return next_token


def byte_config(**changes: Any) -> ModelConfig:
    sizes: dict[str, Any] = {
        "architecture": "llama",
        "vocabulary_size": VOCABULARY,
        "context_length": 512,
        "hidden_size": HIDDEN,
        "layers": 1,
        "heads": 1,
        "key_value_heads": 1,
        "head_width": 8,
        "feed_forward_size": 16,
        "end_tokens": (END,),
    }
    return ModelConfig(**(sizes | changes))


def build_model(
    script: Script | None = None,
    *,
    context: int = 256,
    block_count: int = 64,
    config: dict[str, Any] | None = None,
    template: str | None = None,
    generation: dict[str, Any] | None = None,
    max_sequences: int = 8,
    runner: HistoryRunner | None = None,
) -> Model:
    """A Model on the real engine, with bytes for tokens and a HistoryRunner for a step."""
    from octavo.weights.checkpoint import GenerationDefaults

    checkpoint: Any = SimpleNamespace(
        path=Path("tiny.gguf"),
        config=byte_config(**(config or {})),
        tensors={},
        metadata={},
        chat_template=template,
        generation=GenerationDefaults(**(generation or {})),
    )
    tokenizer: Any = ByteTokenizer()
    runner = runner or HistoryRunner(block_count, script)
    return Model(checkpoint, tokenizer, runner, context=context, threads=1, max_sequences=max_sequences)


@pytest.fixture
def make_model() -> Iterator[Callable[..., Model]]:
    """`build_model`, whose models are closed at the end of the test."""
    models: list[Model] = []

    def make(*arguments: Any, **options: Any) -> Model:
        models.append(build_model(*arguments, **options))
        return models[-1]

    yield make
    for model in models:
        model.close()


@pytest.fixture
def scripted() -> Callable[..., Script]:
    """scripted(answer) -> a script that says it."""
    return says
