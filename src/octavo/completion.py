"""What a generation gives back: pieces of text as they come, and the completion at the end.

Text meets tokens here and not in `decoding`, which sees ids alone.  A stream asks its generation for one
token, decodes it without ever cutting a character in half, and holds back whatever may yet turn out to be
the beginning of a stop string.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypedDict

from octavo.errors import CancelledError, OctavoError

if TYPE_CHECKING:
    from octavo.decoding.generation import Generation, Timings

FinishReason = Literal["length", "stop", "deadline", "cancelled"]


class ContextLengthError(OctavoError, ValueError):
    """A text has more tokens than the context holds.  Says both numbers; nothing is ever cut silently."""


class GenerationOptions(TypedDict, total=False):
    """The keyword arguments of `Model.generate`, `stream`, `chat` and `stream_chat`.

    What is absent (or None) comes from the model's own generation_config, and then from octavo's
    `SamplingOptions`.  max_tokens is cut to what the context has room for.
    """

    max_tokens: int | None  # default 256
    temperature: float | None  # 0 always takes the likeliest token
    top_k: int | None  # 0 turns it off
    top_p: float | None  # 1 turns it off
    min_p: float | None  # 0 turns it off
    repetition_penalty: float | None  # 1 turns it off
    presence_penalty: float | None
    frequency_penalty: float | None
    logit_bias: Mapping[int, float] | None  # token id -> what is added to its logit
    seed: int | None  # the same seed gives the same text, whatever else is in the batch
    stop: (
        str | Sequence[str] | None
    )  # generation ends before the first of these; they are never part of the text
    # The text is within this: a JSON Schema, pydantic model, dataclass, Literal, Enum, function,
    # re.compile(...), GBNF, list of choices, or a Grammar (octavo.structured.as_grammar).  It always closes
    # before max_tokens, and before max_seconds.
    grammar: Any
    # The grammar begins behind this text, or behind the first of two and ends before the second; what is
    # around them is free: tool calls, fenced code.
    trigger: str | tuple[str, str] | None
    adapter: str | None  # the name of an adapter that the model was loaded with
    forced_tokens: Literal["canonical", "exact", "off"] | None  # what is not sampled where there is no choice
    # The prompt's last tokens are taken back and written anew, within their bytes: for a prompt that ends in
    # the middle of a word or of what is one token.  They count as generated, and are no part of the text.
    heal: bool | None
    max_seconds: float | None  # from the call on; generation ends with the last step that fits


class Decoder(Protocol):
    """Turns ids into text piece by piece (`octavo.text.tokenizer.StreamDecoder`)."""

    def push(self, token: int, /) -> str: ...
    def finish(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Completion:
    """The whole answer to one prompt.

    text: without the stop string that ended it.  tokens: every id that was generated, in order.
    finish_reason: "stop" (an end token or a stop string), "length" (max_tokens or a full context),
        "deadline" (max_seconds) or "cancelled".  A text within a grammar has been closed before either.
    """

    text: str
    tokens: list[int]
    finish_reason: FinishReason
    timings: Timings

    def __str__(self) -> str:
        return self.text

    @property
    def tokens_per_second(self) -> float:
        """Speed of generation: the tokens after the first, by the time they took; 0 where there are none."""
        later = len(self.tokens) - 1
        seconds = self.timings.generation_seconds
        return later / seconds if later > 0 and seconds > 0 else 0.0

    def summary(self) -> dict[str, object]:
        """What `octavo run --json` prints: plain values, times in seconds."""
        return {
            "text": self.text,
            "tokens": self.tokens,
            "finish_reason": self.finish_reason,
            "prompt_tokens": self.timings.prompt_tokens,
            "completion_tokens": len(self.tokens),
            "time_to_first_token_s": round(self.timings.time_to_first_token, 6),
            "tokens_per_second": round(self.tokens_per_second, 3),
            "drafted": self.timings.drafted,
            "accepted": self.timings.accepted,
            "accepted_by_depth": [round(share, 3) for share in self.timings.accepted_by_depth],
            "speedup_estimate": round(self.timings.speedup_estimate, 3),
        }


class Piece(str):
    """A piece of generated text that knows the token that released it.

    `token` is None for what was still held back when the generation ended.  The text is empty while a
    character is incomplete or a stop string may have begun.
    """

    __slots__ = ("token",)
    token: int | None

    def __new__(cls, text: str, token: int | None = None) -> Piece:
        piece = super().__new__(cls, text)
        piece.token = token
        return piece


class StopMatcher:
    """Finds the first stop string in text that arrives in pieces of any size.

    The match that ends first wins, and among those the one that begins first: what is let through does not
    depend on how the text was cut.  `stopped` says whether a stop string has been met.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        if any(not stop for stop in stops):
            raise ValueError("stop: an empty stop string would end every text before its first character")
        self._stops = tuple(stops)
        self._longest = max(map(len, self._stops), default=0)
        self._held = ""
        self.stopped = False

    def push(self, text: str) -> str:
        """Take more text; return what is certainly no part of a stop string."""
        if self.stopped or not self._stops:
            return "" if self.stopped else text
        text = self._held + text
        matches = [(text.find(stop) + len(stop), text.find(stop)) for stop in self._stops if stop in text]
        if matches:
            self.stopped, self._held = True, ""
            return text[: min(matches)[1]]
        keep = self._length_to_hold(text)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def finish(self) -> str:
        """The text has ended: return what was held back."""
        held, self._held = self._held, ""
        return held

    def _length_to_hold(self, text: str) -> int:
        """Length of the longest end of `text` that begins a stop string."""
        for length in range(min(self._longest - 1, len(text)), 0, -1):
            end = text[len(text) - length :]
            if any(stop.startswith(end) for stop in self._stops):
                return length
        return 0


