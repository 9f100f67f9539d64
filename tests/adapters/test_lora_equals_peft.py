"""LoRA beside PEFT: the same logits, gradients and losses from the same numbers, and files both ways."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_bases import save_base

from octavo.adapters.base import Adapters, build_adapted
from octavo.adapters.files import save_adapter
from octavo.layers import byte_product
from octavo.models.gpt import GPT
from octavo.weights.adapter import AdapterConfig, read_adapter
from octavo.weights.architectures import huggingface_module
from octavo.weights.checkpoint import open_checkpoint

peft = pytest.importorskip("peft")

ALL = {"gpt2": ["c_attn", "c_proj", "c_fc"]}
LLAMA = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
PATTERN = {"llama": "layers.0.self_attn.q_proj", "gpt2": "h.0.attn.c_attn"}
VARIANTS: dict[str, dict[str, Any]] = {
    "lora": {},
    "rslora": {"use_rslora": True},
    "dora": {"use_dora": True},
    "patterns": {"rank_pattern": {PATTERN["llama"]: 2}, "alpha_pattern": {"v_proj": 32}},
}


def peft_model(base: Any, kind: str, **options: Any) -> Any:
    """A PEFT model whose pairs are not zero."""
    config = peft.LoraConfig(
        r=4, lora_alpha=8, target_modules=ALL.get(kind, LLAMA), task_type="CAUSAL_LM",
        fan_in_fan_out=kind == "gpt2", **options,
    )  # fmt: skip
    torch.manual_seed(3)
    model = peft.get_peft_model(base, config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    return model


def ours(folder: Path, adapter: Path, **options: Any) -> tuple[GPT, Adapters]:
    """The same adapter over the same base, here."""
    checkpoint = open_checkpoint(folder)
    read = read_adapter(adapter, checkpoint.config)
    return build_adapted(checkpoint.config, checkpoint.tensors, read.config, initial=read, **options)


def tokens() -> torch.Tensor:
    return torch.randint(0, 96, (3, 17), generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3", "gpt2"])
def test_logits_and_gradients_equal_peft(kind: str, variant: str, tmp_path: Path) -> None:
    options = VARIANTS[variant]
    if kind == "gpt2" and variant == "patterns":
        options = {"rank_pattern": {"h.0.attn.c_attn": 2}, "alpha_pattern": {"mlp.c_proj": 32}}
    theirs = peft_model(save_base(kind, tmp_path / "base"), kind, **options)
    theirs.save_pretrained(tmp_path / "adapter")
    model, adapters = ours(tmp_path / "base", tmp_path / "adapter")
    inputs = tokens()
    expected, found = theirs(inputs).logits, model(inputs)
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)
    expected.square().mean().backward()
    found.square().mean().backward()
    gradients = {name: each.grad for name, each in theirs.named_parameters() if each.requires_grad}
    seen = 0
    for name, pair in adapters.pairs.items():
        path = f"base_model.model.{huggingface_module(kind, name)}"
        for part, parameter in (("lora_A", pair.down), ("lora_B", pair.up)):
            reference = gradients[f"{path}.{part}.default.weight"]
            assert (parameter.grad - reference).norm() <= 1e-4 * reference.norm()
            seen += 1
        if pair.magnitude is not None:
            reference = gradients[f"{path}.lora_magnitude_vector.default.weight"]
            assert (pair.magnitude.grad - reference).norm() <= 1e-4 * reference.norm()
            seen += 1
    assert seen == len(gradients)
    trained = {id(each) for each in adapters.parameters()}
    assert all(id(each) in trained for each in model.parameters() if each.requires_grad)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_peft_loads_our_files(kind: str, variant: str, tmp_path: Path) -> None:
    base = save_base(kind, tmp_path / "base")
    checkpoint = open_checkpoint(tmp_path / "base")
    config = AdapterConfig(
        rank=4, alpha=8, rank_stabilized=variant == "rslora", decomposed=variant == "dora",
        rank_patterns={PATTERN[kind]: 2} if variant == "patterns" else {},
    )  # fmt: skip
    model, adapters = build_adapted(checkpoint.config, checkpoint.tensors, config, seed=1)
    with torch.no_grad():
        for pair in adapters.pairs.values():
            pair.up.normal_(std=0.1)
    save_adapter(adapters, tmp_path / "adapter")
    theirs = peft.PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
    torch.testing.assert_close(model(tokens()), theirs(tokens()).logits, atol=2e-5, rtol=1e-4)
    again = read_adapter(tmp_path / "adapter", checkpoint.config)
    for name, pair in adapters.pairs.items():
        np.testing.assert_array_equal(again.pairs[name].down, pair.down.detach().numpy())
        np.testing.assert_array_equal(again.pairs[name].up, pair.up.detach().numpy())


def test_whole_modules_are_trained_and_written(tmp_path: Path) -> None:
    base = save_base("qwen3", tmp_path / "base")
    theirs = peft_model(base, "qwen3", modules_to_save=["lm_head"])
    with torch.no_grad():
        theirs.base_model.model.lm_head.modules_to_save["default"].weight.mul_(1.5)
    theirs.save_pretrained(tmp_path / "adapter")
    model, adapters = ours(tmp_path / "base", tmp_path / "adapter")
    torch.testing.assert_close(model(tokens()), theirs(tokens()).logits, atol=2e-5, rtol=1e-4)
    model(tokens()).square().mean().backward()
    assert adapters.saved["output.weight"].grad is not None
    save_adapter(adapters, tmp_path / "again")
    fresh = save_base("qwen3", tmp_path / "base")
    loaded = peft.PeftModel.from_pretrained(fresh, tmp_path / "again").eval()
    torch.testing.assert_close(model(tokens()), loaded(tokens()).logits, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("variant", ["lora", "rslora", "dora"])
def test_losses_follow_peft_for_a_hundred_steps(variant: str, tmp_path: Path) -> None:
    theirs = peft_model(save_base("llama", tmp_path / "base"), "llama", **VARIANTS[variant])
    theirs.save_pretrained(tmp_path / "adapter")
    model, adapters = ours(tmp_path / "base", tmp_path / "adapter")
    expected = losses(lambda x: theirs(x).logits, theirs.parameters())
    found = losses(model, adapters.parameters())
    assert found[-1] < 0.9 * found[0]
    np.testing.assert_allclose(found, expected, rtol=0.01)


def losses(forward: Any, parameters: Any) -> list[float]:
    """Of a hundred steps on one batch."""
    # At 1e-3 this one batch has spikes, in which Adam makes a rounding's difference into per cents.
    optimizer = torch.optim.AdamW([each for each in parameters if each.requires_grad], lr=3e-4)
    inputs, found = tokens(), []
    for _ in range(100):
        logits = forward(inputs)[:, :-1].flatten(0, 1)
        loss = torch.nn.functional.cross_entropy(logits, inputs[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append(float(loss.detach()))
    return found


@pytest.mark.filterwarnings("ignore")
def test_qlora_follows_peft_over_bitsandbytes(tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    import transformers

    save_base("llama", tmp_path / "base")
    quantized = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "base",
        dtype=torch.float32,
        quantization_config=transformers.BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.float32,
        ),
    )  # fmt: skip
    theirs = peft_model(quantized, "llama")
    theirs.save_pretrained(tmp_path / "adapter")
    theirs.train()  # without it bitsandbytes multiplies in bfloat16 on some processors, whatever it is told
    model, adapters = ours(tmp_path / "base", tmp_path / "adapter", method="qlora")
    torch.testing.assert_close(model(tokens()), theirs(tokens()).logits, atol=1e-4, rtol=1e-3)
    theirs(tokens()).logits.square().mean().backward()
    model(tokens()).square().mean().backward()
    gradients = {name: each.grad for name, each in theirs.named_parameters() if each.requires_grad}
    for name, pair in adapters.pairs.items():
        path = f"base_model.model.{huggingface_module('llama', name)}"
        for part, parameter in (("lora_A", pair.down), ("lora_B", pair.up)):
            reference = gradients[f"{path}.{part}.default.weight"]
            assert (parameter.grad - reference).norm() <= 1e-4 * reference.norm()
    expected = losses(lambda x: theirs(x).logits, theirs.parameters())
    found = losses(model, adapters.parameters())
    assert found[-1] < 0.9 * found[0]
    np.testing.assert_allclose(found, expected, rtol=0.01)


def test_bfloat16_follows_float32(tmp_path: Path) -> None:
    peft_model(save_base("llama", tmp_path / "base"), "llama").save_pretrained(tmp_path / "adapter")
    exact, _ = ours(tmp_path / "base", tmp_path / "adapter")
    model, adapters = ours(tmp_path / "base", tmp_path / "adapter", dtype=torch.bfloat16)
    expected, found = exact(tokens()), model(tokens()).float()
    assert (found - expected).norm() < 0.03 * expected.norm()
    assert all(parameter.dtype == torch.float32 for parameter in adapters.parameters())
    frozen = [each for each in model.parameters() if not each.requires_grad]
    assert all(each.grad is None for each in frozen)


@pytest.mark.skipif(not byte_product.available(), reason="this processor's kernels multiply no bytes")
@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_losses_in_bytes_follow_those_in_float32(method: str, tmp_path: Path) -> None:
    """As near as in bfloat16 alone: 1 % over a hundred steps."""
    peft_model(save_base("llama", tmp_path / "base"), "llama").save_pretrained(tmp_path / "adapter")
    exact, exact_adapters = ours(tmp_path / "base", tmp_path / "adapter", method=method)
    options = {"method": method, "dtype": torch.bfloat16, "in_bytes": True}
    model, adapters = ours(tmp_path / "base", tmp_path / "adapter", **options)
    layer = model.blocks[0].feed_forward.down
    assert layer.frozen.kept is not None  # the kernel that this is about
    expected = losses(exact, exact_adapters.parameters())
    found = losses(lambda x: model(x).float(), adapters.parameters())
    assert found[-1] < 0.9 * found[0]
    np.testing.assert_allclose(found, expected, rtol=0.01)


def test_dropout_is_only_in_training(tmp_path: Path) -> None:
    save_base("llama", tmp_path)
    checkpoint = open_checkpoint(tmp_path)
    config = AdapterConfig(rank=4, dropout=0.5)
    model, adapters = build_adapted(checkpoint.config, checkpoint.tensors, config)
    with torch.no_grad():
        for pair in adapters.pairs.values():
            pair.up.normal_()
    model.train()
    assert not torch.equal(model(tokens()), model(tokens()))
    model(tokens()).mean().backward()
    model.eval()
    assert torch.equal(model(tokens()), model(tokens()))
    none, _ = build_adapted(checkpoint.config, checkpoint.tensors, replace(config, dropout=0.0))
    assert not torch.equal(none(tokens()), model(tokens()))
