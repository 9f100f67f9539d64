"""SST-2 (Socher et al. 2013; Wang et al. 2018): is a sentence of a film review kind or not?"""

from __future__ import annotations

from pathlib import Path

from octavo.training.tasks.encoder_config import EncoderConfig


def sst2_pretraining(texts: tuple[Path, ...], out: str) -> EncoderConfig:
    """A small BERT on some megabytes of text: wikitext and the training sentences, without their labels.

    texts: files for `--data`; a document is a file, or a line of JSONL.
    """
    return EncoderConfig(
        out=out,
        data=tuple(map(str, texts)),
        validation=0.03,
        vocabulary_size=6000,
        layers=4,
        hidden_size=128,
        heads=4,
        context=64,
        rows=64,
        batch_tokens=4096,
        steps=900,
        optimizer="muon",
        learning_rate=1e-2,
        mask_probability=0.2,  # more than the paper's 0.15, for a small network (Wettig et al. 2023)
        dropout=0.0,
    )


def sst2(train: Path, dev: Path, out: str, start: str | None, tokenizer: str = "wordpiece") -> EncoderConfig:
    """Fine-tuning on the sentences' labels; start None: the same network from fresh weights.

    The learning rate suits both: a third of it costs a pretrained network five points.
    """
    return EncoderConfig(
        out=out,
        task="classify",
        start=start,
        tokenizer=tokenizer,
        data=(str(train),),
        columns=("1", "2"),
        validation_data=(str(dev),),
        layers=4,
        hidden_size=128,
        heads=4,
        context=64,
        rows=32,
        batch_tokens=32 * 64,
        steps=430,
        optimizer="muon",
        learning_rate=3e-3,
        schedule="linear",
        warmup=0.1,
        final=0.0,
        dropout=0.1,
    )
