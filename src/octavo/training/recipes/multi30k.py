"""English to German on Multi30k (Elliott et al. 2016): 29,000 captions of pictures."""

from __future__ import annotations

from pathlib import Path

from octavo.training.tasks.translation_config import TranslationConfig


def multi30k(data: Path, out: str) -> TranslationConfig:
    """data: the folder with multi30k-{train,val}.{en,de}.

    2.2 M parameters, which see the pairs thirteen times; post-norm as in the paper, but with Muon and a rate
    that stays before it falls: from the checkpoint before the fall a longer run can go on.
    """

    def file(part: str, language: str) -> tuple[str]:
        return (str(data / f"multi30k-{part}.{language}"),)

    return TranslationConfig(
        out=out,
        data=file("train", "en"),
        targets=file("train", "de"),
        validation_data=file("val", "en"),
        validation_targets=file("val", "de"),
        vocabulary_size=6000,
        layers=3,
        hidden_size=128,
        heads=4,
        feed_forward_size=512,
        dropout=0.15,
        context=128,
        rows=16,
        batch_tokens=4096,
        steps=1500,
        optimizer="muon",
        learning_rate=8e-3,
        weight_decay=0.05,
        schedule="warmup_stable_decay",
        warmup=60 / 1500,
        decay=500 / 1500,
    )
