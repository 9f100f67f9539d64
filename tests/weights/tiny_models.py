"""Tiny seeded GGUF models, made on the spot."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from octavo.weights.tensor import Tensor, TensorType

HIDDEN, INNER, LAYERS, HEADS, KEY_VALUE_HEADS, HEAD, VOCABULARY, CONTEXT = 64, 96, 2, 4, 2, 16, 40, 128

TinyGguf = Callable[..., Path]
BIASED = ("gpt2", "bert")


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
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (VOCABULARY, HIDDEN)}
    if architecture in BIASED:
        shapes["position_embd.weight"] = (CONTEXT, HIDDEN)
    if architecture == "bert":
        shapes["token_types.weight"] = (2, HIDDEN)
    shapes["token_embd_norm.weight" if architecture == "bert" else "output_norm.weight"] = (HIDDEN,)
    for layer in range(LAYERS):
        shapes |= {f"blk.{layer}.{name}.weight": shape for name, shape in block_shapes(architecture).items()}
    biased: tuple[str, ...] = (
        () if architecture not in (*BIASED, "qwen2") else ("attn_q.", "attn_k.", "attn_v.")
    )
    biased += ("norm.", "attn_qkv.", "attn_output.", "ffn_up.", "ffn_down.") if architecture in BIASED else ()
    for name in [name for name in shapes if any(part in name for part in biased)]:
        shapes[name.replace(".weight", ".bias")] = shapes[name][:1]
    kinds = {"token_embd.weight": TensorType.Q8_0, "blk.0.attn_output.weight": TensorType.F16}
    return {
        name: random_tensor(name, shape, kinds.get(name, TensorType.F32)) for name, shape in shapes.items()
    }


def block_shapes(architecture: str) -> dict[str, tuple[int, ...]]:
    """The weights of one layer."""
    queries, keys = HEADS * HEAD, KEY_VALUE_HEADS * HEAD
    norms = ["attn_output_norm", "layer_output_norm"] if architecture == "bert" else ["attn_norm", "ffn_norm"]
    norms += ["post_attention_norm", "post_ffw_norm"] if architecture.startswith("gemma") else []
    shapes: dict[str, tuple[int, ...]] = {name: (HIDDEN,) for name in norms}
    if architecture in ("gpt2", "phi3"):
        shapes["attn_qkv"] = (queries + 2 * keys, HIDDEN)
    else:
        shapes |= {"attn_q": (queries, HIDDEN), "attn_k": (keys, HIDDEN), "attn_v": (keys, HIDDEN)}
    if architecture in ("qwen3", "gemma3"):
        shapes |= {"attn_q_norm": (HEAD,), "attn_k_norm": (HEAD,)}
    if architecture not in ("gpt2", "bert", "phi3"):
        shapes["ffn_gate"] = (INNER, HIDDEN)
    shapes["ffn_up"] = (2 * INNER if architecture == "phi3" else INNER, HIDDEN)
    return shapes | {"attn_output": (HIDDEN, queries), "ffn_down": (HIDDEN, INNER)}


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
