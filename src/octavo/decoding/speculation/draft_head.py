"""Drafts from a small network that reads the model's own hidden state.

Its formula is in octavo/adapters/draft_head.py.

The state at the last accepted token comes with the logits of the step that accepted it, so there is no prompt
to read and no cache: a sequence needs one vector.  From then on the head feeds on its own states.

R: sequences, H: hidden size, D: tokens that the head can say, V: vocabulary of the model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

import numpy as np
from numpy.typing import NDArray

from octavo import _native
from octavo.adapters.draft_head import NORM_EPSILON, DraftHead
from octavo.adapters.encoding import TYPES, encode
from octavo.decoding.constraints.constraint import FORBIDDEN
from octavo.decoding.plan import TensorLike
from octavo.decoding.sampling import top_logprobs
from octavo.decoding.sequences import Drawing, TokenSequence
from octavo.decoding.speculation.controller import Estimates
from octavo.decoding.speculation.drawn import DrawnSource, Guess

MOST_SEQUENCES = 256


class HeadRunner:
    """The head as a native plan.  embedding: the model's, whose bytes must stay mapped.  number_format: of
    the matrices, a name of `adapters.encoding.TYPES`; norms are float32."""

    def __init__(
        self,
        head: DraftHead,
        embedding: TensorLike,
        threads: int,
        *,
        number_format: str = "q8_0",
        isa: str = "",
    ) -> None:
        self.tokens = head.tokens
        self.state_scale = head.weights["state_scale"]
        self.hidden_size = head.config.hidden_size
        self._model = _plan(head, embedding, threads, number_format, isa)
        self._tables = np.zeros((MOST_SEQUENCES, 1), np.int32)
        self._rows = np.arange(MOST_SEQUENCES, dtype=np.int32)
        self._positions = np.zeros(MOST_SEQUENCES, np.int32)

    def step(
        self, tokens: NDArray[np.int32], states: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """From tokens int32 [R] and the scaled states float32 [R, H] before them: logits float32 [R, D] of
        what follows, and the states float32 [R, H] after them.  R is at most MOST_SEQUENCES."""
        count = len(tokens)
        logits = np.empty((count, len(self.tokens)), np.float32)
        after = np.empty((count, self.hidden_size), np.float32)
        rows = self._rows[:count]
        self._model.step(
            tokens, self._positions[:count], rows, self._tables[:count], rows, logits, after, states=states
        )
        return logits, after


def _plan(
    head: DraftHead, embedding: TensorLike, threads: int, number_format: str, isa: str
) -> _native.Model:
    hidden, inner = head.config.hidden_size, head.config.inner_size
    model = _native.Model(threads, MOST_SEQUENCES, isa)
    kind = TYPES[number_format]

    def matrix(name: str) -> int:
        weight = head.weights[f"{name}.weight"]
        tensor = encode(name, weight, kind)
        return model.matrix(int(tensor.type), weight.shape[0], weight.shape[1], tensor.data)

    def norm(name: str, out: tuple[int, int], source: tuple[int, int]) -> None:
        weight = model.vector(head.weights[f"{name}.weight"])
        model.row("rms_norm", out, source, weight=weight, count=hidden, number=NORM_EPSILON)

    raw, both, state, normed, added = (
        (model.buffer(width), 0) for width in (hidden, 2 * hidden, hidden, hidden, hidden)
    )
    gate = (model.buffer(2 * inner), 0)
    up = (gate[0], inner)
    rows, columns = embedding.shape
    model.embed(model.table(int(embedding.type), rows, columns, embedding.data), raw)
    norm("token_norm", both, raw)
    model.state(state, hidden)
    norm("state_norm", (both[0], hidden), state)
    model.matmul(both, 2 * hidden, [(matrix("input"), -1, state)])
    norm("inner_norm", normed, state)
    model.matmul(normed, hidden, [(matrix("gate"), -1, gate), (matrix("up"), -1, up)])
    model.row("gated_silu", gate, gate, up, count=inner)
    model.matmul(gate, inner, [(matrix("down"), -1, added)])
    model.row("add", state, added, count=hidden)
    model.select_outputs(state, hidden)
    norm("output_norm", state, state)
    model.logits(state, hidden, matrix("output"), 0.0, math.inf)
    model.finish(lambda: None)
    return model


def step_slow(
    weights: Mapping[str, NDArray[np.float32]], embedded: NDArray[np.float32], states: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """`HeadRunner.step` in numpy, from the embeddings float32 [R, H] of the tokens."""

    def norm(name: str, x: NDArray[np.float32]) -> NDArray[np.float32]:
        scale = np.sqrt(np.mean(x.astype(np.float64) ** 2, axis=-1, keepdims=True) + NORM_EPSILON)
        return np.asarray(x / scale * weights[f"{name}.weight"], np.float32)

    def linear(name: str, x: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(x @ weights[f"{name}.weight"].T, np.float32)

    joined = np.concatenate([norm("token_norm", embedded), norm("state_norm", states)], axis=-1)
    x = linear("input", joined)
    n = norm("inner_norm", x)
    gate = linear("gate", n)
    x = x + linear("down", gate / (1 + np.exp(-gate)) * linear("up", n))
    after = norm("output_norm", x)
    return linear("output", after), after


@dataclass(slots=True, eq=False)
class _Guess(Guess):
    state: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))


class HeadSource(DrawnSource):
    """runner: of the head.  vocabulary_size: of the model."""

    name = "head"

    def __init__(
        self, runner: HeadRunner, estimates: Estimates, vocabulary_size: int, *, own_noise: bool = False
    ) -> None:
        super().__init__(estimates, vocabulary_size, own_noise=own_noise)
        self._runner = runner
        self.state_reader = self.observe
        self._said = np.empty((0, len(runner.tokens)), np.float32)  # the last logits
        self._logits = np.full((1, vocabulary_size), FORBIDDEN, np.float32)  # of all tokens
        self.restart()

    def restart(self) -> None:
        """See `DraftSource.restart`."""
        # By id() of a sequence: how many of its tokens the state has seen, and the state.
        self._states: dict[int, tuple[int, NDArray[np.float32]]] = {}

    def forget(self, sequence: TokenSequence) -> None:
        """See `DraftSource.forget`."""
        self._states.pop(id(sequence), None)

    def observe(
        self, drawings: Sequence[Drawing], tokens: Sequence[Sequence[int]], states: NDArray[np.float32]
    ) -> None:
        """A `StateReader` of the model's engine: keep the state float32 [H] at the last accepted token."""
        for drawing in drawings:
            seen = drawing.sequence.length + len(drawing.draft.path(drawing.accepted))
            row = drawing.rows.start + 1 + drawing.accepted
            self._states[id(drawing.sequence)] = (seen, states[row] * self._runner.state_scale)

    def begin(self, sequence: TokenSequence, limit: int) -> Guess | None:
        """None where the step before did not end at the sequence's last token but one."""
        seen, state = self._states.get(id(sequence), (0, None))
        if state is None or seen + 1 != sequence.length or len(self._states) > MOST_SEQUENCES:
            return None
        return _Guess(sequence, limit, [int(sequence.ids[seen])], state=state)

    def run(self, guesses: Sequence[Guess]) -> NDArray[np.float32]:
        """See `DrawnSource.run`; what the head cannot say is forbidden."""
        tokens = np.array([guess.pending[0] for guess in guesses], np.int32)
        mine = [cast(_Guess, guess) for guess in guesses]
        logits, after = self._runner.step(tokens, np.stack([guess.state for guess in mine]))
        for guess, state in zip(mine, after, strict=True):
            guess.state = state
        if len(self._logits) < len(guesses):
            self._logits = np.full((len(guesses), self.vocabulary_size), FORBIDDEN, np.float32)
        full = self._logits[: len(guesses)]
        full[:, self._runner.tokens] = logits
        self._said = logits
        return full

    def confidences(self, logits: NDArray[np.float32], tokens: NDArray[np.int32]) -> NDArray[np.float32]:
        """See `DrawnSource.confidences`; a look at what the head can say is quicker."""
        places = np.searchsorted(self._runner.tokens, tokens).clip(max=self._said.shape[1] - 1)
        return np.exp(top_logprobs(self._said, places.astype(np.int32), 0)[0])
