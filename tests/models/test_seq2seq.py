"""The 2017 Transformer against torch's layers, and its decoding against search by hand."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from octavo.errors import UnsupportedError  # noqa: E402
from octavo.models.seq2seq import (  # noqa: E402
    DecoderBlock,
    EncoderBlock,
    MultiHeadAttention,
    Seq2Seq,
    Seq2SeqConfig,
    sinusoidal_positions,
    smoothed_cross_entropy,
)
from octavo.models.translation import beam_translate, greedy_translate, length_penalty  # noqa: E402

CONFIG = Seq2SeqConfig(
    vocabulary_size=12, hidden_size=16, heads=2, encoder_layers=2, decoder_layers=2, feed_forward_size=24,
    dropout=0.0,
)  # fmt: skip


def model(config: Seq2SeqConfig = CONFIG, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return Seq2Seq(config)


def sentences(*lengths: int, seed: int = 1) -> Any:
    """Random source tokens, each ended by 2 and padded by 0."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.zeros(len(lengths), max(lengths), dtype=torch.long)
    for row, length in zip(rows, lengths, strict=True):
        row[:length] = torch.randint(3, 12, (length,), generator=generator)
        row[length - 1] = 2
    return rows


def test_positions_are_sines_and_cosines() -> None:
    table = sinusoidal_positions(7, 6)
    for position, pair in itertools.product(range(7), range(3)):
        angle = position / 10_000 ** (2 * pair / 6)
        assert table[position, 2 * pair].item() == pytest.approx(math.sin(angle), abs=1e-6)
        assert table[position, 2 * pair + 1].item() == pytest.approx(math.cos(angle), abs=1e-6)
    assert torch.equal(sinusoidal_positions(3, 6, start=4), table[4:])


def copy_attention(theirs: Any, ours: Any) -> None:
    theirs.in_proj_weight.copy_(torch.cat([ours.query.weight, ours.key.weight, ours.value.weight]))
    theirs.in_proj_bias.zero_()
    theirs.out_proj.weight.copy_(ours.output.weight)
    theirs.out_proj.bias.zero_()


def copy_block(theirs: Any, ours: Any, norms: list[Any]) -> None:
    theirs.linear1.load_state_dict(ours.feed_forward.up.state_dict())
    theirs.linear2.load_state_dict(ours.feed_forward.down.state_dict())
    for number, sublayer in enumerate(norms, 1):
        torch.nn.init.normal_(sublayer.norm.weight)
        torch.nn.init.normal_(sublayer.norm.bias)
        getattr(theirs, f"norm{number}").load_state_dict(sublayer.norm.state_dict())


@pytest.mark.parametrize("position", ["post", "pre"])
@torch.no_grad()
def test_blocks_equal_torch(position: Any) -> None:
    torch.manual_seed(0)
    config = replace(CONFIG, norm_position=position)
    options = {"dropout": 0.0, "batch_first": True, "norm_first": position == "pre", "dtype": torch.float64}
    x, memory = torch.randn(2, 5, 16).double(), torch.randn(2, 4, 16).double()
    present = torch.tensor([[True] * 4, [True] * 3 + [False]])

    ours = EncoderBlock(config).double()
    theirs = torch.nn.TransformerEncoderLayer(16, 2, 24, **options)
    copy_attention(theirs.self_attn, ours.attention)
    copy_block(theirs, ours, [ours.attention_sublayer, ours.feed_forward_sublayer])
    expected = theirs(memory, src_key_padding_mask=~present)
    assert (ours(memory, present[:, None, None, :]) - expected)[present].abs().max() < 1e-12

    ours = DecoderBlock(config).double()
    theirs = torch.nn.TransformerDecoderLayer(16, 2, 24, **options)
    copy_attention(theirs.self_attn, ours.attention)
    copy_attention(theirs.multihead_attn, ours.cross_attention)
    copy_block(theirs, ours, [ours.attention_sublayer, ours.cross_sublayer, ours.feed_forward_sublayer])
    seen = torch.ones(5, 5, dtype=torch.bool).tril()
    expected = theirs(x, memory, tgt_mask=~seen, memory_key_padding_mask=~present)
    source = ours.cross_attention.keys_and_values(memory)
    found = ours(x, source, present[:, None, None, :], seen)
    assert (found - expected).abs().max() < 1e-12


def test_loss_equals_torch_with_label_smoothing_and_skips_padding() -> None:
    logits = torch.randn(3, 4, 12, generator=torch.Generator().manual_seed(0))
    targets = sentences(4, 2, 3)
    for smoothing in (0.0, 0.1):
        total, count = smoothed_cross_entropy(logits, targets, smoothing, 0)
        expected = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), targets.flatten(), ignore_index=0, label_smoothing=smoothing
        )
        assert count.item() == 9
        assert (total / count).item() == pytest.approx(expected.item(), rel=1e-6)


def test_the_models_loss_is_the_written_one() -> None:
    net = model(replace(CONFIG, label_smoothing=0.2))
    source, target = sentences(5, 3), torch.cat((torch.ones(2, 1, dtype=torch.long), sentences(4, 6)), dim=1)
    total, count = smoothed_cross_entropy(net(source, target[:, :-1]), target[:, 1:], 0.2, 0)
    assert count.item() == 10
    assert net.loss(source, target).item() == pytest.approx((total / count).item(), rel=1e-6)