class Stream(Iterator[Piece]):
    """An iterator over the pieces of one completion; `completion()` is the whole of it.

    Leaving it early (`close`, a `with` block, or forgetting it) cancels the generation.
    """

    def __init__(
        self, generation: Generation, decoder: Decoder, stops: Sequence[str], skip: bytes = b""
    ) -> None:
        """skip: what the generated bytes begin with and the text does not."""
        self._generation = generation
        self._skipped = len(skip.decode())  # characters still to leave out
        self._decoder = decoder
        self._matcher = StopMatcher(stops)
        self._text: list[str] = []
        self._ended = False
        self.tokens: list[int] = []
        self.finish_reason: FinishReason | None = None

    def __next__(self) -> Piece:
        if self._ended:
            raise StopIteration
        try:
            token = next(self._generation)
        except (StopIteration, CancelledError):
            return self._end()
        self.tokens.append(token)
        text = self._matcher.push(self._pushed(token))
        self._text.append(text)
        if self._matcher.stopped:
            self._ended, self.finish_reason = True, "stop"
            self._generation.cancel()
        return Piece(text, token)

    def _pushed(self, token: int) -> str:
        text = self._decoder.push(token)
        left_out = min(self._skipped, len(text))
        self._skipped -= left_out
        return text[left_out:]

    def _end(self) -> Piece:
        self._ended = True
        tail = self._matcher.push(self._decoder.finish()) + self._matcher.finish()
        self.finish_reason = (
            "stop" if self._matcher.stopped else self._generation.finish_reason or "cancelled"
        )
        if not tail:
            raise StopIteration
        self._text.append(tail)
        return Piece(tail)

    @property
    def timings(self) -> Timings:
        return self._generation.timings

    def completion(self) -> Completion:
        """What has been generated so far; after the last piece, the whole completion."""
        return Completion(
            "".join(self._text), list(self.tokens), self.finish_reason or "cancelled", self.timings
        )

    def cancel(self) -> None:
        """Ask the generation to end; safe from another thread.  The stream then ends at its next token."""
        self._generation.cancel()

    def close(self) -> None:
        """Give up what has not been generated."""
        if not self._ended:
            self._ended, self.finish_reason = True, "cancelled"
            self._generation.cancel()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if not getattr(self, "_ended", True):
            self.close()


def complete(streams: Sequence[Stream]) -> list[Completion]:
    """Take one token of each in turn, so that a stop string ends its sequence at once."""
    running = list(streams)
    try:
        while running:
            running = [stream for stream in running if next(stream, None) is not None]
    finally:
        for stream in streams:
            stream.close()
    return [stream.completion() for stream in streams]
