"""Hugging Face folders made by transformers: the configuration against transformers' own modules, and refusals."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from octavo.errors import FormatError, UnsupportedError
from octavo.model_config import ModelConfig, RopeConfig
from octavo.weights.checkpoint import GenerationDefaults, open_checkpoint

transformers = pytest.importorskip("transformers", reason="transformers is not installed")
torch = pytest.importorskip("torch", reason="torch is not installed")

SIZES: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 5e5,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 1e4,
    "short_factor": [1.0, 1.5, 2.0],
    "long_factor": [2.0, 3.0, 4.0],
    "partial_rotary_factor": 0.75,
}
SEVEN = {**SIZES, "num_hidden_layers": 7}
LINEAR = {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0}

# case -> model class, configuration class, keys of the configuration
MODELS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "llama": ("LlamaForCausalLM", "LlamaConfig", SIZES),
    "llama 3": ("LlamaForCausalLM", "LlamaConfig", {**SIZES, "head_dim": 16, "rope_parameters": LLAMA3}),
    "llama biased": ("LlamaForCausalLM", "LlamaConfig", {**SIZES, "attention_bias": True, "mlp_bias": True}),
    "llama tied": ("LlamaForCausalLM", "LlamaConfig", {**SIZES, "tie_word_embeddings": True}),
    "mistral": ("MistralForCausalLM", "MistralConfig", {**SIZES, "head_dim": 16, "sliding_window": 24}),
    "qwen2": ("Qwen2ForCausalLM", "Qwen2Config", SIZES),
    "qwen2 windows": (
        "Qwen2ForCausalLM",
        "Qwen2Config",
        {**SIZES, "use_sliding_window": True, "sliding_window": 24, "max_window_layers": 1},
    ),
    "qwen3": ("Qwen3ForCausalLM", "Qwen3Config", {**SIZES, "head_dim": 16}),
    "gemma2": ("Gemma2ForCausalLM", "Gemma2Config", {**SIZES, "head_dim": 16, "sliding_window": 24}),
    "gemma3": (
        "Gemma3ForCausalLM",
        "Gemma3TextConfig",
        {**SEVEN, "head_dim": 16, "sliding_window": 24, "query_pre_attn_scalar": 64}
        | {
            "rope_parameters": {
                "full_attention": LINEAR,
                "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
            }
        },
    ),
    "gpt2": (
        "GPT2LMHeadModel",
        "GPT2Config",
        {"vocab_size": 96, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64},
    ),
    "phi3": ("Phi3ForCausalLM", "Phi3Config", {**SIZES, "pad_token_id": 0, "sliding_window": 24}),
    "phi3 longrope": (
        "Phi3ForCausalLM",
        "Phi3Config",
        {**SIZES, "pad_token_id": 0, "original_max_position_embeddings": 64, "rope_parameters": LONGROPE},
    ),
    "bert": (
        "BertModel",
        "BertConfig",
        {key: SIZES[key] for key in SIZES if key != "num_key_value_heads"},
    ),
}
NAMES = {"llama 3": "llama", "llama biased": "llama", "llama tied": "llama", "mistral": "llama"}
NAMES |= {"qwen2 windows": "qwen2", "phi3 longrope": "phi3"}

Maker = Callable[..., tuple[Path, Any]]


@pytest.fixture
def make(tmp_path: Path) -> Maker:
    """make(case, **more) saves a seeded model as a folder; the folder and the model."""

    def save(case: str, **more: Any) -> tuple[Path, Any]:
        model_name, config_name, values = MODELS[case]
        torch.manual_seed(3)
        config = getattr(transformers, config_name)(
            **{**values, "eos_token_id": 2, "bos_token_id": 1, **more}
        )
        model = getattr(transformers, model_name)(config).eval()
        with torch.no_grad():
            for parameter in model.parameters():  # norms of all ones would hide a mistake
                parameter.add_(0.1 * torch.randn_like(parameter))
        model.save_pretrained(tmp_path)
        return tmp_path, model

    return save


def edit_json(path: Path, **changes: object) -> None:
    """Changes keys of a JSON file; None takes a key away."""
    values = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in values.items() if value is not None}))


def angles(rope: RopeConfig) -> np.ndarray:
    """The frequencies that a RopeConfig stands for."""
    plain = rope.theta ** (-np.arange(0, rope.width, 2) / rope.width)
    return plain / np.array(rope.divisors or (1.0,) * (rope.width // 2))


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


# The other files of a folder.


def test_tokens_and_generation(make: Maker) -> None:
    folder, _ = make("llama")
    generation = {"eos_token_id": [2, 5], "temperature": 0.6, "top_k": 50, "top_p": 0.9, "do_sample": True}
    (folder / "generation_config.json").write_text(json.dumps(generation))
    checkpoint = open_checkpoint(folder)
    assert checkpoint.generation == GenerationDefaults(temperature=0.6, top_k=50, top_p=0.9)
    assert checkpoint.config.end_tokens == (2, 5) and checkpoint.config.beginning_token == 1
    assert not checkpoint.config.add_beginning_token
    (folder / "tokenizer_config.json").write_text(json.dumps({"add_bos_token": True}))
    assert open_checkpoint(folder).config.add_beginning_token


def test_the_beginning_token_of_a_post_processor(make: Maker) -> None:
    folder, _ = make("llama")
    single = [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    processor: dict[str, object] = {"type": "TemplateProcessing", "single": single}
    path = folder / "tokenizer.json"
    for found in (processor, {"type": "Sequence", "processors": [{"type": "ByteLevel"}, processor]}):
        path.write_text(json.dumps({"added_tokens": [], "post_processor": found, "model": {}}))
        assert open_checkpoint(folder).config.add_beginning_token
    path.write_text(json.dumps({"post_processor": {**processor, "single": single[1:]}}))
    assert not open_checkpoint(folder).config.add_beginning_token


def test_chat_templates(make: Maker) -> None:
    folder, _ = make("llama")
    assert open_checkpoint(folder).chat_template is None
    several = [{"name": "tool_use", "template": "T"}, {"name": "default", "template": "D"}]
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": several}))
    assert open_checkpoint(folder).chat_template == "D"
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": "C"}))
    assert open_checkpoint(folder).chat_template == "C"
    (folder / "chat_template.jinja").write_text("J é")
    assert open_checkpoint(folder).chat_template == "J é"
    (folder / "chat_template.jinja").write_text("x" * ((1 << 20) + 1))
    with pytest.raises(FormatError, match="chat_template.jinja"):
        open_checkpoint(folder)


def test_licence_of_the_model_card(make: Maker) -> None:
    folder, _ = make("llama")
    (folder / "README.md").write_text("---\nlanguage:\n- en\nlicense: apache-2.0\n---\n# Model\n")
    assert open_checkpoint(folder).metadata["license"] == "apache-2.0"


POOLINGS: list[tuple[Mapping[str, object], str]] = [
    ({"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}, "mean"),
    ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
    ({"pooling_mode": "mean"}, "mean"),
    ({"pooling_mode": "cls"}, "cls"),
]


@pytest.mark.parametrize(("pooling", "expected"), POOLINGS)
@pytest.mark.parametrize("normalize", [True, False])
def test_sentence_transformers(
    make: Maker, pooling: Mapping[str, object], expected: str, normalize: bool
) -> None:
    folder, _ = make("bert")
    assert open_checkpoint(folder).config.pooling == "mean"
    names = ["Transformer", "Pooling", *(["Normalize"] if normalize else [])]
    modules = [
        {
            "idx": index,
            "path": f"{index}_{name}" if index else "",
            "type": f"sentence_transformers.models.{name}",
        }
        for index, name in enumerate(names)
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 48}))
    config = open_checkpoint(folder).config
    assert (config.pooling, config.normalize_embeddings) == (expected, normalize)
    assert (config.context_length, config.learned_positions) == (48, 128)
    modules[-1]["type"] = "sentence_transformers.models.Dense"
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(UnsupportedError, match="'Dense'; supported: Transformer, Pooling, Normalize"):
        open_checkpoint(folder)


def test_a_pooling_folder_outside_is_refused(make: Maker) -> None:
    folder, _ = make("bert")
    (folder / "modules.json").write_text(json.dumps([{"type": "Pooling", "path": "../elsewhere"}]))
    with pytest.raises(FormatError, match="no folder of this model"):
        open_checkpoint(folder)


# What is refused.


def test_code_in_the_folder_is_not_run(make: Maker, tmp_path: Path) -> None:
    folder, _ = make("llama")
    canary = tmp_path / "canary"
    (folder / "modeling_custom.py").write_text(f"open({str(canary)!r}, 'w')")
    (folder / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'touch " + bytes(canary) + b"'\ntR.")
    edit_json(folder / "config.json", auto_map={"AutoModelForCausalLM": "modeling_custom.Model"})
    assert open_checkpoint(folder).config.architecture == "llama"
    assert not canary.exists()


def test_only_a_pickle(make: Maker) -> None:
    folder, _ = make("llama")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(UnsupportedError, match="only pytorch_model.bin, a pickle"):
        open_checkpoint(folder)
    (folder / "pytorch_model.bin").unlink()
    with pytest.raises(UnsupportedError, match="neither model.safetensors nor"):
        open_checkpoint(folder)


def test_a_folder_that_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "some.gguf").touch()
    with pytest.raises(FormatError, match=r"no config.json.*some.gguf"):
        open_checkpoint(tmp_path)


UNSUPPORTED: dict[str, tuple[dict[str, object], str]] = {
    "architecture": ({"model_type": "mamba"}, "'mamba' is not supported; supported: llama"),
    "quantization": ({"quantization_config": {"quant_method": "gptq"}}, "quantized by gptq"),
    "activation": ({"hidden_act": "relu"}, "hidden_act 'relu'; supported: silu"),
    "rope": (
        {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4}},
        "rope_type 'dynamic'; supported",
    ),
    "bidirectional": ({"use_bidirectional_attention": True}, "use_bidirectional_attention: true"),
}
DAMAGED: dict[str, tuple[dict[str, object], str]] = {
    "no size": ({"hidden_size": None}, "hidden_size: is missing"),
    "a size too small": ({"hidden_size": 16}, "tensor .* has the shape"),
    "a layer too many": ({"num_hidden_layers": 3}, "tensor blk.2.* is missing"),
    "a layer too few": ({"num_hidden_layers": 1}, "layers.1.* is not known|blk.1.* is not known"),
    "tokens that are text": ({"eos_token_id": "2"}, "token id"),
    "text for a number": ({"rms_norm_eps": "1e-5"}, "rms_norm_eps"),
    "rope factor missing": (
        {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4}},
        "factor: is missing",
    ),
    "head and all that is in it": ({"tie_word_embeddings": "no"}, "tie_word_embeddings"),
}


@pytest.mark.parametrize("case", UNSUPPORTED)
def test_what_is_not_supported_is_named(make: Maker, case: str) -> None:
    folder, _ = make("llama")
    changes, message = UNSUPPORTED[case]
    edit_json(folder / "config.json", **changes)
    with pytest.raises(UnsupportedError, match=message):
        open_checkpoint(folder)


@pytest.mark.parametrize("case", DAMAGED)
def test_damage_is_named(make: Maker, case: str) -> None:
    folder, _ = make("llama")
    changes, message = DAMAGED[case]
    edit_json(folder / "config.json", **changes)
    with pytest.raises(FormatError, match=message):
        open_checkpoint(folder)


def test_untied_models_need_their_head(make: Maker) -> None:
    folder, _ = make("llama tied")
    edit_json(folder / "config.json", tie_word_embeddings=False)
    with pytest.raises(FormatError, match="tensor output.weight is missing"):
        open_checkpoint(folder)
