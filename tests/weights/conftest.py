"""Tiny seeded GGUF models, made on the spot."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from octavo.weights.gguf_writer import write_gguf
from octavo.weights.tensor import Tensor, TensorType

HIDDEN, INNER, LAYERS, HEADS, KEY_VALUE_HEADS, HEAD, VOCABULARY, CONTEXT = 64, 96, 2, 4, 2, 16, 40, 128

TinyGguf = Callable[..., Path]


def random_tensor(name: str, shape: tuple[int, ...], kind: TensorType = TensorType.F32) -> Tensor:
    """Seeded by its name.  Floats are drawn as numbers, blocks as bytes."""
    generator = np.random.default_rng(sum(map(ord, name)))
    count = int(np.prod(shape))
    if kind is TensorType.F32:
        data = generator.normal(1.0, 0.1, count).astype(np.float32).view(np.uint8)
    elif kind is TensorType.F16:
        data = generator.normal(1.0, 0.1, count).astype(np.float16).view(np.uint8)
    else:
        size = count // kind.block_elements * kind.block_bytes
        data = generator.integers(0, 256, size, dtype=np.uint8)
    return Tensor(name, kind, shape, data)


def tiny_tensors(architecture: str) -> dict[str, Tensor]:
    """What llama.cpp's converter writes for a small model of the architecture."""
    queries, keys = HEADS * HEAD, KEY_VALUE_HEADS * HEAD
    biased = architecture in ("gpt2", "bert")
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (VOCABULARY, HIDDEN)}

    def norm(name: str, width: int = HIDDEN) -> None:
        shapes[f"{name}.weight"] = (width,)
        if biased:
            shapes[f"{name}.bias"] = (width,)

    def linear(name: str, rows: int, columns: int, bias: bool = biased) -> None:
        shapes[f"{name}.weight"] = (rows, columns)
        if bias:
            shapes[f"{name}.bias"] = (rows,)

    if biased:
        shapes["position_embd.weight"] = (CONTEXT, HIDDEN)
    if architecture == "bert":
        shapes["token_types.weight"] = (2, HIDDEN)
        norm("token_embd_norm")
    else:
        norm("output_norm")
    for layer in range(LAYERS):
        block = f"blk.{layer}."
        names = ["attn_output_norm", "layer_output_norm"] if architecture == "bert" else ["attn_norm", "ffn_norm"]
        names += ["post_attention_norm", "post_ffw_norm"] if architecture.startswith("gemma") else []
        for name in names:
            norm(block + name)
        if architecture in ("gpt2", "phi3"):
            linear(block + "attn_qkv", queries + 2 * keys, HIDDEN)
        else:
            with_bias = biased or architecture == "qwen2"
            linear(block + "attn_q", queries, HIDDEN, with_bias)
            linear(block + "attn_k", keys, HIDDEN, with_bias)
            linear(block + "attn_v", keys, HIDDEN, with_bias)
        linear(block + "attn_output", HIDDEN, queries)
        if architecture in ("qwen3", "gemma3"):
            norm(block + "attn_q_norm", HEAD)
            norm(block + "attn_k_norm", HEAD)
        if architecture not in ("gpt2", "bert", "phi3"):
            linear(block + "ffn_gate", INNER, HIDDEN)
        linear(block + "ffn_up", 2 * INNER if architecture == "phi3" else INNER, HIDDEN)
        linear(block + "ffn_down", HIDDEN, INNER)
    kinds = {"token_embd.weight": TensorType.Q8_0, "blk.0.attn_output.weight": TensorType.F16}
    return {
        name: random_tensor(name, shape, kinds.get(name, TensorType.F32)) for name, shape in shapes.items()
    }


def tiny_metadata(architecture: str) -> dict[str, object]:
    """The metadata that goes with `tiny_tensors`."""
    epsilon = "layer_norm_epsilon" if architecture in ("gpt2", "bert") else "layer_norm_rms_epsilon"
    sizes = {
        "context_length": CONTEXT,
        "embedding_length": HIDDEN,
        "block_count": LAYERS,
        "feed_forward_length": INNER,
        "attention.head_count": HEADS,
        "attention.head_count_kv": KEY_VALUE_HEADS,
        f"attention.{epsilon}": 1e-5,
        "attention.key_length": HEAD,
        "attention.value_length": HEAD,
        "vocab_size": VOCABULARY,
    }
    if architecture.startswith("gemma"):
        sizes["attention.sliding_window"] = 32
    kinds = np.ones(VOCABULARY, np.int32)
    kinds[:4] = 3
    return {
        "general.architecture": architecture,
        "general.name": "Tiny",
        "general.license": "apache-2.0",
        **{f"{architecture}.{name}": value for name, value in sizes.items()},
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.tokens": ["<s>", "</s>", "<|im_end|>", "<pad>"]
        + [f"token {number}" for number in range(VOCABULARY - 4)],
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.bos_token_id": 0,
        "tokenizer.ggml.eos_token_id": 1,
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.chat_template": "{{ messages }}",
    }


@pytest.fixture
def tiny_gguf(tmp_path: Path) -> TinyGguf:
    """make(architecture, metadata={...}, tensors={...}): a model file; None takes a key or tensor away."""

    def make(
        architecture: str,
        metadata: Mapping[str, object] | None = None,
        tensors: Mapping[str, Tensor | None] | None = None,
    ) -> Path:
        values = {**tiny_metadata(architecture), **(metadata or {})}
        held = {**tiny_tensors(architecture), **(tensors or {})}
        path = tmp_path / f"{architecture}.gguf"
        write_gguf(
            path,
            {key: value for key, value in values.items() if value is not None},
            [tensor for tensor in held.values() if tensor is not None],
        )
        return path

    return make
