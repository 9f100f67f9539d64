"""BERT's tasks, and which tokens are masked."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from octavo.errors import UnsupportedError  # noqa: E402
from octavo.model_config import ModelConfig  # noqa: E402
from octavo.models.bert import BERT, MaskedLanguageModel, SequenceClassifier, TokenClassifier  # noqa: E402
from octavo.models.masking import NO_TARGET, mask_tokens, word_starts_of  # noqa: E402

CONFIG = ModelConfig(
    architecture="bert", vocabulary_size=40, context_length=16, hidden_size=16, layers=2, heads=2,
    key_value_heads=2, head_width=8, feed_forward_size=32, norm="layer", norm_epsilon=1e-12,
    norm_position="post", activation="gelu", gated=False, learned_positions=16, token_types=2, causal=False,
    attention_scale=8**-0.5, embedding_norm=True,
)  # fmt: skip
PADDING, FIRST, LAST, MASK = 0, 1, 2, 3
SPECIAL = (PADDING, FIRST, LAST, MASK)


def masked(tokens: Any, seed: int = 0, **options: Any) -> Any:
    generator = torch.Generator().manual_seed(seed)
    return mask_tokens(
        tokens, mask_token=MASK, vocabulary_size=40, special_tokens=SPECIAL, generator=generator, **options
    )


def random_tokens(*shape: int, seed: int = 9) -> Any:
    return torch.randint(4, 40, shape, generator=torch.Generator().manual_seed(seed))


def test_masking_follows_the_80_10_10_rule() -> None:
    tokens = random_tokens(400, 100)
    tokens[:, 0], tokens[:, -5:] = FIRST, PADDING
    seen, targets = masked(tokens)
    chosen = targets != NO_TARGET
    ordinary = ~torch.isin(tokens, torch.tensor(SPECIAL))
    assert not (chosen & ~ordinary).any()
    assert chosen[ordinary].float().mean().item() == pytest.approx(0.15, abs=0.005)
    assert torch.equal(targets[chosen], tokens[chosen])
    assert torch.equal(seen[~chosen], tokens[~chosen])
    what = seen[chosen]
    assert (what == MASK).float().mean().item() == pytest.approx(0.8, abs=0.015)
    same = (what == tokens[chosen]).float().mean().item()
    assert same == pytest.approx(0.1 + 0.1 / 36, abs=0.015)
    drawn = what[(what != MASK) & (what != tokens[chosen])]
    assert set(drawn.tolist()) == set(range(4, 40))
    again = masked(tokens)
    assert torch.equal(seen, again[0])
    assert not torch.equal(seen, masked(tokens, seed=1)[0])


def test_whole_words_are_masked_together() -> None:
    tokens = random_tokens(300, 60)
    tokens[:, 0] = FIRST
    continues = torch.arange(40) >= 20
    starts = word_starts_of(tokens, continues)
    _, targets = masked(tokens, word_starts=starts)
    chosen = targets != NO_TARGET
    inside = ~starts & (torch.arange(60) > 1)
    assert torch.equal(chosen[inside], chosen.roll(1, dims=1)[inside])
    assert chosen[:, 2:].float().mean().item() == pytest.approx(0.15, abs=0.01)
    _, single = masked(tokens)
    assert not torch.equal((single != NO_TARGET)[inside], (single != NO_TARGET).roll(1, dims=1)[inside])


def test_masking_without_sense_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="probability of masking is 0.0"):
        masked(random_tokens(1, 4), probability=0.0)
    with pytest.raises(UnsupportedError, match="all tokens of the vocabulary are special"):
        mask_tokens(
            torch.zeros(1, 2, dtype=torch.long), mask_token=1, vocabulary_size=2, special_tokens=(0,),
            generator=torch.Generator(),
        )  # fmt: skip


def test_loss_is_that_of_the_masked_tokens_alone_and_of_the_next_sentence() -> None:
    torch.manual_seed(0)
    model = MaskedLanguageModel(CONFIG, next_sentence=True)
    tokens = random_tokens(3, 10)
    seen, targets = masked(tokens, probability=0.3)
    total, count = model.loss(seen, targets)
    expected = torch.nn.functional.cross_entropy(model(seen).flatten(0, 1), targets.flatten())
    assert count == (targets != NO_TARGET).sum()
    assert (total / count).item() == pytest.approx(expected.item(), rel=1e-5)
    assert expected.item() == pytest.approx(math.log(40), abs=0.2)
    labels = torch.tensor([0, 1, 1])
    both, _ = model.loss(seen, targets, next_labels=labels)
    follows = torch.nn.functional.cross_entropy(model.next_sentence_logits(model.bert(seen)), labels)
    assert (both / count).item() == pytest.approx((expected + follows).item(), rel=1e-5)
    both.backward()
    assert not [name for name, each in model.named_parameters() if each.grad is None]
    with pytest.raises(UnsupportedError, match="next_sentence=True"):
        MaskedLanguageModel(CONFIG).next_sentence_logits(model.bert(seen))


def test_padding_changes_nothing_and_types_tell_pairs_apart() -> None:
    torch.manual_seed(0)
    model = SequenceClassifier(CONFIG, labels=3, dropout=0.2).eval()
    tokens = random_tokens(2, 8)
    present = torch.tensor([[True] * 8, [True] * 5 + [False] * 3])
    logits = model(tokens, present)
    assert logits.shape == (2, 3)
    assert torch.allclose(logits[1:], model(tokens[1:, :5]), atol=1e-6)
    types = torch.tensor([[0, 0, 0, 1, 1, 1, 1, 1]] * 2)
    assert not torch.allclose(model(tokens, None, types), model(tokens), atol=1e-6)
    assert torch.equal(model(tokens, None, torch.zeros_like(types)), model(tokens))
    with pytest.raises(UnsupportedError, match="no token types"):
        BERT(replace(CONFIG, token_types=0))(tokens, None, types)
    assert not torch.equal(model.train()(tokens), model(tokens))


def test_packed_documents_are_as_if_alone() -> None:
    torch.manual_seed(0)
    bert = BERT(CONFIG).eval()
    first, second = random_tokens(1, 5), random_tokens(1, 4, seed=3)
    positions = torch.cat((torch.arange(5), torch.arange(4)))[None]
    documents = torch.tensor([[0] * 5 + [1] * 4])
    packed = bert(torch.cat((first, second), 1), None, None, positions, documents)
    assert torch.allclose(packed[:, :5], bert(first), atol=1e-5)
    assert torch.allclose(packed[:, 5:], bert(second), atol=1e-5)


def test_it_learns_a_token_that_only_the_right_side_tells() -> None:
    torch.manual_seed(0)
    model = TokenClassifier(CONFIG, labels=4)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(150):
        tokens = torch.randint(4, 8, (32, 8), generator=generator)
        labels = tokens.roll(-1, dims=1) - 4  # the label of a token is its right neighbour
        logits = model(tokens)[:, :-1]
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels[:, :-1].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.3
