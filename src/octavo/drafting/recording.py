"""A model's own answers with the hidden states behind them, as the engine writes them: no second pass.

T: tokens of an answer, H: hidden size.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from octavo.data.conversations import Turns, read_rows, turns_of
from octavo.data.hidden_states import HiddenStatesWriter
from octavo.decoding.engine import Engine
from octavo.decoding.generation import Generation
from octavo.decoding.sampling import SamplingOptions
from octavo.decoding.sequences import Drawing, TokenSequence
from octavo.errors import FormatError

# Answers are greedy and sampled in turn, as people ask for both.
_TEMPERATURES = (0.0, 0.7)
_PIECE_TOKENS, _PROMPT_TOKENS = 384, 48  # of a plain text: each piece begins with a prompt


@dataclass(slots=True, eq=False)
class _Answer:
    sequence: TokenSequence
    tokens: list[int] = field(default_factory=list)
    states: list[NDArray[np.float16]] = field(default_factory=list)


class AnswerRecorder:
    """Has an engine answer prompts, several together, and writes what it is told of each step."""

    def __init__(self, engine: Engine, writer: HiddenStatesWriter) -> None:
        self._engine, self._writer = engine, writer
        self._answers: dict[int, _Answer] = {}
        engine.add_state_reader(self._read)

    def _read(
        self, drawings: Sequence[Drawing], tokens: Sequence[Sequence[int]], states: NDArray[np.float32]
    ) -> None:
        for drawing, emitted in zip(drawings, tokens, strict=True):
            answer = self._answers.get(id(drawing.sequence))
            if answer is None:
                answer = self._answers[id(drawing.sequence)] = _Answer(drawing.sequence)
            answer.tokens += emitted[:1]
            answer.states.append(states[drawing.rows.start].astype(np.float16))

    def record(
        self,
        prompts: Sequence[Sequence[int]],
        end_ids: frozenset[int],
        *,
        max_tokens: int,
        together: int,
        seconds: float,
        seed: int = 0,
        progress: Callable[[int], None] = lambda rows: None,
    ) -> bool:
        """Answer until the writer is full, the time is over, or each prompt has an answer of each kind.

        prompts: tokens.  max_tokens: of an answer.  progress: told how many rows there are.  Returns False
        where Ctrl-C ended it; what was answered by then is written.
        """
        begun = time.perf_counter()
        waiting = _requests(prompts, seed)
        live: list[tuple[int, Generation]] = []
        try:
            while not self._writer.is_full and time.perf_counter() - begun < seconds:
                while len(live) < together and (request := next(waiting, None)) is not None:
                    number, options = request
                    generation = self._engine.submit(
                        prompts[number], options, max_tokens=max_tokens, end_ids=end_ids
                    )
                    live.append((number, generation))
                if not live:
                    break
                next(live[0][1], None)
                live = [pair for pair in live if not self._ended(*pair)]
                progress(self._writer.rows + sum(len(one.tokens) for one in self._answers.values()))
        except KeyboardInterrupt:
            return False
        finally:
            for number, generation in live:
                generation.cancel()
                self._flush(number, generation)
        return True

    def _ended(self, number: int, generation: Generation) -> bool:
        if not generation._sequence.ended:
            return False
        self._flush(number, generation)
        return True

    def _flush(self, number: int, generation: Generation) -> None:
        answer = self._answers.pop(id(generation._sequence), None)
        if answer is not None and answer.tokens:
            length = min(len(answer.tokens), len(answer.states))
            states = np.stack(answer.states[:length])
            self._writer.add(states, np.array(answer.tokens[:length], np.int32), number)


def _requests(prompts: Sequence[Sequence[int]], seed: int) -> Iterator[tuple[int, SamplingOptions]]:
    """(number of a prompt, how to answer it): all of them once for each temperature, in an order by seed."""
    order = np.random.Generator(np.random.PCG64([seed, 5])).permutation(len(prompts))
    numbers = count(seed)
    for turn in range(len(_TEMPERATURES)):
        for place, index in enumerate(order.tolist()):
            temperature = _TEMPERATURES[(turn + place) % len(_TEMPERATURES)]
            yield index, SamplingOptions(temperature=temperature, seed=next(numbers))


def read_prompts(paths: Sequence[Path], model: Any, *, room: int) -> list[list[int]]:
    """Prompts of files as tokens, at most `room` each: what stands before each answer of a conversation (or
    all of one without answers), and pieces of plain texts.  model: an `octavo.Model`.

    Raises FormatError for files without any.
    """
    prompts: list[list[int]] = []
    for path in paths:
        for where, row in read_rows(path):
            if "prompt" in row and len(row) == 1:
                row = {"messages": [{"role": "user", "content": row["prompt"]}]}
            turns = turns_of(row, where)
            prompts += _of_text(turns, model) if isinstance(turns, str) else _of_turns(turns, model)
    prompts = [prompt for prompt in prompts if 0 < len(prompt) <= room]
    if not prompts:
        raise FormatError(f"{', '.join(map(str, paths))}: no prompt of at most {room} tokens")
    return prompts


def _of_turns(turns: Turns, model: Any) -> list[list[int]]:
    answers = [index for index, turn in enumerate(turns) if turn["role"] == "assistant"]
    return [model.encode_chat(turns[:index]) for index in answers or [len(turns)] if index]


def _of_text(text: str, model: Any) -> list[list[int]]:
    tokens = model.tokenizer.encode(text)
    return [tokens[begin : begin + _PROMPT_TOKENS] for begin in range(0, len(tokens), _PIECE_TOKENS)]
