"""A saved folder gives the same logits in transformers, in the readable model and in the native engine."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")
transformers = pytest.importorskip("transformers")

import octavo  # noqa: E402
from octavo.data.vocabulary import END_OF_TEXT, train_tokenizer  # noqa: E402
from octavo.errors import UnsupportedError  # noqa: E402
from octavo.models.gpt import GPT  # noqa: E402
from octavo.models.saving import save_model  # noqa: E402
from octavo.training.config import TrainingConfig, complete, model_config  # noqa: E402

TEXT = "the cats of the houses sat on the mat, and then they left."


@pytest.fixture(params=["qwen3", "llama", "gpt2"])
def saved(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[GPT, Path]:
    tokenizer = train_tokenizer([TEXT] * 4, vocabulary_size=280)
    config = complete(TrainingConfig(out="x", architecture=request.param, layers=2, hidden_size=64, heads=2))
    shape = model_config(config, tokenizer.get_vocab_size(), tokenizer.token_to_id(END_OF_TEXT))
    torch.manual_seed(0)
    model = GPT(shape, fast=True).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    save_model(model, tmp_path, tokenizer)
    return model, tmp_path


@torch.no_grad()
def test_transformers_gives_the_same_logits(saved: tuple[GPT, Path]) -> None:
    model, folder = saved
    theirs, info = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, output_loading_info=True
    )
    assert not info["missing_keys"] and not info["unexpected_keys"]
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokens = torch.tensor([tokenizer.encode(TEXT, add_special_tokens=False)])
    torch.testing.assert_close(theirs(tokens).logits, model(tokens), rtol=1e-5, atol=1e-5)
    assert tokenizer.decode(tokens[0]) == TEXT
    assert theirs.config.eos_token_id == 0


@torch.no_grad()
def test_the_native_engine_runs_it(saved: tuple[GPT, Path]) -> None:
    model, folder = saved
    with octavo.load(str(folder)) as loaded:
        tokens = loaded.tokenizer.encode(TEXT)
        assert tokens[0] == 0  # documents began with the end of text
        ours = model(torch.tensor([tokens]))[0].numpy()
        np.testing.assert_allclose(loaded.logits(tokens), ours, atol=2e-2 * np.abs(ours).max())
        assert len(loaded.generate("the cats", max_tokens=4).tokens) <= 4


def test_both_spellings_of_rope_are_written(tmp_path: Path) -> None:
    config = complete(TrainingConfig(out="x", layers=1, hidden_size=64, heads=2))
    save_model(GPT(model_config(config, 300, None)), tmp_path)
    written = json.loads((tmp_path / "config.json").read_text())
    assert written["rope_theta"] == written["rope_parameters"]["rope_theta"] == 10_000
    assert written["dtype"] == written["torch_dtype"] == "float32"
    assert not (tmp_path / "tokenizer.json").exists()


def test_an_architecture_without_a_writer_is_refused(tmp_path: Path) -> None:
    config = complete(TrainingConfig(out="x", layers=1, hidden_size=64, heads=2))
    shape = model_config(config, 300, None)
    model = GPT(shape)
    object.__setattr__(model.config, "architecture", "gemma3")
    with pytest.raises(UnsupportedError, match="gemma3"):
        save_model(model, tmp_path)
