"""MaskBench and the JSON-Schema-Test-Suite as ratchets: nothing invalid is accepted, what passed passes.

ratchets.json says what does not pass yet; a schema that passes now may be taken out of it, none put in.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from benchmarks.json_schema_suite import SUITE, judge, remotes
from benchmarks.maskbench import DATA, Octavo, Vocabulary, schemas
from benchmarks.maskbench import judge as judge_schema

RATCHETS: dict[str, Any] = json.loads((Path(__file__).parent / "ratchets.json").read_text())
ABSENT = "the test data is absent: OCTAVO_SHARED names its folder"


@pytest.mark.skipif(not SUITE.exists(), reason=ABSENT)
def test_the_suite_of_draft_2020_12() -> None:
    resources = remotes()
    for path in sorted((SUITE / "tests/draft2020-12").glob("*.json")):
        counts = Counter[str]()
        for group in json.loads(path.read_text()):
            counts.update(judge(group, resources, any_order=True))
        assert counts["false accept"] == 0, path.stem
        assert counts["pass"] >= RATCHETS["suite passing"][path.stem], path.stem


@pytest.mark.skipif(not DATA.exists(), reason=ABSENT)
@pytest.mark.parametrize("part", range(4))
def test_maskbench(part: int) -> None:
    vocabulary = Vocabulary.of_bytes()
    engine = Octavo(vocabulary, any_order=True)
    known = RATCHETS["maskbench refused"]
    for number, case in enumerate(schemas(1)):
        if number % 4 == part:
            outcome, _ = judge_schema(engine, vocabulary, case, None)
            # Refusing is allowed where it is known; accepting what is invalid never is.
            assert outcome == "passing" or (outcome == "compile error" and case["name"] in known), (
                f"{case['name']}: {outcome}"
            )
