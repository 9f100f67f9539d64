"""Folders made by transformers: the configuration and weights against transformers' own modules."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tiny_folders import LLAMA3, MODELS, SEVEN, Maker, edit_json

from octavo.model_config import ModelConfig, RopeConfig
from octavo.weights.checkpoint import open_checkpoint

NAMES = {"llama 3": "llama", "llama biased": "llama", "llama tied": "llama", "mistral": "llama"}
NAMES |= {"qwen2 windows": "qwen2", "phi3 longrope": "phi3"}


def angles(rope: RopeConfig) -> NDArray[np.float64]:
    """The frequencies that a RopeConfig stands for."""
    plain = rope.theta ** (-np.arange(0, rope.width, 2) / rope.width)
    divisors: NDArray[np.float64] = np.array(rope.divisors or (1.0,) * (rope.width // 2))
    return plain / divisors


def assert_ropes_agree(config: ModelConfig, model: Any) -> None:
    embedding = getattr(model.model, "rotary_emb", None)
    assert embedding is not None and config.rope is not None
    if config.architecture == "gemma3":
        assert config.window_rope is not None
        full, sliding = embedding.full_attention_inv_freq, embedding.sliding_attention_inv_freq
        np.testing.assert_allclose(angles(config.window_rope), sliding.numpy(), rtol=1e-5)
        np.testing.assert_allclose(angles(config.rope), full.numpy(), rtol=1e-5)
        return
    np.testing.assert_allclose(angles(config.rope), embedding.inv_freq.numpy(), rtol=1e-5)
    assert config.rope.attention_factor == pytest.approx(embedding.attention_scaling)


@pytest.mark.parametrize("case", MODELS)
def test_the_configuration_is_that_of_the_modules(make: Maker, case: str) -> None:
    folder, model = make(case)
    config = open_checkpoint(folder).config
    source = model.config
    assert config.architecture == NAMES.get(case, case)
    assert config.vocabulary_size == source.vocab_size
    assert config.layers == source.num_hidden_layers
    assert (config.hidden_size, config.heads) == (source.hidden_size, source.num_attention_heads)
    assert config.tied_embeddings == source.tie_word_embeddings
    assert config.norm_offset == (1.0 if case.startswith("gemma") else 0.0)
    if case in ("gpt2", "bert"):
        assert config.rope is None and config.learned_positions == source.max_position_embeddings
        assert config.norm == "layer" and not config.gated
        return
    layers = model.model.layers
    assert config.rope is not None and config.rope.style == "half"
    assert_ropes_agree(config, model)
    for number, layer in enumerate(layers):
        attention = layer.self_attn
        assert config.attention_scale == pytest.approx(attention.scaling)
        window = getattr(attention, "sliding_window", None) or 0
        window = source.sliding_window if case in ("mistral", "phi3") else window
        assert config.window(number) == (window or 0)
        assert config.head_width == attention.head_dim
    assert config.norm_epsilon == pytest.approx(source.rms_norm_eps)
    assert config.key_value_heads == source.num_key_value_heads
    if case.startswith("gemma"):
        assert config.embedding_scale == pytest.approx(float(model.model.embed_tokens.embed_scale))
        assert config.attention_softcap == (source.attn_logit_softcapping or 0.0)
        assert config.logit_softcap == (source.final_logit_softcapping or 0.0)


@pytest.mark.parametrize("case", MODELS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_every_weight_arrives_once(make: Maker, case: str, dtype: str) -> None:
    """Every parameter of the model is one of our tensors, with its values (GPT-2's transposed)."""
    folder, model = make(case)
    torch = pytest.importorskip("torch", reason="torch is not installed")
    model.to(getattr(torch, dtype)).save_pretrained(folder)
    remaining = {name: tensor.numpy() for name, tensor in open_checkpoint(folder).tensors.items()}
    for name, parameter in model.named_parameters():
        if name.startswith("pooler."):
            continue
        values = parameter.detach().float().numpy()
        values = values.T if ".c_" in name and values.ndim == 2 else values
        equal = [key for key, array in remaining.items() if np.array_equal(array, values)]
        assert len(equal) == 1, name
        del remaining[equal[0]]
    assert not remaining


def test_longrope_context(make: Maker) -> None:
    folder, _ = make("phi3 longrope")
    short, long = open_checkpoint(folder).config, open_checkpoint(folder, long_context=True).config
    assert short.rope is not None and long.rope is not None
    assert (short.context_length, short.rope.divisors) == (64, (1.0, 1.5, 2.0))
    assert (long.context_length, long.rope.divisors) == (128, (2.0, 3.0, 4.0))
    assert short.rope.attention_factor == long.rope.attention_factor > 1.0


def test_shards(make: Maker) -> None:
    folder, model = make("llama")
    whole = {name: tensor.numpy() for name, tensor in open_checkpoint(folder).tensors.items()}
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="20KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 1 and not (folder / "model.safetensors").exists()
    shards = open_checkpoint(folder).tensors
    assert shards.keys() == whole.keys()
    for name, values in whole.items():
        np.testing.assert_array_equal(shards[name].numpy(), values)


# config.json as transformers 4 wrote it.


def test_older_llama_configuration(make: Maker) -> None:
    folder, _ = make("llama 3")
    expected = open_checkpoint(folder).config
    scaling = {key: value for key, value in LLAMA3.items() if key != "rope_theta"}
    edit_json(folder / "config.json", rope_parameters=None, rope_theta=5e5, rope_scaling=scaling)
    assert open_checkpoint(folder).config == expected
    edit_json(folder / "config.json", rope_scaling={"type": "linear", "factor": 2.0}, rope_theta=None)
    rope = open_checkpoint(folder).config.rope
    assert rope == RopeConfig(theta=10_000.0, width=16, divisors=(2.0,) * 8)


def test_older_gemma3_configuration(make: Maker) -> None:
    folder, _ = make("gemma3")
    expected = open_checkpoint(folder).config
    edit_json(
        folder / "config.json",
        rope_parameters=None,
        layer_types=None,
        _sliding_window_pattern=None,
        rope_local_base_freq=1e4,
        rope_theta=1e6,
        rope_scaling={"rope_type": "linear", "factor": 8.0},
        sliding_window_pattern=6,
    )
    assert open_checkpoint(folder).config == expected


def test_gemma3_inside_a_vision_model(make: Maker) -> None:
    """Published files of 4B and up: the language model under text_config, most keys left out."""
    from safetensors.numpy import load_file, save_file

    folder, _ = make("gemma3", num_attention_heads=8, num_key_value_heads=4, head_dim=256)
    expected = open_checkpoint(folder).config
    weights = load_file(folder / "model.safetensors")
    weights = {f"language_model.{name}": array for name, array in weights.items()}
    weights["vision_tower.vision_model.post_layernorm.weight"] = np.zeros(4, np.float32)
    weights["multi_modal_projector.mm_soft_emb_norm.weight"] = np.zeros(4, np.float32)
    save_file(weights, folder / "model.safetensors")
    text = {
        key: SEVEN[key] for key in ("hidden_size", "intermediate_size", "num_hidden_layers", "vocab_size")
    }
    text |= {"sliding_window": 24, "rope_scaling": {"rope_type": "linear", "factor": 8.0}}
    text |= {"max_position_embeddings": 128, "query_pre_attn_scalar": 64}
    outer = {"model_type": "gemma3", "text_config": text, "eos_token_id": [2], "bos_token_id": 1}
    (folder / "config.json").write_text(json.dumps(outer))
    assert open_checkpoint(folder).config == expected


def test_gpt2_without_the_outer_name(make: Maker) -> None:
    """OpenAI's own files: no `transformer.` in front, and the attention masks among the weights."""
    from safetensors.numpy import load_file, save_file

    folder, _ = make("gpt2")
    expected = open_checkpoint(folder).tensors
    weights = load_file(folder / "model.safetensors")
    weights = {name.removeprefix("transformer."): array for name, array in weights.items()}
    weights["h.0.attn.bias"] = np.zeros((1, 1, 64, 64), np.float32)
    weights["h.0.attn.masked_bias"] = np.zeros((), np.float32)
    save_file(weights, folder / "model.safetensors")
    assert open_checkpoint(folder).tensors.keys() == expected.keys()
