"""The JSON-Schema-Test-Suite as a ratchet: nothing invalid is accepted, no fewer tests pass than before."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from benchmarks.json_schema_suite import SUITE, judge, remotes

PASSING = 1000


@pytest.mark.skipif(not SUITE.exists(), reason="the test data is absent: OCTAVO_SHARED names its folder")
def test_the_suite_of_draft_2020_12() -> None:
    resources, counts = remotes(), Counter[str]()
    for path in sorted((SUITE / "tests/draft2020-12").glob("*.json")):
        for group in json.loads(path.read_text()):
            counts.update(judge(group, resources, any_order=True))
    assert counts["false accept"] == 0
    assert counts["pass"] >= PASSING
