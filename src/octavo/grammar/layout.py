"""White space between the tokens of JSON: as json.dumps has it, compact, spaced, indented, never endless."""

from __future__ import annotations

LAYOUTS = ("flexible", "line", "compact")
MAX_INDENT = 64

NONE, SPACE, LINE = 0, 1, 2  # from LINE on: a new line and (state - LINE) characters of indentation


def next_space(layout: str, space: int, byte: int) -> int | None:
    """The state after one more byte of white space; None where it is not allowed."""
    if layout == "compact":
        return None
    if byte == 0x20:
        if space == NONE:
            return SPACE
        return space + 1 if LINE <= space < LINE + MAX_INDENT else None
    if byte == 0x0A and space == NONE and layout == "flexible":
        return LINE
    if byte == 0x09 and layout == "flexible":
        return space + 1 if LINE <= space < LINE + MAX_INDENT else None
    return None
