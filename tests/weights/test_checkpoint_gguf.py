"""GGUF models of every architecture: the configuration they become, and what makes them refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny_models import CONTEXT, HEAD, HEADS, HIDDEN, KEY_VALUE_HEADS, VOCABULARY, TinyGguf, random_tensor

from octavo.errors import FormatError, ModelNotFoundError, UnsupportedError
from octavo.model_config import ARCHITECTURES, RopeConfig
from octavo.weights.checkpoint import GenerationDefaults, open_checkpoint
from octavo.weights.gguf_config import _attention_scale
from octavo.weights.tensor import Tensor, TensorType
from octavo.weights.untrusted import Fields


def factors(name: str, values: list[float]) -> Tensor:
    return Tensor(name, TensorType.F32, (len(values),), np.array(values, np.float32).view(np.uint8))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_opens(tiny_gguf: TinyGguf, architecture: str) -> None:
    checkpoint = open_checkpoint(tiny_gguf(architecture))
    config = checkpoint.config
    assert config.architecture == architecture
    assert (config.vocabulary_size, config.context_length) == (VOCABULARY, CONTEXT)
    assert (config.hidden_size, config.layers, config.head_width) == (HIDDEN, 2, HEAD)
    assert (config.heads, config.key_value_heads) == (HEADS, KEY_VALUE_HEADS)
    assert config.norm_epsilon == pytest.approx(1e-5)
    assert config.norm_offset == 0.0  # GGUF's gemma weights have their 1 already
    assert config.attention_scale == HEAD**-0.5
    assert config.tied_embeddings
    assert config.is_encoder == (architecture == "bert")
    assert checkpoint.metadata["name"] == "Tiny" and checkpoint.metadata["license"] == "apache-2.0"
    assert checkpoint.chat_template == "{{ messages }}"
    assert checkpoint.generation == GenerationDefaults()
    assert checkpoint.tensors["token_embd.weight"].numpy().shape == (VOCABULARY, HIDDEN)


EXPECTED: dict[str, dict[str, object]] = {
    "llama": {"norm": "rms", "activation": "silu", "gated": True, "query_key_norm": False, "windows": ()},
    "qwen2": {"norm_position": "pre", "embedding_scale": 1.0, "windows": ()},
    "qwen3": {"query_key_norm": True},
    "gemma2": {
        "norm_position": "both",
        "activation": "gelu_tanh",
        "windows": (32, 0),
        "window_rope": None,
        "embedding_scale": 8.0,
        "attention_softcap": 50.0,
        "logit_softcap": 30.0,
        "query_key_norm": False,
    },
    "gemma3": {
        "norm_position": "both",
        "activation": "gelu_tanh",
        "windows": (32, 32),
        "window_rope": RopeConfig(theta=10_000.0, width=HEAD),
        "rope": RopeConfig(theta=1e6, width=HEAD),
        "embedding_scale": 8.0,
        "attention_softcap": 0.0,
        "logit_softcap": 0.0,
        "query_key_norm": True,
    },
    "gpt2": {
        "norm": "layer",
        "gated": False,
        "rope": None,
        "learned_positions": CONTEXT,
        "activation": "gelu_tanh",
    },
    "phi3": {"activation": "silu", "gated": True, "windows": ()},
    "bert": {
        "norm": "layer",
        "norm_position": "post",
        "activation": "gelu",
        "gated": False,
        "rope": None,
        "learned_positions": CONTEXT,
        "token_types": 2,
        "causal": False,
        "embedding_norm": True,
        "pooling": "mean",
        "normalize_embeddings": True,
    },
}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_has_its_choices(tiny_gguf: TinyGguf, architecture: str) -> None:
    config = open_checkpoint(tiny_gguf(architecture)).config
    assert {name: getattr(config, name) for name in EXPECTED[architecture]} == EXPECTED[architecture]
    if config.rope is not None:
        assert config.rope.style == ("interleaved" if architecture == "llama" else "half")


def test_special_tokens(tiny_gguf: TinyGguf) -> None:
    config = open_checkpoint(tiny_gguf("llama", {"tokenizer.ggml.eot_token_id": 7})).config
    assert config.beginning_token == 0 and config.add_beginning_token
    assert config.end_tokens == (1, 2, 7)  # the named ends, and <|im_end|>, a control token that ends a turn
    plain = np.ones(VOCABULARY, np.int32)
    config = open_checkpoint(tiny_gguf("llama", {"tokenizer.ggml.token_type": plain})).config
    assert config.end_tokens == (1,)
    config = open_checkpoint(tiny_gguf("llama", {"tokenizer.ggml.add_bos_token": None})).config
    assert not config.add_beginning_token
    values = {"tokenizer.ggml.add_bos_token": None, "tokenizer.ggml.model": "llama"}
    assert open_checkpoint(tiny_gguf("llama", values)).config.add_beginning_token


def test_output_makes_the_embeddings_untied(tiny_gguf: TinyGguf) -> None:
    output = random_tensor("output.weight", (VOCABULARY, HIDDEN), TensorType.Q4_0)
    checkpoint = open_checkpoint(tiny_gguf("qwen2", tensors={"output.weight": output}))
    assert not checkpoint.config.tied_embeddings and "output.weight" in checkpoint.tensors


def test_optional_biases_of_llama(tiny_gguf: TinyGguf) -> None:
    bias = random_tensor("blk.1.attn_q.bias", (HEADS * HEAD,))
    assert bias.name in open_checkpoint(tiny_gguf("llama", tensors={bias.name: bias})).tensors
    wrong = random_tensor(bias.name, (HEADS * HEAD + 1,))
    with pytest.raises(FormatError, match=r"blk.1.attn_q.bias has the shape \(65,\), and not \(64,\)"):
        open_checkpoint(tiny_gguf("llama", tensors={bias.name: wrong}))


# Rotary embeddings.


def rope_of(path: Path) -> RopeConfig:
    rope = open_checkpoint(path).config.rope
    assert rope is not None
    return rope


def test_rope_width_and_theta(tiny_gguf: TinyGguf) -> None:
    values = {"llama.rope.dimension_count": 8, "llama.rope.freq_base": 5e5}
    assert rope_of(tiny_gguf("llama", values)) == RopeConfig(theta=5e5, width=8, style="interleaved")


def test_llama3_factors_are_a_tensor(tiny_gguf: TinyGguf) -> None:
    values = [1.0, 1.0, 1.5, 2.0, 4.0, 8.0, 8.0, 8.0]
    path = tiny_gguf("llama", tensors={"rope_freqs.weight": factors("rope_freqs.weight", values)})
    assert rope_of(path).divisors == tuple(values)
    assert "rope_freqs.weight" not in open_checkpoint(path).tensors  # the configuration has it


@pytest.mark.parametrize("values", [[1.0] * 7, [1.0] * 7 + [0.0], [1.0] * 7 + [float("nan")], [-1.0] * 8])
def test_bad_factors_are_refused(tiny_gguf: TinyGguf, values: list[float]) -> None:
    path = tiny_gguf("llama", tensors={"rope_freqs.weight": factors("rope_freqs.weight", values)})
    with pytest.raises(FormatError, match="rope_freqs.weight"):
        open_checkpoint(path)


def test_linear_scaling(tiny_gguf: TinyGguf) -> None:
    values = {"gemma3.rope.scaling.type": "linear", "gemma3.rope.scaling.factor": 8.0}
    config = open_checkpoint(tiny_gguf("gemma3", values)).config
    assert config.rope is not None and config.rope.divisors == (8.0,) * (HEAD // 2)
    assert config.window_rope is not None and config.window_rope.divisors == ()


def test_yarn_scaling(tiny_gguf: TinyGguf) -> None:
    values = {
        "qwen2.rope.scaling.type": "yarn",
        "qwen2.rope.scaling.factor": 4.0,
        "qwen2.rope.scaling.original_context_length": 64,
    }
    rope = rope_of(tiny_gguf("qwen2", values))
    assert rope.divisors[0] == 1.0 and rope.divisors[-1] == pytest.approx(4.0)
    assert rope.attention_factor == pytest.approx(0.1 * np.log(4) + 1)


def test_longrope_takes_the_short_factors_for_the_original_context(tiny_gguf: TinyGguf) -> None:
    path = tiny_gguf(
        "phi3",
        {"phi3.rope.scaling.original_context_length": 32, "phi3.rope.scaling.attn_factor": 1.25},
        {
            "rope_factors_short.weight": factors("rope_factors_short.weight", [1.5] * 8),
            "rope_factors_long.weight": factors("rope_factors_long.weight", [3.0] * 8),
        },
    )
    config = open_checkpoint(path).config
    assert config.context_length == 32
    assert config.rope == RopeConfig(theta=10_000.0, width=HEAD, divisors=(1.5,) * 8, attention_factor=1.25)
    config = open_checkpoint(path, long_context=True).config
    assert config.context_length == CONTEXT
    assert config.rope is not None and config.rope.divisors == (3.0,) * 8


def test_unknown_scaling_is_refused(tiny_gguf: TinyGguf) -> None:
    values = {"llama.rope.scaling.type": "spiral", "llama.rope.scaling.factor": 2.0}
    with pytest.raises(UnsupportedError, match="rope.scaling.type 'spiral'; supported: none, linear"):
        open_checkpoint(tiny_gguf("llama", values))


# Windows and scales.


def test_window_patterns(tiny_gguf: TinyGguf) -> None:
    key = "gemma3.attention.sliding_window_pattern"
    assert open_checkpoint(tiny_gguf("gemma3", {key: 2})).config.windows == (32, 0)
    assert open_checkpoint(tiny_gguf("gemma3", {key: [False, True]})).config.windows == (0, 32)
    assert open_checkpoint(tiny_gguf("llama", {"llama.attention.sliding_window": 16})).config.windows == (
        16,
        16,
    )
    with pytest.raises(FormatError, match=key):
        open_checkpoint(tiny_gguf("gemma3", {key: [True]}))


def test_a_window_as_long_as_the_context_is_none(tiny_gguf: TinyGguf) -> None:
    config = open_checkpoint(tiny_gguf("phi3", {"phi3.attention.sliding_window": 262_144})).config
    assert config.windows == ()
    # Gemma 3's windows also say which layers have the local rope, so they stay.
    config = open_checkpoint(tiny_gguf("gemma3", {"gemma3.attention.sliding_window": 4096})).config
    assert config.windows == (4096, 4096)


def test_attention_scale_of_the_file_wins(tiny_gguf: TinyGguf) -> None:
    config = open_checkpoint(tiny_gguf("llama", {"llama.attention.scale": 0.5})).config
    assert config.attention_scale == 0.5


@pytest.mark.parametrize(("architecture", "layers"), [("gemma2", 46), ("gemma3", 62)])
def test_attention_scale_of_the_27b_models(architecture: str, layers: int) -> None:
    nothing = Fields({}, "file")
    assert _attention_scale(nothing, architecture, layers, 128, 144.0) == 144**-0.5
    assert _attention_scale(nothing, architecture, layers - 1, 128, 144.0) == 128**-0.5


def test_sampling_defaults(tiny_gguf: TinyGguf) -> None:
    values = {"general.sampling.temp": 0.5, "general.sampling.top_k": 20, "general.sampling.top_p": 0.75}
    found = open_checkpoint(tiny_gguf("llama", values)).generation
    assert found == GenerationDefaults(temperature=0.5, top_k=20, top_p=0.75)


# What is refused.

BAD_METADATA: dict[str, tuple[dict[str, object], str]] = {
    "no architecture": ({"general.architecture": None}, "general.architecture: is missing"),
    "no layers": ({"llama.block_count": None}, "llama.block_count: is missing"),
    "0 layers": ({"llama.block_count": 0}, "llama.block_count: is 0"),
    "a billion layers": ({"llama.block_count": 1 << 30}, "llama.block_count"),
    "more layers than tensors": ({"llama.block_count": 3}, "tensor blk.2.* is missing"),
    "fewer layers than tensors": ({"llama.block_count": 1}, "tensor blk.1.* is not known"),
    "heads not shared": ({"llama.attention.head_count_kv": 3}, "3 key-value heads do not divide 4"),
    "no heads": ({"llama.attention.head_count": 0}, "llama.attention.head_count"),
    "more heads than numbers": ({"llama.attention.head_count": 512}, "512 attention heads"),
    "text for a number": ({"llama.embedding_length": "64"}, "llama.embedding_length"),
    "a truth value for a number": ({"llama.embedding_length": True}, "llama.embedding_length"),
    "epsilon not a number": ({"llama.attention.layer_norm_rms_epsilon": float("nan")}, "rms_epsilon"),
    "theta negative": ({"llama.rope.freq_base": -1.0}, "rope.freq_base"),
    "rope wider than the head": ({"llama.rope.dimension_count": 32}, "rope width: 32"),
    "rope of odd width": ({"llama.rope.dimension_count": 7}, "rope width: 7"),
    "too few tokens": ({"tokenizer.ggml.tokens": ["a"]}, "tokenizer.ggml.tokens: are not 40"),
    "an end beyond the vocabulary": (
        {"tokenizer.ggml.eos_token_id": 40},
        "tokenizer.ggml.eos_token_id: is 40",
    ),
    "a template that is no text": ({"tokenizer.chat_template": 5}, "tokenizer.chat_template"),
}


@pytest.mark.parametrize("case", BAD_METADATA)
def test_bad_metadata_is_named(tiny_gguf: TinyGguf, case: str) -> None:
    metadata, message = BAD_METADATA[case]
    with pytest.raises(FormatError, match=message):
        open_checkpoint(tiny_gguf("llama", metadata))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_missing_tensor_is_named(tiny_gguf: TinyGguf, architecture: str) -> None:
    for name in open_checkpoint(tiny_gguf(architecture)).tensors:
        if name == "token_types.weight":
            continue  # the number of its rows is the configuration's
        path = tiny_gguf(architecture, tensors={name: None})
        with pytest.raises(FormatError, match=f"tensor {name}:? is missing"):
            open_checkpoint(path)


@pytest.mark.parametrize("architecture", ["llama", "phi3", "gpt2", "bert"])
def test_every_misshapen_tensor_is_named(tiny_gguf: TinyGguf, architecture: str) -> None:
    for name, tensor in open_checkpoint(tiny_gguf(architecture)).tensors.items():
        if name in ("token_types.weight", "token_embd.weight"):
            continue
        wrong = random_tensor(name, (tensor.shape[0] + 32, *tensor.shape[1:]))
        with pytest.raises(FormatError, match=f"{name} has the shape"):
            open_checkpoint(tiny_gguf(architecture, tensors={name: wrong}))


def test_an_unknown_tensor_is_refused(tiny_gguf: TinyGguf) -> None:
    extra = random_tensor("blk.0.attn_sinks.weight", (4,))
    with pytest.raises(FormatError, match=r"blk.0.attn_sinks.weight is not known"):
        open_checkpoint(tiny_gguf("llama", tensors={extra.name: extra}))


UNSUPPORTED: dict[str, tuple[dict[str, object], str]] = {
    "architecture": ({"general.architecture": "mamba"}, "'mamba' is not supported; supported: llama, qwen2"),
    "experts": ({"llama.expert_count": 8}, "mixture of experts"),
    "layers that differ": (
        {"llama.attention.head_count_kv": np.array([1, 2], np.int32)},
        "head_count_kv: layers of different sizes",
    ),
    "values of another width": ({"llama.attention.value_length": 8}, "differ in width"),
}


@pytest.mark.parametrize("case", UNSUPPORTED)
def test_what_is_not_supported_is_named(tiny_gguf: TinyGguf, case: str) -> None:
    metadata, message = UNSUPPORTED[case]
    with pytest.raises(UnsupportedError, match=message):
        open_checkpoint(tiny_gguf("llama", metadata))


def test_sizes_given_for_each_layer_may_be_equal(tiny_gguf: TinyGguf) -> None:
    values = {"llama.attention.head_count_kv": np.array([2, 2], np.int32)}
    assert open_checkpoint(tiny_gguf("llama", values)).config.key_value_heads == 2


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="absent.gguf: no such file"):
        open_checkpoint(tmp_path / "absent.gguf")


def test_torch_is_not_imported(tiny_gguf: TinyGguf) -> None:
    path = tiny_gguf("llama")
    program = (
        "import sys, pathlib; from octavo.weights.checkpoint import open_checkpoint; "
        f"open_checkpoint(pathlib.Path({str(path)!r})).tensors['token_embd.weight'].numpy(); "
        "print([name for name in ('torch', 'transformers', 'safetensors', 'gguf') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