@pytest.mark.parametrize("position", ["post", "pre"])
def test_padding_changes_nothing_and_the_future_is_unseen(position: Any) -> None:
    net = model(replace(CONFIG, norm_position=position)).eval()
    source, target = sentences(6, 4), torch.cat((torch.ones(2, 1, dtype=torch.long), sentences(4, 4)), dim=1)
    logits = net(source, target)
    assert torch.allclose(net(source[1:, :4], target[1:]), logits[1:], atol=1e-5)
    changed = target.clone()
    changed[:, 3] = 5
    assert torch.allclose(net(source, changed)[:, :3], logits[:, :3], atol=1e-6)
    assert not torch.allclose(net(source, changed)[:, 3:], logits[:, 3:], atol=1e-3)


def test_every_parameter_gets_a_gradient_and_embeddings_are_shared() -> None:
    net = model()
    names = [name for name, _ in net.named_parameters() if "embedding" in name or "output.weight" == name]
    assert names == ["embedding.weight"]
    net.loss(sentences(5, 3), torch.cat((torch.ones(2, 1, dtype=torch.long), sentences(4, 6)), 1)).backward()
    assert not [name for name, each in net.named_parameters() if each.grad is None]


def test_attention_has_the_gradients_of_finite_differences() -> None:
    torch.manual_seed(0)
    attention = MultiHeadAttention(replace(CONFIG, hidden_size=8)).double()
    x, memory = (torch.randn(2, n, 8, dtype=torch.float64, requires_grad=True) for n in (3, 4))
    mask = torch.tensor([[True, True, True, True], [True, True, False, False]])[:, None, None, :]
    assert torch.autograd.gradcheck(
        lambda q, m: attention(q, *attention.keys_and_values(m), mask), (x, memory), atol=1e-7
    )


@pytest.mark.parametrize("translate", [greedy_translate, beam_translate])
@pytest.mark.parametrize("position", ["post", "pre"])
def test_decoding_with_a_cache_equals_decoding_without(translate: Any, position: Any) -> None:
    net = model(replace(CONFIG, norm_position=position, dropout=0.3)).train()
    source = sentences(6, 2, 4)
    cached = translate(net, source, extra=4)
    plain = translate(net, source, extra=4, use_cache=False)
    assert [each.tokens for each in cached] == [each.tokens for each in plain]
    assert [each.score for each in cached] == pytest.approx([each.score for each in plain], abs=1e-4)
    assert net.training
    alone = [translate(net, row[None, : int((row != 0).sum())], extra=4)[0] for row in source]
    assert [each.tokens for each in cached] == [each.tokens for each in alone]
    assert [each.score for each in cached] == pytest.approx([each.score for each in alone], abs=1e-4)
    assert all(len(each.tokens) <= length + 4 for each, length in zip(cached, (6, 2, 4), strict=True))


def test_a_beam_of_one_is_greedy_and_greedy_scores_are_log_probabilities() -> None:
    net, source = model().eval(), sentences(5, 3)
    greedy = greedy_translate(net, source, extra=5)
    narrow = beam_translate(net, source, beam=1, alpha=0.0, extra=5)
    assert [each.tokens for each in greedy] == [each.tokens for each in narrow]
    assert [each.score for each in greedy] == pytest.approx([each.score for each in narrow], abs=1e-5)
    with pytest.raises(ValueError, match="beam is 0"):
        beam_translate(net, source, beam=0)


@pytest.mark.parametrize("alpha", [0.0, 0.6, 2.0])
@torch.no_grad()
def test_a_wide_beam_finds_the_best_of_all_translations(alpha: float) -> None:
    config = replace(CONFIG, vocabulary_size=6)
    net = model(config, seed=3).double().eval()
    net.embedding.weight.mul_(4)  # far from uniform
    source = torch.tensor([[3, 4, 2]])
    limit = 4
    best, found = -math.inf, ()
    for length in range(limit):
        for words in itertools.product((3, 4, 5), repeat=length):
            target = torch.tensor([[1, *words, 2]])
            scores = net(source, target[:, :-1])[0].log_softmax(dim=-1)
            total = scores.gather(1, target[0, 1:, None]).sum().item()
            if (score := total / length_penalty(length + 1, alpha)) > best:
                best, found = score, words
    translation = beam_translate(net, source, beam=60, alpha=alpha, extra=limit - 3)[0]
    assert translation.tokens == tuple(found)
    assert translation.score == pytest.approx(best)


def test_it_learns_to_reverse() -> None:
    net = model(replace(CONFIG, hidden_size=32, encoder_layers=1, decoder_layers=1, norm_position="pre"))
    optimizer = torch.optim.Adam(net.parameters(), lr=5e-3)
    generator = torch.Generator().manual_seed(0)

    def batch(count: int) -> tuple[Any, Any]:
        words = torch.randint(3, 12, (count, 4), generator=generator)
        end = torch.full((count, 1), 2)
        return torch.cat((words, end), 1), torch.cat((end - 1, words.flip(1), end), 1)

    for _ in range(200):
        optimizer.zero_grad()
        net.loss(*batch(64)).backward()
        optimizer.step()
    source, target = batch(20)
    for translations in (greedy_translate(net, source), beam_translate(net, source)):
        right = sum(
            each.tokens == tuple(row[1:-1]) for each, row in zip(translations, target.tolist(), strict=True)
        )
        assert right >= 18


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_size": 18}, "hidden_size 18 must be a multiple"),
        ({"norm_position": "both"}, "norm_position 'both'"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"end_token": 12}, "three tokens of the vocabulary"),
        ({"end_token": 1}, "three tokens of the vocabulary"),
    ],
)
def test_impossible_configs_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UnsupportedError, match=message):
        replace(CONFIG, **change)
