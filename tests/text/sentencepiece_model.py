"""A SentencePiece model (sentencepiece_model.proto) from GGUF metadata, for the original library to read."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any

_BPE = 2


def sentencepiece_model(metadata: Mapping[str, Any], *, dummy_prefix: bool) -> bytes:
    """The serialized ModelProto with the pieces, scores and types of the GGUF file."""
    tokens: Sequence[str] = metadata["tokenizer.ggml.tokens"]
    scores, types = metadata["tokenizer.ggml.scores"], metadata["tokenizer.ggml.token_type"]
    pieces = b"".join(
        _bytes(1, _bytes(1, text.replace(" ", "\u2581").encode()) + _float(2, score) + _integer(3, int(kind)))
        for text, score, kind in zip(tokens, scores, types, strict=True)
    )
    trainer = _integer(3, _BPE) + _integer(4, len(tokens)) + _integer(35, 1)
    for name, id_field, piece_field in (
        ("unknown", 40, 45),
        ("bos", 41, 46),
        ("eos", 42, 47),
        ("padding", 43, 48),
    ):
        id = metadata.get(f"tokenizer.ggml.{name}_token_id")
        if id is not None:
            trainer += _integer(id_field, int(id)) + _bytes(piece_field, tokens[int(id)].encode())
    normalizer = _bytes(1, b"identity") + _integer(3, int(dummy_prefix)) + _integer(4, 0) + _integer(5, 1)
    return pieces + _bytes(2, trainer) + _bytes(3, normalizer)


def _varint(value: int) -> bytes:
    data = bytearray()
    while value > 0x7F:
        data.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*data, value])


def _integer(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _float(field: int, value: float) -> bytes:
    return _varint(field << 3 | 5) + struct.pack("<f", value)


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value
