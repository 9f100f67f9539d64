"""Texts to texts with a trained translator folder: greedily or by beam search, by one or averaged weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from octavo.data.vocabulary import PAIR_SPECIALS, load_tokenizer, special_tokens
from octavo.errors import FormatError
from octavo.models.translation import beam_translate, greedy_translate
from octavo.training.averaging import average_weights
from octavo.training.checkpoints import list_checkpoints
from octavo.training.model_folders import load_seq2seq
from octavo.training.tasks.translation import encode_sources

BEAM, ALPHA = 4, 0.6  # the paper's (section 6.1)


class Translator:
    """The model of a folder.  average: of its last so many checkpoints (section 6.1), not its final weights.

    Raises FormatError for another kind of folder, a vocabulary that is not the model's, and where there are
    fewer checkpoints (`--keep` says how many stay).
    """

    def __init__(self, folder: Path, *, average: int = 1) -> None:
        self.model = load_seq2seq(folder)
        self.tokenizer = load_tokenizer(folder)
        config = self.model.config
        found = self.tokenizer.get_vocab_size()
        if found != config.vocabulary_size:
            raise FormatError(
                f"{folder}: tokenizer.json has {found} tokens and the model {config.vocabulary_size}: "
                "they do not belong together"
            )
        specials = special_tokens(self.tokenizer, PAIR_SPECIALS, str(folder))
        if specials != (config.padding_token, config.beginning_token, config.end_token):
            raise FormatError(f"{folder}: tokenizer.json has other special tokens than the model")
        if average > 1:
            self._average(folder, average)
        self.model.eval()

    def _average(self, folder: Path, count: int) -> None:
        from safetensors.torch import load_file

        checkpoints = list_checkpoints(folder)[-count:]
        if len(checkpoints) < count:
            raise FormatError(
                f"{folder}: there are {len(checkpoints)} checkpoints, not {count}: train with --keep {count}"
            )
        mean = average_weights(load_file(path / "model.safetensors") for path in checkpoints)
        self.model.load_state_dict(mean)

    def translate(
        self,
        texts: Sequence[str],
        *,
        beam: int = BEAM,
        alpha: float = ALPHA,
        rows: int = 64,
        use_cache: bool = True,
        longest: int = 512,
    ) -> list[str]:
        """A translation of each text; texts of about one length are translated together, `rows` at a time.

        beam: hypotheses of each; 1 is greedy.  alpha: the length penalty.  longest: tokens of a text that are
        read.
        """
        order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
        found = [""] * len(texts)
        for first in range(0, len(order), rows):
            places = [place for place in order[first : first + rows] if texts[place].strip()]
            if not places:
                continue
            source = encode_sources(
                self.tokenizer,
                [texts[place].strip() for place in places],
                self.model.config.end_token,
                self.model.config.padding_token,
                longest,
            )
            if beam == 1:
                best = greedy_translate(self.model, source, use_cache=use_cache)
            else:
                best = beam_translate(self.model, source, beam=beam, alpha=alpha, use_cache=use_cache)
            decoded = self.tokenizer.decode_batch([list(each.tokens) for each in best])
            for place, text in zip(places, decoded, strict=True):
                found[place] = text.strip()
        return found


def limit_threads(threads: int | None) -> None:
    """PyTorch's threads; None: what this process may really use."""
    from octavo.machine import default_threads

    torch.set_num_threads(threads or default_threads())
