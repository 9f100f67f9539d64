"""The translation task: pairs of texts, the 2017 Transformer, label smoothing."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from torch import Tensor, nn

from octavo.data.pairs import PairBatch, PairBatches, PairCorpus, padded, read_pair_files, tokenize_pairs
from octavo.data.vocabulary import PAIR_SPECIALS, load_tokenizer, special_tokens, train_tokenizer
from octavo.errors import FormatError
from octavo.models.seq2seq import Seq2Seq, Seq2SeqConfig
from octavo.models.translation import greedy_translate
from octavo.training.causal import Validation
from octavo.training.losses import linear_cross_entropy
from octavo.training.model_folders import save_seq2seq
from octavo.training.tasks.translation_config import TranslationConfig

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# A vocabulary is counted on so many pairs at most.
_VOCABULARY_PAIRS = 500_000
_VALIDATION_BATCHES = 32
_SAMPLES = 3


class Translation:
    """A Seq2Seq, a vocabulary that both languages share, and batches of pairs, from a complete config.

    Raises FormatError for data without pairs or a tokenizer without <pad>, <s> and </s>.
    """

    forward_methods: tuple[str, ...] = ("encode", "decode")

    def __init__(self, config: TranslationConfig, *, folder: Path | None = None) -> None:
        self.config = config
        data, targets = _paths(config.data), _paths(config.targets)
        if not data:
            raise FormatError("a translator needs pairs of texts: name a file with --data (and --target)")
        self.tokenizer = _tokenizer(config, folder)
        self.padding, self.beginning, self.end = special_tokens(
            self.tokenizer, PAIR_SPECIALS, str(folder or config.tokenizer)
        )
        pairs = tokenize_pairs(data, targets, self.tokenizer, self.end, config.columns)
        kept = None
        if config.validation_data:
            files = _paths(config.validation_data), _paths(config.validation_targets)
            kept = tokenize_pairs(*files, self.tokenizer, self.end, config.columns)
        elif config.validation:
            pairs, kept = pairs.split(config.validation)
        if not len(pairs):
            raise FormatError("there is no pair left to train on: lower validation")
        self.fingerprint = pairs.corpus.fingerprint
        self.batches_of_pairs = self._batches(pairs, config.seed)
        self.kept = kept if kept is not None and len(kept) else None
        self.model = build_model(config, self.tokenizer)
        self.batches_per_step = max(1, round(config.batch_tokens / (config.rows * config.context)))
        self.flops_per_token = _flops_per_token(self.model, pairs)

    def _batches(self, pairs: PairCorpus, seed: int) -> PairBatches:
        tokens = self.config.rows * self.config.context
        return PairBatches(pairs, tokens, self.beginning, self.padding, seed, self.config.context)

    def batches(self, step: int, rank: int = 0, world: int = 1) -> list[PairBatch]:
        """The micro-batches of a step, counted from 0; of `world` processes each takes its share."""
        begin = step * self.batches_per_step
        first = begin + rank * self.batches_per_step // world
        last = begin + (rank + 1) * self.batches_per_step // world
        return [self.batches_of_pairs.batch(number) for number in range(first, last)]

    def loss(self, module: Seq2Seq, batch: PairBatch, scale: float) -> Tensor:
        """scale * the sum of the batch's smoothed losses, in nats."""
        return self._loss(module, batch, scale, self.config.label_smoothing)

    def _loss(self, module: Seq2Seq, batch: PairBatch, scale: float, smoothing: float) -> Tensor:
        source, target = torch.from_numpy(batch.source), torch.from_numpy(batch.target)
        hidden = module.decode(module.encode(source), target[:, :-1])
        wanted = target[:, 1:]
        present = wanted != self.padding
        return linear_cross_entropy(
            hidden[present], module.embedding.weight, wanted[present], scale, smoothing
        )

    @torch.no_grad()
    def validate(self, module: Seq2Seq, *, whole: bool = False) -> Validation | None:
        """The loss, without smoothing, on the pairs kept back; None if there are none."""
        if self.kept is None:
            return None
        module.eval()
        batches = self._batches(self.kept, 0)
        total, count, bytes_of_text = 0.0, 0, 0
        for number, batch in enumerate(batches.in_order()):
            if number == _VALIDATION_BATCHES and not whole:
                break
            total += float(self._loss(module, batch, 1.0, 0.0))
            count += batch.target_count
            texts = self.tokenizer.decode_batch(batch.target.tolist())
            bytes_of_text += sum(len(text.strip().encode()) for text in texts)
        module.train()
        loss = total / max(count, 1)
        return Validation(loss, total / math.log(2) / max(bytes_of_text, 1))

    @property
    def kept_targets(self) -> int:
        """Tokens that validation tells."""
        return 0 if self.kept is None else int(self.kept.lengths[:, 1].sum())

    def kept_texts(self) -> tuple[list[str], list[str]]:
        """Sources and targets that were kept back."""
        assert self.kept is not None
        sides = [[self.kept.side(place, side).tolist() for place in range(len(self.kept))] for side in (0, 1)]
        sources, targets = ([text.strip() for text in self.tokenizer.decode_batch(rows)] for rows in sides)
        return sources, targets

    def sample(self, module: Seq2Seq, seed: int) -> str:
        """The prompt, or the first pairs kept back, translated greedily; a line each."""
        if self.config.prompt:
            sources = [self.config.prompt]
        elif self.kept is not None:
            rows = [self.kept.side(place, 0).tolist() for place in range(min(_SAMPLES, len(self.kept)))]
            sources = [text.strip() for text in self.tokenizer.decode_batch(rows)]
        else:
            return ""
        ids = encode_sources(self.tokenizer, sources, self.end, self.padding, self.config.context)
        found = greedy_translate(module, ids)
        texts = self.tokenizer.decode_batch([list(each.tokens) for each in found])
        return "\n".join(f"{source} -> {text.strip()}" for source, text in zip(sources, texts, strict=True))

    def save(self, folder: Path, parameters: dict[str, Tensor] | None = None) -> None:
        """The model folder; of other parameters than the model's, where those are shards."""
        model = self.model
        if parameters is not None:
            model = Seq2Seq(self.model.config)
            model.load_state_dict(parameters)
        save_seq2seq(model, folder, self.tokenizer)


