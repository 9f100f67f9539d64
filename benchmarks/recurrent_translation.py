"""The peer of `translation.py`: what came before the Transformer, in plain PyTorch.

A bidirectional GRU reads the source, a GRU writes the target and attends to what was read (Cho et al. 2014;
Bahdanau, Cho and Bengio 2015, as simplified by Luong et al. 2015, section 3.1).  Adam, float32.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from octavo.data.pairs import PairBatch

EMBEDDING, ENCODER, DECODER = 192, 320, 512  # 4.1 M parameters with 6,000 tokens


class RecurrentTranslator(nn.Module):
    """Source and target tokens in, logits of the next target token out; one embedding for all."""

    def __init__(self, vocabulary: int, padding: int, dropout: float = 0.3) -> None:
        super().__init__()
        self.padding = padding
        self.embedding = nn.Embedding(vocabulary, EMBEDDING, padding_idx=padding)
        nn.init.normal_(self.embedding.weight, std=EMBEDDING**-0.5)
        self.reader = nn.GRU(EMBEDDING, ENCODER, batch_first=True, bidirectional=True)
        self.bridge = nn.Linear(2 * ENCODER, DECODER)
        self.memory = nn.Linear(2 * ENCODER, DECODER)
        self.writer = nn.GRU(EMBEDDING, DECODER, batch_first=True)
        self.mix = nn.Linear(DECODER + DECODER, EMBEDDING)
        self.dropout = nn.Dropout(dropout)

    def read(self, source: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """int[B, S] -> memory [B, S, D], bool[B, S], first state of the writer [1, B, D]."""
        present = source != self.padding
        packed = pack_padded_sequence(
            self.dropout(self.embedding(source)), present.sum(1), batch_first=True, enforce_sorted=False
        )
        states, last = self.reader(packed)
        states, _ = pad_packed_sequence(states, batch_first=True, total_length=source.shape[1])
        first = torch.tanh(self.bridge(torch.cat((last[0], last[1]), dim=-1)))
        return self.memory(self.dropout(states)), present, first[None]

    def write(self, memory: Tensor, present: Tensor, state: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """[B, S, D], bool[B, S], [1, B, D], int[B, T] -> hidden [B, T, E] of the output, state."""
        written, state = self.writer(self.dropout(self.embedding(target)), state)
        scores = (written @ memory.mT * DECODER**-0.5).masked_fill(~present[:, None], float("-inf"))
        context = scores.softmax(dim=-1) @ memory
        return self.dropout(torch.tanh(self.mix(torch.cat((written, context), dim=-1)))), state

    def loss(self, batch: PairBatch, smoothing: float = 0.1) -> Tensor:
        """Mean over the batch's target tokens."""
        target = torch.from_numpy(batch.target)
        hidden, _ = self.write(*self.read(torch.from_numpy(batch.source)), target[:, :-1])
        present = target[:, 1:] != self.padding
        logits = hidden[present] @ self.embedding.weight.T
        return functional.cross_entropy(logits, target[:, 1:][present], label_smoothing=smoothing)

    @torch.no_grad()
    def translate(self, source: Tensor, beginning: int, end: int, beam: int, alpha: float) -> list[list[int]]:
        """Beam search as the Transformer's; a beam of 1 is greedy."""
        self.eval()
        return [
            self._translate(row[row != self.padding][None], beginning, end, beam, alpha) for row in source
        ]

    def _translate(self, source: Tensor, beginning: int, end: int, beam: int, alpha: float) -> list[int]:
        memory, present, state = self.read(source)
        hypotheses, scores = torch.tensor([[beginning]]), torch.zeros(1)
        best, best_score = [], float("-inf")
        for length in range(1, source.shape[1] + 50):
            count = len(hypotheses)
            hidden, state = self.write(
                memory.expand(count, -1, -1), present.expand(count, -1), state, hypotheses[:, -1:]
            )
            following = (hidden[:, -1] @ self.embedding.weight.T).log_softmax(dim=-1)
            following[:, [self.padding, beginning]] = float("-inf")
            totals, places = (scores[:, None] + following).flatten().topk(2 * beam)
            rows, tokens = places // following.shape[1], places % following.shape[1]
            ended = tokens == end
            penalty = ((5 + length) / 6) ** alpha
            for row, total in zip(rows[:beam][ended[:beam]], totals[:beam][ended[:beam]], strict=True):
                if float(total) / penalty > best_score:
                    best, best_score = hypotheses[row, 1:].tolist(), float(total) / penalty
            rows, tokens, scores = rows[~ended][:beam], tokens[~ended][:beam], totals[~ended][:beam]
            longest = ((5 + source.shape[1] + 50) / 6) ** alpha
            if best_score > float(scores[0]) / longest or (beam == 1 and bool(ended[0])):
                break
            hypotheses = torch.cat((hypotheses[rows], tokens[:, None]), dim=1)
            state = state[:, rows]
        return best or hypotheses[0, 1:].tolist()


def train_recurrent(
    model: RecurrentTranslator,
    batch: Callable[[int], PairBatch],
    seconds: float,
    rate: float = 2e-3,
    show: Callable[[str], None] = print,
) -> int:
    """Trains for so many processor seconds, the learning rate falling in a line to 0; the steps taken."""
    optimizer = torch.optim.Adam(model.parameters(), rate)
    began, step, passed = time.process_time(), 0, 0.0
    model.train()
    while passed < seconds:
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1.0, (step + 1) / 100) * max(0.0, 1 - passed / seconds)
        loss = model.loss(batch(step))
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        step += 1
        passed = time.process_time() - began
        if step % 50 == 0:
            show(f"recurrent: step {step}, loss {float(loss.detach()):.3f}, {passed:.0f} s of {seconds:.0f}")
    return step
