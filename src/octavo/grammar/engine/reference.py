"""The slow, obvious twin: a set of explicit stacks, advanced byte by byte.  It is the oracle of the tests."""

from __future__ import annotations

from octavo.grammar.network import Position, Return

Stack = tuple[Return, ...]
Reading = tuple[Position, Stack]


class ReferenceRecognizer:
    """Every reading of the text so far: where it is and, innermost last, where each open rule returns to."""

    def __init__(self, start: Position) -> None:
        self.readings, self.complete = close({(start, ())})

    def accept_bytes(self, data: bytes) -> bool:
        """Advance; False (and nothing changes) where the text cannot begin like that."""
        saved = self.readings, self.complete
        for byte in data:
            after = {
                (target, stack) for place, stack in self.readings if (target := place.step(byte)) is not None
            }
            if not after:
                self.readings, self.complete = saved
                return False
            self.readings, self.complete = close(after)
            if not self.readings and not self.complete:
                self.readings, self.complete = saved
                return False
        return True

    def allows(self, data: bytes) -> bool:
        saved = self.readings, self.complete
        allowed = self.accept_bytes(data)
        self.readings, self.complete = saved
        return allowed


def close(readings: set[Reading]) -> tuple[set[Reading], bool]:
    """All readings reached without a byte, and whether the text may end here."""
    seen, work, complete = set(readings), list(readings), False
    while work:
        place, stack = work.pop()
        reached: list[Reading] = []
        label = place.ending()
        if label is not None and not stack:
            complete = True
        elif label is not None:
            target = stack[-1].resume(label)
            if target is not None:
                reached.append((target, stack[:-1]))
        for callee, item in place.calls():
            reached.append((callee, stack if item is None else (*stack, item)))
        for reading in reached:
            if reading not in seen:
                seen.add(reading)
                work.append(reading)
    # Positions that only call or end are no readings of their own any more.
    return {reading for reading in seen if not getattr(reading[0], "silent", False)}, complete
