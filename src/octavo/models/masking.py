"""Which tokens a masked language model must tell, and what it sees (Devlin et al. 2018, section 3.1)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from octavo.errors import UnsupportedError

NO_TARGET = -100  # what a target is where there is nothing to tell


def mask_tokens(
    tokens: Tensor,
    *,
    mask_token: int,
    vocabulary_size: int,
    special_tokens: Sequence[int],
    generator: torch.Generator,
    probability: float = 0.15,
    word_starts: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """int[B, T] -> what the model sees int[B, T], and what it must tell int[B, T] (else NO_TARGET).

    Of the tokens that are not special (padding among them), `probability` are chosen.  A chosen one becomes
    the mask token in 80 % of cases, a random ordinary token in 10 % and stays in 10 % (so that what the model
    sees in fine-tuning, where nothing is masked, is nothing new).
    word_starts: bool[B, T], True where a word begins: then words are chosen, with all their tokens
    (whole-word masking, Devlin's release notes of May 2019), each token by its own throw of 80/10/10.
    The generator decides all: the same state of it gives the same masks.
    """
    if not 0.0 < probability <= 1.0:
        raise UnsupportedError(f"the probability of masking is {probability}; it is above 0 and at most 1")
    special = torch.isin(tokens, torch.tensor(list(special_tokens), dtype=tokens.dtype))
    chosen = torch.rand(tokens.shape, generator=generator) < probability
    if word_starts is not None:
        chosen = _of_first(chosen, word_starts | special)
    chosen &= ~special
    rule = torch.rand(tokens.shape, generator=generator)
    ordinary = _ordinary_tokens(vocabulary_size, [*special_tokens, mask_token])
    drawn = ordinary[torch.randint(len(ordinary), tokens.shape, generator=generator)].to(tokens.dtype)
    seen = torch.where(chosen & (rule < 0.8), mask_token, tokens)
    seen = torch.where(chosen & (rule >= 0.9), drawn, seen)
    return seen, torch.where(chosen, tokens, NO_TARGET)


def word_starts_of(tokens: Tensor, continues: Tensor) -> Tensor:
    """bool[B, T]; continues: bool[V], True for tokens that go on with a word ("##ing")."""
    return ~continues[tokens]


def _of_first(chosen: Tensor, starts: Tensor) -> Tensor:
    """What was chosen for the first token of a word, for all its tokens; the row's first token starts one."""
    places = torch.arange(chosen.shape[1]).expand_as(chosen)
    first = torch.where(starts, places, 0).cummax(dim=1).values
    return chosen.gather(1, first)


def _ordinary_tokens(vocabulary_size: int, special_tokens: Sequence[int]) -> Tensor:
    special = {token for token in special_tokens if 0 <= token < vocabulary_size}
    ordinary = [token for token in range(vocabulary_size) if token not in special]
    if not ordinary:
        raise UnsupportedError(
            "all tokens of the vocabulary are special: there is none to put in their place"
        )
    return torch.tensor(ordinary)
