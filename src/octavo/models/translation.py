"""Translating with a Seq2Seq: greedily, or by beam search (Vaswani et al. 2017, section 6.1).

Legend: B sentences, K hypotheses of each (the beam), V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from octavo.models.seq2seq import DecodingState, KeysAndValues, Seq2Seq

EXTRA_TOKENS = 50  # the output may be as much longer than the input (6.1)


@dataclass(frozen=True)
class Translation:
    """Target tokens without the beginning and the end; the score is what the search ranked by."""

    tokens: tuple[int, ...]
    score: float


class Steps:
    """Log-probabilities of the next token, from a cache or (its slow twin) all anew each time."""

    def __init__(self, model: Seq2Seq, source: Tensor, copies: int, use_cache: bool) -> None:
        self.model = model
        self.use_cache = use_cache
        rows = torch.arange(len(source)).repeat_interleave(copies)
        self.state = model.encode(source)
        self.state.select(rows)
        self.tokens = torch.full((len(rows), 1), model.config.beginning_token)

    def log_probabilities(self) -> Tensor:
        """float[B * K, V] of the token that follows."""
        if self.use_cache:
            hidden = self.model.decode(self.state, self.tokens[:, self.state.length :])
        else:
            nothing = [KeysAndValues() for _ in self.state.written]
            fresh = DecodingState(self.state.source, self.state.source_mask, nothing)
            hidden = self.model.decode(fresh, self.tokens)
        scores = self.model.logits(hidden[:, -1]).log_softmax(dim=-1)
        scores[:, [self.model.config.padding_token, self.model.config.beginning_token]] = float("-inf")
        return scores

    def append(self, tokens: Tensor, rows: Tensor | None = None) -> None:
        """Writes one token int[N] behind each sequence; rows: which sequences go on, if not each as it is."""
        if rows is not None:
            self.state.select(rows)
            self.tokens = self.tokens.index_select(0, rows)
        self.tokens = torch.cat((self.tokens, tokens[:, None]), dim=1)


@torch.no_grad()
def greedy_translate(
    model: Seq2Seq, source: Tensor, *, extra: int = EXTRA_TOKENS, use_cache: bool = True
) -> list[Translation]:
    """The most probable token at every step; source int[B, S], padded -> B translations.

    extra: how many tokens longer than its source a translation may be.  The score is the log-probability.
    """
    with _evaluating(model):
        limits = _limits(model, source, extra)
        steps = Steps(model, source, 1, use_cache)
        ended = torch.zeros(len(source), dtype=torch.bool)
        totals = torch.zeros(len(source), dtype=torch.float64)
        for step in range(1, int(limits.max()) + 1):
            best, tokens = steps.log_probabilities().max(dim=-1)
            totals += torch.where(ended, 0.0, best.double())
            steps.append(torch.where(ended, model.config.end_token, tokens))
            ended |= (tokens == model.config.end_token) | (limits <= step)
            if ended.all():
                break
    return [
        Translation(_cut(model, row[1 : limit + 1].tolist()), total)
        for row, limit, total in zip(steps.tokens, limits.tolist(), totals.tolist(), strict=True)
    ]


def length_penalty(length: float, alpha: float) -> float:
    """((5 + length) / 6)^alpha: what a log-probability is divided by (Wu et al. 2016, equation 14).

    Without it (alpha 0) short translations win, since every token lowers the sum.
    """
    return float(((5.0 + length) / 6.0) ** alpha)


@torch.no_grad()
def beam_translate(
    model: Seq2Seq,
    source: Tensor,
    *,
    beam: int = 4,
    alpha: float = 0.6,
    extra: int = EXTRA_TOKENS,
    use_cache: bool = True,
) -> list[Translation]:
    """The best of what a beam of hypotheses finds; source int[B, S], padded -> B translations.

    A sentence is done when no open hypothesis can beat its best finished one: log-probabilities only fall,
    and the penalty is largest at the length limit.  The defaults are the paper's.
    """
    if beam < 1:
        raise ValueError(f"beam is {beam}; it takes at least one hypothesis")
    with _evaluating(model):
        search = _BeamSearch(model, source, beam, alpha, _limits(model, source, extra), use_cache)
        while search.open.any():
            search.advance()
    return search.best


class _BeamSearch:
    """All sentences of a batch at once; scores of open hypotheses are float64[B, K]."""

    def __init__(
        self, model: Seq2Seq, source: Tensor, beam: int, alpha: float, limits: Tensor, use_cache: bool
    ) -> None:
        self.model, self.beam, self.alpha, self.limits = model, beam, alpha, limits
        self.steps = Steps(model, source, beam, use_cache)
        self.length = 0
        self.open = torch.ones(len(source), dtype=torch.bool)
        self.best = [Translation((), float("-inf")) for _ in source]
        # At first all hypotheses of a sentence are the same: only one of them counts.
        self.scores = torch.full((len(source), beam), float("-inf"), dtype=torch.float64)
        self.scores[:, 0] = 0.0

    def advance(self) -> None:
        """One token more for every hypothesis."""
        self.length += 1
        following = self.steps.log_probabilities().double()
        vocabulary = following.shape[-1]
        totals = (self.scores.flatten()[:, None] + following).view(len(self.scores), -1)
        # Each of K hypotheses has one end at most, so the best 2 K have at least K that go on.
        candidates, places = totals.topk(min(2 * self.beam, totals.shape[1]), dim=-1)
        parents, tokens = places // vocabulary, places % vocabulary
        ends = tokens == self.model.config.end_token
        for sentence in self.open.nonzero().flatten().tolist():
            self._finish(sentence, candidates[sentence], parents[sentence], ends[sentence])
        going = candidates.masked_fill(ends, float("-inf"))
        self.scores, chosen = going.topk(self.beam, dim=-1)
        first = torch.arange(len(self.scores))[:, None] * self.beam
        rows = (first + parents.gather(1, chosen)).flatten()
        self.steps.append(tokens.gather(1, chosen).flatten(), rows)
        for sentence in self.open.nonzero().flatten().tolist():
            self._close(sentence)

    def _finish(self, sentence: int, candidates: Tensor, parents: Tensor, ends: Tensor) -> None:
        """Keeps the best hypothesis that ends now, if it beats what the sentence has."""
        for place in ends.nonzero().flatten().tolist():
            score = candidates[place].item() / length_penalty(self.length, self.alpha)
            if score > self.best[sentence].score:
                row = sentence * self.beam + int(parents[place])
                self.best[sentence] = Translation(tuple(self.steps.tokens[row, 1:].tolist()), score)

    def _close(self, sentence: int) -> None:
        """Ends a sentence that cannot get better, or whose limit is reached."""
        limit = int(self.limits[sentence])
        top = self.scores[sentence, 0].item()
        if self.length >= limit:
            score = top / length_penalty(self.length, self.alpha)
            if self.best[sentence].score == float("-inf"):  # none has ended: the best of those cut off
                tokens = self.steps.tokens[sentence * self.beam, 1:].tolist()
                self.best[sentence] = Translation(tuple(tokens), score)
            self.open[sentence] = False
        elif self.best[sentence].score >= top / length_penalty(limit, self.alpha):
            self.open[sentence] = False


@contextmanager
def _evaluating(model: Seq2Seq) -> Iterator[None]:
    """The model in evaluation mode inside, and as it was afterwards."""
    mode = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(mode)


def _limits(model: Seq2Seq, source: Tensor, extra: int) -> Tensor:
    """int[B]: how many tokens each translation may have."""
    return (source != model.config.padding_token).sum(dim=1) + extra


def _cut(model: Seq2Seq, tokens: list[int]) -> tuple[int, ...]:
    """What comes before the end token."""
    end = model.config.end_token
    return tuple(tokens[: tokens.index(end)] if end in tokens else tokens)
