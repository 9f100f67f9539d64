"""Real models write the same with every source of drafts as without, greedy and sampled.

OCTAVO_SPECULATION_PROMPTS: prompts for each model and source; docs/speculation.md says how many were tried.
"""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import pytest

import octavo
from octavo.decoding.speculation.speculation import DRAFT_MAX

PROMPTS = int(os.environ.get("OCTAVO_SPECULATION_PROMPTS", "8"))
MODELS = Path(os.environ.get("OCTAVO_TEST_MODELS", "~/.cache/octavo-models")).expanduser()
SHARED = Path(os.environ.get("OCTAVO_SHARED", Path(__file__).resolve().parents[3].parent / "shared"))
QWEN = "Qwen2.5-Coder-{}-Instruct.Q4_K_M.gguf"
CASES = [
    ("SmolLM2-135M-Instruct.Q4_1.gguf", "suffix"),
    ("SmolLM2-135M-Instruct.Q4_1.gguf", "SmolLM2-135M-Instruct.Q4_1.gguf"),
    ("gemma3-270m.Q4_K_M.gguf", "suffix"),
    (QWEN.format("0.5B"), "suffix"),
    (QWEN.format("1.5B"), "suffix"),
    (QWEN.format("1.5B"), QWEN.format("0.5B")),
]


def prompts() -> list[str]:
    """HumanEval's, then questions of GSM8K."""
    folder = SHARED / "data" / "reasoning"
    files = folder / "HumanEval.jsonl.gz", folder / "gsm8k-train.jsonl"
    for path in files:
        if not path.exists():
            pytest.skip(f"{path} is not there: OCTAVO_SHARED names the folder")
    with gzip.open(files[0], "rt", encoding="utf-8") as lines:
        code = [str(json.loads(line)["prompt"]) for line in lines]
    with files[1].open(encoding="utf-8") as lines:
        questions = [
            str(json.loads(line)["question"]) for _, line in zip(range(PROMPTS), lines, strict=False)
        ]
    mixed = [text for pair in zip(code, questions, strict=False) for text in pair]
    return [*mixed, *questions[len(code) :]][:PROMPTS]


@pytest.mark.real
@pytest.mark.timeout(0)
@pytest.mark.parametrize(("stem", "draft"), CASES)
def test_the_same_text_with_drafts(stem: str, draft: str) -> None:
    for path in (MODELS / stem, *([MODELS / draft] if draft.endswith("gguf") else [])):
        if not path.exists():
            pytest.skip(f"{path} is not there: OCTAVO_TEST_MODELS names the folder")
    source = MODELS / draft if draft.endswith("gguf") else draft
    accepted = 0
    with octavo.load(MODELS / stem, max_sequences=4, context=2048, draft=source) as model:
        engine = model.engine
        speculation, texts = engine.speculation, prompts()
        assert speculation is not None
        speculation._least_gain = 0.0  # drafts that do not pay have to be right as well
        for first in range(0, len(texts), 4):
            batch = texts[first : first + 4]
            # In turns: the controller's choice, and whatever is proposed.
            speculation._always = first % 8 == 4
            speculation._draft_max = 4 if speculation._always else DRAFT_MAX
            for sampling in ({"temperature": 0}, {"temperature": 0.9, "seed": first}):
                engine.speculation = None
                plain = model.generate(batch, max_tokens=48, **sampling)  # type: ignore[arg-type]
                engine.speculation = speculation
                drafted = model.generate(batch, max_tokens=48, **sampling)  # type: ignore[arg-type]
                assert [one.tokens for one in drafted] == [one.tokens for one in plain]
                accepted += sum(one.timings.accepted for one in drafted)
    assert accepted > 0
