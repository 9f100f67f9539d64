"""Tiny seeded models of transformers in folders, as bases for adapters."""

from __future__ import annotations

import json
from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

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
            # Rows of whole blocks of 64: bitsandbytes 0.50 unpacks others wrongly on a CPU.
            **SIZES, num_key_value_heads=2, intermediate_size=128, tie_word_embeddings=kind != "qwen3",
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


def save_chat_base(folder: Path) -> None:
    """A tiny model whose tokens are letters, digits and ChatML's control tokens."""
    save_base("llama", folder)
    letters = sorted({*"abcdefghijklmnopqrstuvwxyz0123456789?+=", "Ċ", "Ġ"})
    backend = Tokenizer(models.BPE({letter: index for index, letter in enumerate(letters)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    backend.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|im_end|>"}))
    config = json.loads((folder / "config.json").read_text())
    config["eos_token_id"] = backend.token_to_id("<|im_end|>")
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "generation_config.json").unlink(missing_ok=True)
