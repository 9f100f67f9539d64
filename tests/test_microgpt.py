"""The GPT of one file: its derivatives, and its loss and gradients against the readable torch GPT."""

from __future__ import annotations

import math
import random
import sys
from pathlib import Path

import pytest

from octavo import microgpt
from octavo.microgpt import MicroGPT, Scalar

TOKENS = [6, 1, 4, 4, 0, 2, 5, 3, 6]


def small(layers: int = 2) -> MicroGPT:
    return MicroGPT(7, random.Random(3), context=8, width=8, heads=2, layers=layers)


def test_it_is_one_short_file_on_the_standard_library() -> None:
    lines = Path(microgpt.__file__).read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 200
    imported = {line.split()[1].split(".")[0] for line in lines if line.startswith(("import ", "from "))}
    assert imported <= sys.stdlib_module_names


def test_gradients_equal_finite_differences() -> None:
    model, generator = small(layers=1), random.Random(0)
    model.loss(TOKENS).backward()
    for weight in generator.sample(model.parameters, 60):
        before, change = weight.value, 1e-5
        weight.value = before + change
        above = model.loss(TOKENS).value
        weight.value = before - change
        below = model.loss(TOKENS).value
        weight.value = before
        assert weight.gradient == pytest.approx((above - below) / (2 * change), abs=1e-8)


def test_backward_follows_chains_longer_than_the_recursion_limit() -> None:
    first = number = Scalar(1.0)
    for _ in range(2 * sys.getrecursionlimit()):
        number = number.line(1.0)
    number.backward()
    assert first.gradient == 1.0


def test_a_number_used_twice_gets_both_gradients() -> None:
    x = Scalar(3.0)
    (x * x).backward()
    assert x.gradient == 6.0


@pytest.mark.parametrize("layers", [1, 2])
def test_loss_and_gradients_equal_the_torch_gpt(layers: int) -> None:
    torch = pytest.importorskip("torch")
    from octavo.model_config import ModelConfig
    from octavo.models.gpt import GPT

    ours = small(layers)
    loss = ours.loss(TOKENS)
    loss.backward()
    theirs = GPT(
        ModelConfig(
            architecture="llama", vocabulary_size=7, context_length=8, hidden_size=8, layers=layers, heads=2,
            key_value_heads=2, head_width=4, feed_forward_size=32, norm_epsilon=1e-5, activation="gelu",
            gated=False, learned_positions=8, attention_scale=0.5, tied_embeddings=True,
        )
    ).double()  # fmt: skip
    with torch.no_grad():
        for name, rows in ours.weights.items():
            values = torch.tensor([[each.value for each in row] for row in rows], dtype=torch.float64)
            theirs.get_parameter(f"{name}.weight").copy_(values)
    tokens = torch.tensor([TOKENS])
    expected = torch.nn.functional.cross_entropy(theirs(tokens[:, :-1])[0], tokens[0, 1:])
    expected.backward()
    assert loss.value == pytest.approx(expected.item(), abs=1e-9)
    for name, rows in ours.weights.items():
        gradient = torch.tensor([[each.gradient for each in row] for row in rows], dtype=torch.float64)
        difference = gradient - theirs.get_parameter(f"{name}.weight").grad
        assert difference.abs().max() < 1e-9, name
        assert gradient.abs().max() > 1e-4, name


def test_training_learns_and_sampling_ends(capsys: pytest.CaptureFixture[str]) -> None:
    model = small(layers=1)
    before = model.loss(TOKENS).value
    assert before == pytest.approx(math.log(7), abs=0.1)
    microgpt.train(model, [TOKENS], steps=60)
    assert model.loss(TOKENS).value < 0.3 * before
    assert "step   50 of 60" in capsys.readouterr().out
    assert model.sample(end=6, temperature=0.01) == TOKENS[1:-1]


def test_words_come_from_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = tmp_path / "words.txt"
    words.write_text("ab\nba\nabba\n", encoding="utf-8")
    microgpt.main([str(words), "--steps", "3"])
    out = capsys.readouterr().out
    assert out.startswith("3 words, 2 letters")
    assert f"knowing nothing: {math.log(3):.3f}" in out
