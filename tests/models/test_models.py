"""The models as trainable modules, and the loading of their weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from octavo.errors import FormatError, UnsupportedError  # noqa: E402
from octavo.model_config import ModelConfig, RopeConfig  # noqa: E402
from octavo.models.bert import BERT  # noqa: E402
from octavo.models.gpt import GPT  # noqa: E402
from octavo.models.loading import (  # noqa: E402
    BLOCK_MODULE_NAMES,
    MODULE_NAMES,
    build_model,
    build_trainable,
    load_tensors,
)
from octavo.models.saving import save_model  # noqa: E402

CONFIG = ModelConfig(
    architecture="llama", vocabulary_size=20, context_length=32, hidden_size=16, layers=2, heads=4,
    key_value_heads=2, head_width=4, feed_forward_size=24, attention_scale=0.5,
    rope=RopeConfig(100.0, 4),
)  # fmt: skip
GEMMA = replace(
    CONFIG, architecture="gemma3", norm_position="both", query_key_norm=True, tied_embeddings=False
)
GPT_2 = replace(
    CONFIG, architecture="gpt2", key_value_heads=4, norm="layer", gated=False, rope=None, learned_positions=32
)
ENCODER = replace(
    GPT_2,
    architecture="bert",
    causal=False,
    norm_position="post",
    token_types=2,
    embedding_norm=True,
    pooling="mean",
)


def tensors_of(config: ModelConfig) -> dict[str, np.ndarray]:
    """A fresh model's own parameters under GGUF's names."""
    torch.manual_seed(0)
    model = BERT(config) if config.is_encoder else GPT(config)
    blocks = {ours: theirs for theirs, ours in BLOCK_MODULE_NAMES.items()}
    outside = {ours: theirs for theirs, ours in MODULE_NAMES.items()}
    tensors = {}
    for name, parameter in model.named_parameters():
        module, kind = name.rsplit(".", 1)
        if module.startswith("blocks."):
            _, layer, module = module.split(".", 2)
            module = f"blk.{layer}.{blocks[module]}"
        else:
            module = outside[module]
        tensors[f"{module}.{kind}"] = parameter.detach().numpy()
    return tensors


def fused(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    result = dict(tensors)
    for layer in range(2):
        parts = [result.pop(f"blk.{layer}.attn_{part}.weight") for part in "qkv"]
        result[f"blk.{layer}.attn_qkv.weight"] = np.concatenate(parts)
        parts = [result.pop(f"blk.{layer}.ffn_{part}.weight") for part in ("gate", "up")]
        result[f"blk.{layer}.ffn_up.weight"] = np.concatenate(parts)
    return result


TOKENS = torch.arange(12).reshape(1, 12)


@pytest.mark.parametrize("config", [CONFIG, GEMMA, GPT_2, ENCODER], ids=lambda config: config.architecture)
def test_every_parameter_is_loaded_and_gets_a_gradient(config: ModelConfig) -> None:
    tensors = tensors_of(config)
    model = build_model(config, tensors)
    output = model(TOKENS)
    assert output.shape == (1, 12, config.hidden_size if config.is_encoder else config.vocabulary_size)
    output.square().mean().backward()
    lost = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert not lost
    assert sum(parameter.numel() for parameter in model.parameters()) == sum(a.size for a in tensors.values())


def test_a_step_of_training_lowers_the_loss() -> None:
    model = GPT(CONFIG)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(10):
        loss = torch.nn.functional.cross_entropy(model(TOKENS[:, :-1])[0], TOKENS[0, 1:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]


def test_a_decoder_does_not_see_the_future_and_an_encoder_does() -> None:
    changed = TOKENS.clone()
    changed[0, 7] = 19
    for config, sees in ((GEMMA, False), (ENCODER, True)):
        model = build_model(config, tensors_of(config))
        same = torch.equal(model(TOKENS)[0, :7], model(changed)[0, :7])
        assert same is not sees


def test_fused_tensors_are_split() -> None:
    tensors = tensors_of(CONFIG)
    assert torch.equal(build_model(CONFIG, tensors)(TOKENS), build_model(CONFIG, fused(tensors))(TOKENS))


def test_a_bias_that_the_architecture_usually_lacks_is_taken() -> None:
    tensors = tensors_of(CONFIG)
    plain = build_model(CONFIG, tensors)(TOKENS)
    tensors["blk.1.ffn_down.bias"] = np.ones(16, np.float32)
    assert not torch.allclose(plain, build_model(CONFIG, tensors)(TOKENS))


def test_rope_constants_are_passed_over() -> None:
    tensors = {**tensors_of(CONFIG), "rope_freqs.weight": np.ones(2, np.float32)}
    build_model(CONFIG, tensors)


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        (
            "blk.0.attn_q.weight",
            np.zeros((16, 15), np.float32),
            r"blk.0.attn_q.weight has shape \(16, 15\), not",
        ),
        ("blk.0.attn_q.bias", np.zeros(15, np.float32), r"has shape \(15,\), not \(16,\)"),
        ("blk.0.attn_qkv.weight", np.zeros((16, 16), np.float32), r"has 16 rows, not 32"),
        (
            "blk.2.attn_q.weight",
            np.zeros((16, 16), np.float32),
            r"blk.2.attn_q.weight has no place in this model",
        ),
        ("output.weight", np.zeros((20, 16), np.float32), r"output.weight has no place in this model"),
        ("vision.weight", np.zeros((20, 16), np.float32), r"vision.weight has no place in the models"),
    ],
)
def test_tensors_that_do_not_fit_are_named(name: str, array: np.ndarray, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        build_model(CONFIG, {**tensors_of(CONFIG), name: array})


def test_missing_tensors_are_named() -> None:
    tensors = tensors_of(CONFIG)
    del tensors["blk.1.ffn_norm.weight"]
    with pytest.raises(FormatError, match="no tensor for blocks.1.feed_forward_norm.weight"):
        load_tensors(GPT(CONFIG), tensors)


def test_a_model_refuses_the_other_kind_of_config() -> None:
    with pytest.raises(UnsupportedError, match="bert is not a pre-norm causal decoder"):
        GPT(ENCODER)
    with pytest.raises(UnsupportedError, match="llama is not a post-norm encoder"):
        BERT(CONFIG)
    encoder = BERT(replace(ENCODER, pooling=""))
    with pytest.raises(UnsupportedError, match="no pooling"):
        encoder.embed(TOKENS)


@pytest.mark.parametrize("fast", [False, True])
def test_packed_equals_padded_per_token(fast: bool) -> None:
    """Documents in one row are computed as each alone, padding and neighbours or not."""
    torch.manual_seed(0)
    config = replace(CONFIG, query_key_norm=True)
    model = GPT(config, fast=fast)
    lengths = (5, 9, 1, 6)
    texts = [torch.randint(config.vocabulary_size, (length,)) for length in lengths]
    numbers = torch.cat([torch.full((length,), place) for place, length in enumerate(lengths)])
    positions = torch.cat([torch.arange(length) for length in lengths])
    packed = model(torch.cat(texts)[None], positions[None], numbers[None])[0]
    padded = torch.zeros(len(lengths), max(lengths), dtype=torch.long)
    for row, text in enumerate(texts):
        padded[row, : len(text)] = text
    alone = model(padded)
    expected = torch.cat([alone[row, :length] for row, length in enumerate(lengths)])
    torch.testing.assert_close(packed, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("query_key_norm", [False, True])
def test_a_model_to_be_trained_has_rope_in_halves(query_key_norm: bool, tmp_path: Path) -> None:
    """llama.cpp's order of queries and keys is turned back, and the folder gives the same logits again."""
    config = replace(
        CONFIG, query_key_norm=query_key_norm, rope=RopeConfig(100.0, 4, style="interleaved"),
        architecture="qwen3" if query_key_norm else "llama",
    )  # fmt: skip
    torch.manual_seed(0)
    tensors = tensors_of(config)
    slow, trainable = build_model(config, tensors), build_trainable(config, tensors)
    assert trainable.config.rope == RopeConfig(100.0, 4)
    expected = slow(TOKENS)
    torch.testing.assert_close(trainable(TOKENS), expected, rtol=1e-5, atol=1e-5)
    save_model(trainable, tmp_path)
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    torch.testing.assert_close(theirs(TOKENS).logits, expected, rtol=1e-4, atol=1e-5)
