"""What one rendering of a chat template may use: steps, memory, processor time, depth.

A template comes with a model file, so it is untrusted code.  Jinja's sandbox keeps it from Python's objects
but not from work: nested loops, `"a" * 10**9`, strings that double.  Every loop round, call, operator and
result is charged here (template_sandbox.py does the charging); a template that runs over gets TemplateError.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

from octavo.errors import TemplateError

_CLOCK_EVERY = 64  # steps
_SCAN_PER_STEP = 1024  # characters that are searched or compared at the price of one step
_MAX_DEPTH = 64
_MAX_INTEGER_BITS = 128


_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class TemplateLimits:
    """Limits of one rendering, for small conversations; they grow with the size of the messages.

    source, nodes: characters of the template, and parts of its syntax tree.  steps: loop rounds, calls,
    elements looked at.  bytes: all strings and collections it makes, added up.  items: length of one
    collection.  seconds: of this thread's processor time.  input_characters, input_values: size of the
    messages, tools and variables.
    """

    source: int = 131_072
    nodes: int = 12_000
    steps: int = 300_000
    bytes: int = 48 << 20
    items: int = 100_000
    seconds: float = 0.6
    input_characters: int = 32 << 20
    input_values: int = 1_000_000


class RenderBudget:
    """What is left of the limits while one template renders."""

    def __init__(self, limits: TemplateLimits, input_characters: int, input_values: int) -> None:
        self.items = limits.items
        self._steps = limits.steps + 40 * input_values + input_characters // 25
        self._bytes = limits.bytes + 40 * input_characters
        self._deadline = time.thread_time() + limits.seconds + input_characters * 1e-6 + input_values * 2e-5
        self._clock = _CLOCK_EVERY
        self._depth = 0

    def step(self, count: int = 1) -> None:
        """Charges work."""
        self._steps -= count
        self._clock -= count
        if self._steps < 0:
            raise TemplateError("the chat template does too much work: endless or nested loops")
        if self._clock < 0:
            self._clock = _CLOCK_EVERY
            if time.thread_time() > self._deadline:
                raise TemplateError("the chat template takes too long")

    def allocate(self, size: int) -> None:
        """Charges `size` bytes; called before the memory is taken wherever the size can be known."""
        self._bytes -= size
        if self._bytes < 0:
            raise TemplateError("the chat template makes too much text")

    def enter(self) -> None:
        """One call deeper."""
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise TemplateError(f"the chat template nests calls deeper than {_MAX_DEPTH}")

    def leave(self) -> None:
        self._depth -= 1

    def counted(self, values: Iterable[object]) -> Iterator[object]:
        """The same values, each charged as a step."""
        for value in values:
            self.step()
            yield value

    def weigh(self, value: object) -> int:
        """Roughly the characters in `value` when printed, charging a step for each element on the way.

        A list that holds itself many times over (l = [l, l], forty times) runs out of steps here, before
        Python's own printing or comparing would start on it.
        """
        if isinstance(value, str):
            self.step(len(value) // _SCAN_PER_STEP)
            return len(value)
        total = 0
        waiting = [value]
        while waiting:
            item = waiting.pop()
            if isinstance(item, str):
                total += len(item) + 4
            elif isinstance(item, Mapping):
                self.step(2 * len(item))
                waiting.extend(item.keys())
                waiting.extend(item.values())
            elif isinstance(item, (list, tuple)):
                self.step(len(item))
                waiting.extend(item)
            else:
                total += 48
        self.step(total // _SCAN_PER_STEP)
        return total

    def made(self, value: _Value) -> _Value:
        """Charges a fresh value and returns it."""
        kind = type(value)
        if kind is str:
            self.allocate(sys.getsizeof(value))
        elif kind in (list, tuple, dict, set):
            if len(value) > self.items:  # type: ignore[arg-type]
                raise TemplateError(f"the chat template makes a collection of over {self.items} items")
            self.allocate(sys.getsizeof(value))
        elif kind is int and value.bit_length() > _MAX_INTEGER_BITS:  # type: ignore[attr-defined]
            raise TemplateError("the chat template computes with huge numbers")
        else:
            self.allocate(64)
        return value
