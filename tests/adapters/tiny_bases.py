"""Tiny seeded models of transformers in folders, as bases for adapters."""

from __future__ import annotations

from pathlib import Path

import torch
import transformers

SIZES = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 96}


def save_base(kind: str, folder: Path) -> transformers.PreTrainedModel:
    """A float32 model of the kind, saved into the folder; the same each time."""
    torch.manual_seed(7)
    if kind == "gpt2":
        config = transformers.GPT2Config(
            n_embd=64,
            n_layer=2,
            n_head=4,
            vocab_size=96,
            n_positions=64,
            resid_pdrop=0,
            embd_pdrop=0,
            attn_pdrop=0,
        )
    else:
        make = {
            "llama": transformers.LlamaConfig,
            "qwen2": transformers.Qwen2Config,
            "qwen3": transformers.Qwen3Config,
        }
        extra = {"head_dim": 16} if kind == "qwen3" else {}
        config = make[kind](
            **SIZES, num_key_value_heads=2, intermediate_size=96, tie_word_embeddings=kind != "qwen3",
            max_position_embeddings=64, **extra,
        )  # fmt: skip
    model = transformers.AutoModelForCausalLM.from_config(config).float().eval()
    with torch.no_grad():  # larger than at the start of a training, so that logits differ
        for name, parameter in model.named_parameters():
            if parameter.dim() == 2:
                parameter.mul_(3)
            elif name.endswith("bias"):
                parameter.normal_(std=0.1)
    model.save_pretrained(folder)
    return model