def encode_sources(tokenizer: Tokenizer, texts: list[str], end: int, padding: int, longest: int) -> Tensor:
    """int[B, S], each text with its end token; what is beyond `longest` tokens is cut off."""
    encoded = tokenizer.encode_batch(texts, add_special_tokens=False)
    rows = [torch.tensor([*each.ids[: longest - 1], end]).numpy() for each in encoded]
    return torch.from_numpy(padded(rows, padding))


def build_model(config: TranslationConfig, tokenizer: Tokenizer) -> Seq2Seq:
    """Fresh weights, a function of the seed."""
    padding, beginning, end = special_tokens(tokenizer, PAIR_SPECIALS, config.tokenizer)
    model = Seq2Seq(
        Seq2SeqConfig(
            vocabulary_size=tokenizer.get_vocab_size(),
            hidden_size=config.hidden_size,
            heads=config.heads,
            encoder_layers=config.layers,
            decoder_layers=config.layers,
            feed_forward_size=config.feed_forward_size or 4 * config.hidden_size,
            dropout=config.dropout,
            label_smoothing=config.label_smoothing,
            norm_position=cast(Literal["post", "pre"], config.norm_position),
            padding_token=padding,
            beginning_token=beginning,
            end_token=end,
        )
    )
    model.initialize(torch.Generator().manual_seed(config.seed))
    return model


def _flops_per_token(model: Seq2Seq, pairs: PairCorpus) -> float:
    """6 for each weight and token that meets it, for a target token: sources count by their share."""
    sources, targets = pairs.lengths.sum(axis=0).tolist()

    def weights(part: nn.Module) -> int:
        return sum(each.numel() for each in part.parameters() if each.dim() == 2)

    return 6.0 * float(
        weights(model.encoder) * sources / targets + weights(model.decoder) + weights(model.embedding)
    )


def _tokenizer(config: TranslationConfig, folder: Path | None) -> Tokenizer:
    """The one that the run has already, the one that is named, or a new one of both languages."""
    if folder is not None and (folder / "tokenizer.json").exists():
        return load_tokenizer(folder)
    if config.tokenizer != "bpe":
        return load_tokenizer(Path(config.tokenizer).expanduser())
    pairs = read_pair_files(_paths(config.data), _paths(config.targets), config.columns)
    return train_tokenizer(
        chain.from_iterable(_first(pairs, _VOCABULARY_PAIRS)),
        vocabulary_size=config.vocabulary_size,
        specials=PAIR_SPECIALS,
        space_first=True,
    )


def _first(pairs: Iterator[Any], most: int) -> Iterator[Any]:
    for _, pair in zip(range(most), pairs, strict=False):
        yield pair


def _paths(names: tuple[str, ...]) -> list[Path]:
    return [Path(name).expanduser() for name in names]
