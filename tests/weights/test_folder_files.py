"""The other files of a Hugging Face folder, and the folders that are refused."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from tiny_folders import Maker, edit_json

from octavo.errors import FormatError, UnsupportedError
from octavo.weights.checkpoint import GenerationDefaults, open_checkpoint


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
