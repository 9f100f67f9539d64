"""Tokens that need no sampling, found with what any matcher can tell."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from octavo.grammar.errors import GrammarStateError
from octavo.grammar.tokens import TokenizerInfo

MODES = ("exact", "canonical", "off")
MAX_FORCED_TOKENS = 4096


def forced_tokens(
    matcher: Any, info: TokenizerInfo, mode: str, encode: Callable[[bytes], list[int]] | None
) -> list[int]:
    """Tokens that follow without a choice; they are not accepted yet.

    "exact": while one token alone is allowed.  "canonical": the forced bytes as `encode(bytes) -> ids` writes
    them, without the tokens at the end that could be parts of a longer one.  "off": none.
    """
    if mode not in MODES:
        raise GrammarStateError(f"forced_tokens has the modes {', '.join(MODES)}, not {mode!r}")
    if mode == "off" or matcher.stopped:
        return []
    if mode == "exact":
        return _exact(matcher, info)
    if encode is None:
        raise GrammarStateError('forced_tokens("canonical") needs encode, which turns bytes into token ids')
    data = matcher.forced_bytes()
    return _canonical(matcher, info, list(encode(data))) if data else []


def _exact(matcher: Any, info: TokenizerInfo) -> list[int]:
    result: list[int] = []
    while len(result) < MAX_FORCED_TOKENS:
        count, token = matcher.allowed_count()
        if count != 1 or token in info.stop_token_ids:
            break
        result.append(token)
        matcher.accept_token(token)
    matcher.rollback(len(result))
    return result


def _canonical(matcher: Any, info: TokenizerInfo, tokens: list[int]) -> list[int]:
    """Without the tail that an allowed longer token could span."""
    pieces = [info.token_bytes[token] for token in tokens]
    kept = len(tokens)
    for start in range(len(tokens) - 1, -1, -1):
        tail = b"".join(pieces[start:])
        if len(tail) > info.max_token_bytes:
            break
        if matcher.longer_token(b"".join(pieces[:start]), tail):
            kept = start
    return tokens[:kept]
