"""A tiny seeded GGUF file with a tokenizer of 256 bytes and a chat template."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from tiny_models import HIDDEN, random_tensor, tiny_metadata, tiny_tensors

from octavo.weights.gguf_writer import write_gguf
from octavo.weights.tensor import TensorType

SPECIAL = ["<s>", "</s>", "<|im_start|>", "<|im_end|>"]
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def byte_letters() -> list[str]:
    """GPT-2's printable stand-ins for the 256 bytes."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return [chr(byte if byte in plain else next(others)) for byte in range(256)]


def write_byte_model(path: Path, *, template: str | None = TEMPLATE, merged: str = "ab") -> Path:
    """A llama of two layers; template None: without one.  merged: the token of the letters a and b."""
    tokens = [*SPECIAL, *byte_letters(), merged]
    kinds = np.ones(len(tokens), np.int32)
    kinds[: len(SPECIAL)] = 3
    metadata = tiny_metadata("llama") | {
        "llama.vocab_size": len(tokens),
        "general.license": "apache-2.0",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.merges": ["a b"],
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.bos_token_id": 0,
    }
    metadata.pop("tokenizer.chat_template", None)
    if template is not None:
        metadata["tokenizer.chat_template"] = template
    embedding = random_tensor("token_embd.weight", (len(tokens), HIDDEN), TensorType.F16)
    tensors = tiny_tensors("llama") | {"token_embd.weight": embedding}
    write_gguf(path, metadata, list(tensors.values()))
    return path
