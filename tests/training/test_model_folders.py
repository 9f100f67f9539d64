"""Encoders against transformers through their folders, and translators there and back."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

from octavo.errors import FormatError  # noqa: E402
from octavo.model_config import ModelConfig  # noqa: E402
from octavo.models.bert import MaskedLanguageModel, SequenceClassifier, TokenClassifier  # noqa: E402
from octavo.models.seq2seq import Seq2Seq, Seq2SeqConfig  # noqa: E402
from octavo.training.model_folders import load_encoder, load_seq2seq, save_encoder, save_seq2seq  # noqa: E402

CONFIG = ModelConfig(
    architecture="bert", vocabulary_size=40, context_length=16, hidden_size=16, layers=2, heads=2,
    key_value_heads=2, head_width=8, feed_forward_size=32, norm="layer", norm_epsilon=1e-12,
    norm_position="post", activation="gelu", gated=False, learned_positions=16, token_types=2, causal=False,
    attention_scale=8**-0.5, embedding_norm=True,
)  # fmt: skip
TOKENS = torch.randint(0, 40, (3, 12), generator=torch.Generator().manual_seed(0))
PRESENT = torch.arange(12)[None, :] < torch.tensor([[12], [7], [10]])
TYPES = (torch.arange(12)[None, :] > 4).long().expand(3, 12)
TRANSLATOR = Seq2SeqConfig(20, 16, 2, 1, 2, 24)


def spread(model: Any) -> Any:
    """Weights wide enough that every one matters to the outputs."""
    torch.manual_seed(1)
    for parameter in model.parameters():
        parameter.data.normal_(0.0, 0.3)
    return model.eval()


def check(model: Any, folder: Path, name: str) -> Any:
    """transformers' class loads the folder without a complaint and gives the same logits."""
    transformers = pytest.importorskip("transformers")
    save_encoder(model, folder)
    loaded = getattr(transformers, name).from_pretrained(folder, output_loading_info=True)
    theirs, notes = loaded[0].eval(), loaded[1]
    assert not notes["missing_keys"] and not notes["unexpected_keys"] and not notes["mismatched_keys"]
    with torch.no_grad():
        found = theirs(input_ids=TOKENS, attention_mask=PRESENT.long(), token_type_ids=TYPES)
        ours = model(TOKENS, PRESENT, TYPES)
    expected = found.prediction_logits if name == "BertForPreTraining" else found.logits
    where = PRESENT if expected.dim() == 3 else slice(None)
    assert expected.std() > 0.2  # else the tolerance below would say nothing
    assert (ours - expected)[where].abs().max() < 1e-5
    return found


def test_masked_language_model_equals_transformers(tmp_path: Path) -> None:
    check(spread(MaskedLanguageModel(CONFIG)), tmp_path, "BertForMaskedLM")


def test_pretraining_with_next_sentence_equals_transformers(tmp_path: Path) -> None:
    model = spread(MaskedLanguageModel(CONFIG, next_sentence=True))
    found = check(model, tmp_path, "BertForPreTraining")
    with torch.no_grad():
        ours = model.next_sentence_logits(model.bert(TOKENS, PRESENT, TYPES))
    assert (ours - found.seq_relationship_logits).abs().max() < 1e-5


def test_classifiers_equal_transformers(tmp_path: Path) -> None:
    check(spread(SequenceClassifier(CONFIG, labels=3)), tmp_path / "texts", "BertForSequenceClassification")
    check(spread(TokenClassifier(CONFIG, labels=5)), tmp_path / "tokens", "BertForTokenClassification")
    with pytest.raises(ValueError, match="2 names for 3 labels"):
        save_encoder(SequenceClassifier(CONFIG, labels=3), tmp_path, labels=("no", "yes"))


@torch.no_grad()
def test_what_transformers_saved_is_loaded(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.BertConfig(**sizes, intermediate_size=32, max_position_embeddings=16)
    theirs = spread(transformers.BertForMaskedLM(config))
    theirs.save_pretrained(tmp_path)
    ours = load_encoder(tmp_path, MaskedLanguageModel).eval()
    expected = theirs(input_ids=TOKENS, token_type_ids=TYPES).logits
    assert (ours(TOKENS, None, TYPES) - expected).abs().max() < 1e-5


def test_a_pretrained_encoder_gets_a_new_head(tmp_path: Path) -> None:
    pretrained = spread(MaskedLanguageModel(CONFIG))
    save_encoder(pretrained, tmp_path)
    model = load_encoder(tmp_path, SequenceClassifier, labels=2, dropout=0.1).eval()
    for name, parameter in model.bert.named_parameters():
        assert torch.equal(parameter, pretrained.bert.get_parameter(name)), name
    assert model.classifier.weight.std() < 0.03
    with pytest.raises(FormatError, match=r"classifier.weight has the shape \(2, 16\), not \(3, 16\)"):
        save_encoder(model, tmp_path)
        load_encoder(tmp_path, SequenceClassifier, labels=3)


def test_a_saved_encoder_runs_in_the_readable_reference(tmp_path: Path) -> None:
    from octavo.models.loading import build_model
    from octavo.weights.checkpoint import open_checkpoint

    model = spread(MaskedLanguageModel(CONFIG))
    save_encoder(model, tmp_path)
    checkpoint = open_checkpoint(tmp_path)
    reference = build_model(
        checkpoint.config, {name: tensor.numpy() for name, tensor in checkpoint.tensors.items()}
    )
    with torch.no_grad():
        assert torch.allclose(reference(TOKENS), model.bert(TOKENS), atol=1e-5)


@pytest.mark.parametrize("position", ["post", "pre"])
def test_a_translator_goes_there_and_back(tmp_path: Path, position: Any) -> None:
    model = Seq2Seq(replace(TRANSLATOR, norm_position=position)).eval()
    save_seq2seq(model, tmp_path)
    again = load_seq2seq(tmp_path).eval()
    assert again.config == model.config
    source, target = TOKENS % 20, (TOKENS + 3) % 20
    assert torch.equal(model(source, target), again(source, target))
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "marian"}, "model_type: is not octavo_seq2seq"),
        ({"hidden": 3}, "hidden: is not known; there are vocabulary_size"),
        ({"heads": "2"}, "heads: 2 is not possible"),
        ({"heads": True}, "heads: True is not possible"),
        ({"hidden_size": 1 << 30}, "hidden_size: 1073741824 is not possible"),
        ({"hidden_size": 1 << 20}, r"embedding.weight must be there with the shape \(20, 1048576\)"),
        ({"decoder_layers": 3}, "decoder.2.feed_forward.up.weight must be there"),
        ({"encoder_layers": 1, "norm_position": "pre"}, "tensor encoder_norm.weight is missing"),
        ({"decoder_layers": 1}, "tensor decoder.1.* has no place in this model"),
    ],
)
def test_a_translators_folder_that_is_wrong_says_what(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    save_seq2seq(Seq2Seq(TRANSLATOR), tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(FormatError, match=message):
        load_seq2seq(tmp_path)
