"""Training a draft head: the loss falls, drafts become right, and what is written runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from tiny_bases import save_chat_base  # noqa: E402

from octavo.adapters.draft_head import read_draft_head  # noqa: E402
from octavo.data.hidden_states import HiddenStates, HiddenStatesWriter, open_hidden_states  # noqa: E402
from octavo.errors import FormatError, UnsupportedError  # noqa: E402
from octavo.training.draft_config import DraftConfig  # noqa: E402
from octavo.training.draft_head import (  # noqa: E402
    DraftHeadTask,
    choose_tokens,
    greedy_tokens,
    rows_of,
    train_draft_head,
)
from octavo.weights.checkpoint import Checkpoint, open_checkpoint  # noqa: E402


@pytest.fixture
def base(tmp_path: Path) -> Checkpoint:
    save_chat_base(tmp_path / "base")
    return open_checkpoint(tmp_path / "base")


def counting_rows(folder: Path, base: Checkpoint, answers: int = 40) -> HiddenStates:
    """Answers that count up, as a model would say them that is sure: states are the next token's row."""
    output = base.tensors["token_embd.weight"].numpy()
    random = np.random.default_rng(0)
    with HiddenStatesWriter(folder, output.shape[1], most=5000) as writer:
        for number in range(answers):
            tokens = (random.integers(30) + np.arange(30)) % 32
            writer.add(60 * output[tokens], tokens.astype(np.int32), number)
    return open_hidden_states(folder, output.shape[1])


def config(out: Path, **options: object) -> DraftConfig:
    given = {"steps": 60, "segments": 4, "length": 16, "depths": 3, "draft_tokens": 64, "inner_size": 32}
    given |= {"learning_rate": 5e-3, "precision": "float32", "threads": 1, **options}
    return DraftConfig(out=str(out), base="base", **given)  # type: ignore[arg-type]


def test_the_loss_falls_and_drafts_come_true(base: Checkpoint, tmp_path: Path) -> None:
    vocabulary, rows = list(base.tokenizer().tokens), counting_rows(tmp_path / "rows", base)
    task = DraftHeadTask(config(tmp_path / "out"), base, vocabulary, rows)
    before = task.validate(task.model)
    result = train_draft_head(config(tmp_path / "out"), base, vocabulary, rows)
    assert before is not None and result.validation is not None
    assert result.validation.loss < 0.5 * before.loss
    assert not (tmp_path / "out" / "checkpoints").exists()
    head = read_draft_head(tmp_path / "out")
    assert head.config.depths == 3 and len(head.config.acceptance) == 3
    assert min(head.config.acceptance) > 0.9 > max(task.acceptance(task.model))


def test_the_same_seed_gives_the_same_head(base: Checkpoint, tmp_path: Path) -> None:
    vocabulary, rows = list(base.tokenizer().tokens), counting_rows(tmp_path / "rows", base)
    for name, seed in (("one", 1), ("two", 1), ("three", 2)):
        train_draft_head(config(tmp_path / name, steps=3, seed=seed), base, vocabulary, rows)
    one, two, three = (
        (tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "two", "three")
    )
    assert one == two != three


def test_places_across_answers_do_not_count(base: Checkpoint, tmp_path: Path) -> None:
    vocabulary, rows = list(base.tokenizer().tokens), counting_rows(tmp_path / "rows", base)
    task = DraftHeadTask(config(tmp_path / "out"), base, vocabulary, rows)
    batch = task._batch(rows, np.arange(20, 39)[None])  # an answer has 30 rows
    assert [int(batch.follows(depth).sum()) for depth in (1, 2, 3)] == [15, 14, 13]


def test_too_little_and_impossible_numbers_are_errors(base: Checkpoint, tmp_path: Path) -> None:
    vocabulary = list(base.tokenizer().tokens)
    with pytest.raises(FormatError, match="too few"):
        few = counting_rows(tmp_path / "rows", base, answers=2)
        train_draft_head(config(tmp_path / "out"), base, vocabulary, few)
    with pytest.raises(UnsupportedError, match="depths: 0"):
        config(tmp_path, depths=0)
    with pytest.raises(UnsupportedError, match="inner_size: 33"):
        config(tmp_path, inner_size=33)


def test_the_commonest_tokens_are_chosen() -> None:
    said = np.repeat(np.array([90, 5, 70], np.int32), [3, 2, 1])
    chosen = choose_tokens(said, 32, 96)
    assert len(chosen) == 32 and {5, 70, 90} <= set(chosen.tolist()) and (np.diff(chosen) > 0).all()
    assert len(choose_tokens(said, 4096, 96)) == 96


def test_rows_of_a_stored_matrix(base: Checkpoint) -> None:
    tensor = base.tensors["token_embd.weight"]
    whole = tensor.numpy()
    np.testing.assert_array_equal(rows_of(tensor, np.array([3, 90])), whole[[3, 90]])
    states = np.random.default_rng(0).standard_normal((5, whole.shape[1])).astype(np.float16)
    expected = (states.astype(np.float32) @ whole.T).argmax(axis=1)
    np.testing.assert_array_equal(greedy_tokens(tensor, states), expected)
