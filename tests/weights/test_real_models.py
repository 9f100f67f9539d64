"""Published models open, and their tensors are what their makers say."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from octavo.model_config import ModelConfig, RopeConfig
from octavo.weights.checkpoint import Checkpoint, open_checkpoint
from octavo.weights.tensor import TensorType

pytestmark = pytest.mark.real

MODELS = Path(os.environ.get("OCTAVO_TEST_MODELS", "~/.cache/octavo-models")).expanduser()
SMOLLM2 = "SmolLM2-135M-Instruct.Q4_1.gguf"
GEMMA = "gemma3-270m.Q4_K_M.gguf"
QWEN_HALF = "Qwen2.5-Coder-0.5B-Instruct.Q4_K_M.gguf"
QWEN = "Qwen2.5-Coder-1.5B-Instruct.Q4_K_M.gguf"
MINILM = "all-MiniLM-L6-v2"


def opened(name: str) -> Checkpoint:
    if not (MODELS / name).exists():
        pytest.skip(f"{name} is not in {MODELS}")
    return open_checkpoint(MODELS / name)


# hidden, layers, heads, key-value heads, head width, feed-forward, vocabulary
SIZES = {
    SMOLLM2: (576, 30, 9, 3, 64, 1536, 49_152),
    GEMMA: (640, 18, 4, 1, 256, 2048, 262_144),
    QWEN_HALF: (896, 24, 14, 2, 64, 4864, 151_936),
    QWEN: (1536, 28, 12, 2, 128, 8960, 151_936),
    MINILM: (384, 6, 12, 12, 32, 1536, 30_522),
}


def sizes(config: ModelConfig) -> tuple[int, ...]:
    return (
        config.hidden_size,
        config.layers,
        config.heads,
        config.key_value_heads,
        config.head_width,
        config.feed_forward_size,
        config.vocabulary_size,
    )


@pytest.mark.parametrize("name", SIZES)
def test_sizes_and_weights(name: str) -> None:
    checkpoint = opened(name)
    assert sizes(checkpoint.config) == SIZES[name]
    for tensor in checkpoint.tensors.values():
        if tensor.name.startswith(("blk.0.", "output_norm")):
            values = tensor.numpy()
            assert values.shape == tensor.shape
            assert np.isfinite(values).all() and 0 < np.abs(values).mean() < 100, tensor.name


def test_smollm2() -> None:
    checkpoint = opened(SMOLLM2)
    config = checkpoint.config
    assert config.rope == RopeConfig(theta=100_000.0, width=64, style="interleaved")
    assert config.tied_embeddings and not config.add_beginning_token
    assert 2 in config.end_tokens  # <|im_end|>
    assert checkpoint.metadata["license"] == "apache-2.0"
    assert checkpoint.chat_template is not None and "<|im_start|>" in checkpoint.chat_template
    assert checkpoint.tensors["blk.0.attn_q.weight"].type is TensorType.Q4_1


def test_gemma() -> None:
    config = opened(GEMMA).config
    assert config.windows == tuple(0 if layer % 6 == 5 else 512 for layer in range(18))
    assert config.layer_rope(5) == RopeConfig(theta=1e6, width=256)
    assert config.layer_rope(0) == RopeConfig(theta=1e4, width=256)
    assert config.add_beginning_token and config.beginning_token == 2 and config.end_tokens == (1, 106)
    assert config.attention_scale == 1 / 16 and config.embedding_scale == pytest.approx(640**0.5)


def test_qwen() -> None:
    checkpoint = opened(QWEN_HALF)
    assert not checkpoint.config.tied_embeddings
    assert checkpoint.config.rope == RopeConfig(theta=1e6, width=64)
    assert {151_643, 151_645} <= set(checkpoint.config.end_tokens)


def test_minilm() -> None:
    config = opened(MINILM).config
    assert config.is_encoder and config.pooling == "mean" and config.normalize_embeddings
    assert (config.context_length, config.learned_positions, config.token_types) == (256, 512, 2)


@pytest.mark.parametrize("name", [SMOLLM2, QWEN_HALF])
def test_embeddings_equal_those_of_the_gguf_package(name: str) -> None:
    package = pytest.importorskip("gguf", reason="the independent reader `gguf` is not installed")
    from gguf.quants import dequantize

    checkpoint = opened(name)
    embedding = checkpoint.tensors["token_embd.weight"]
    kind = package.GGMLQuantizationType(int(embedding.type))
    rows = embedding.data.reshape(embedding.shape[0], -1)[:4096]
    np.testing.assert_array_equal(embedding.numpy()[:4096], dequantize(rows, kind))
