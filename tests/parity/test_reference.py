"""The readable models against transformers, on tiny seeded models of every architecture."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from octavo.model_config import ModelConfig, RopeConfig  # noqa: E402
from octavo.models.bert import BERT  # noqa: E402
from octavo.models.gpt import GPT  # noqa: E402
from octavo.models.loading import build_model  # noqa: E402

DECODERS = (
    *("llama", "llama3", "llama-biases", "mistral", "qwen2", "qwen3"),
    *("gemma2", "gemma3", "phi3", "phi3-longrope", "gpt2"),
)
# Both are float32 and sum in other orders; logits here are of the order of 1 to 10.
TOLERANCE = 5e-5

Make = Callable[[str], Any]
ToGguf = Callable[[Any, str], dict[str, Any]]


def tokens(sequences: int = 2, length: int = 60) -> Any:
    return torch.randint(0, 96, (sequences, length), generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("name", DECODERS)
@torch.inference_mode()
def test_decoder_logits_equal_transformers(
    name: str, architectures: Mapping[str, Any], transformers_model: Make, to_gguf: ToGguf
) -> None:
    theirs = transformers_model(name)
    ours = build_model(architectures[name].config, to_gguf(theirs, name))
    assert isinstance(ours, GPT)
    expected = theirs(tokens()).logits
    assert expected.std() > 0.5  # else the tolerance below would say nothing
    assert (ours(tokens()) - expected).abs().max() < TOLERANCE


@torch.inference_mode()
def test_encoder_states_and_embeddings_equal_transformers(
    architectures: Mapping[str, Any], transformers_model: Make, to_gguf: ToGguf
) -> None:
    theirs = transformers_model("bert")
    config = architectures["bert"].config
    ours = build_model(config, to_gguf(theirs, "bert"))
    assert isinstance(ours, BERT)
    lengths = torch.tensor([60, 17])
    present = torch.arange(60)[None, :] < lengths[:, None]
    expected = theirs(tokens(), attention_mask=present.long()).last_hidden_state
    assert (ours(tokens(), present) - expected)[present].abs().max() < TOLERANCE

    mean = torch.stack([expected[row, :length].mean(dim=0) for row, length in enumerate(lengths)])
    mean = mean / mean.norm(dim=-1, keepdim=True)
    assert (ours.embed(tokens(), present) - mean).abs().max() < TOLERANCE
    alone = ours.embed(tokens()[1:, :17])
    assert (ours.embed(tokens(), present)[1:] - alone).abs().max() < TOLERANCE

    first = build_model(replace(config, pooling="cls", normalize_embeddings=False), to_gguf(theirs, "bert"))
    assert isinstance(first, BERT)
    assert (first.embed(tokens(), present) - expected[:, 0]).abs().max() < TOLERANCE


@pytest.mark.parametrize("name", [*DECODERS, "bert"])
@torch.inference_mode()
def test_saved_folder_gives_the_same_logits(
    name: str, tmp_path: Path, architectures: Mapping[str, Any], transformers_model: Make
) -> None:
    checkpoint_module = pytest.importorskip("octavo.weights.checkpoint")
    theirs = transformers_model(name)
    theirs.save_pretrained(tmp_path)
    checkpoint = checkpoint_module.open_checkpoint(tmp_path)
    ours = build_model(checkpoint.config, {key: tensor.numpy() for key, tensor in checkpoint.tensors.items()})
    output = theirs(tokens())
    expected = output.last_hidden_state if name == "bert" else output.logits
    assert (ours(tokens()) - expected).abs().max() < TOLERANCE


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("mistral", {"windows": (15, 16)}),
        ("gemma2", {"attention_softcap": 2.1}),
        ("gemma2", {"logit_softcap": 31.0}),
        ("gemma2", {"norm_offset": 0.99}),
        ("gemma3", {"window_rope": None}),
        ("gemma3", {"embedding_scale": 5.6}),
        ("qwen3", {"norm_epsilon": 1e-2}),
        ("llama", {"attention_scale": 0.35}),
        ("llama", {"rope": RopeConfig(10000.0, 8, style="interleaved")}),
        ("llama", {"rope": RopeConfig(10000.0, 6)}),
        ("phi3-longrope", {"rope": RopeConfig(10000.0, 4, divisors=(1.5, 3.0))}),
        ("gpt2", {"activation": "gelu"}),
    ],
)
@torch.inference_mode()
def test_every_value_of_the_config_matters(
    name: str,
    change: Mapping[str, Any],
    architectures: Mapping[str, Any],
    transformers_model: Make,
    to_gguf: ToGguf,
) -> None:
    """Guards the tests above: were a value ignored, or the tiny models blind to it, this would fail."""
    tensors = to_gguf(transformers_model(name), name)
    config = architectures[name].config
    assert set(change) <= {field.name for field in fields(ModelConfig)}
    changed = build_model(replace(config, **change), tensors)
    difference = build_model(config, tensors)(tokens()) - changed(tokens())
    assert difference.abs().max() > 10 * TOLERANCE


@torch.inference_mode()
def test_interleaved_rope_with_permuted_weights_is_the_same_model(
    architectures: Mapping[str, Any], transformers_model: Make, to_gguf: ToGguf
) -> None:
    """GGUF's llama files permute the rows of q and k so that each rotated pair is adjacent."""
    config = architectures["llama"].config
    tensors = to_gguf(transformers_model("llama"), "llama")
    permuted = dict(tensors)
    for layer in range(config.layers):
        for name in ("attn_q", "attn_k"):
            weight = tensors[f"blk.{layer}.{name}.weight"]
            halves = weight.reshape(-1, 2, config.head_width // 2, config.hidden_size)
            permuted[f"blk.{layer}.{name}.weight"] = np.swapaxes(halves, 1, 2).reshape(weight.shape)
    interleaved = replace(config, rope=replace(config.rope, style="interleaved"))
    difference = build_model(config, tensors)(tokens()) - build_model(interleaved, permuted)(tokens())
    assert difference.abs().max() < TOLERANCE


REAL_TEXT = "The tower is 324 metres tall, about the same height as an 81-storey building. " * 20


@pytest.mark.real
@pytest.mark.parametrize("stem", ["SmolLM2-135M-Instruct.Q4_1", "gemma3-270m.Q4_K_M"])
@torch.inference_mode()
def test_real_models_equal_transformers_on_the_same_file(stem: str) -> None:
    """Each dequantizes the GGUF file with its own reader; transformers undoes the permutation of llama."""
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate", reason="transformers reads GGUF files with it")
    checkpoint_module = pytest.importorskip("octavo.weights.checkpoint")
    folder = Path(os.environ.get("OCTAVO_TEST_MODELS", "~/.cache/octavo-models")).expanduser()
    path = folder / f"{stem}.gguf"
    if not path.exists():
        pytest.skip(f"{path} is not there: set OCTAVO_TEST_MODELS to the folder of real models")
    checkpoint = checkpoint_module.open_checkpoint(path)
    ids = checkpoint.tokenizer().encode(REAL_TEXT, add_special=True)[:300]
    assert len(ids) == 300
    tensors = {name: tensor.numpy() for name, tensor in checkpoint.tensors.items()}
    ours = build_model(checkpoint.config, tensors)(torch.tensor([ids]))
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, gguf_file=path.name, dtype=torch.float32, local_files_only=True
    )
    theirs = model.eval()(torch.tensor([ids])).logits
    assert (ours - theirs).abs().max() < 1e-3  # logits of up to 30, after 18 to 30 layers of float32
    assert torch.equal(ours.argmax(dim=-1), theirs.argmax(dim=-1))
