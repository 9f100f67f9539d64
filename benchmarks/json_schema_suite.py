"""JSON-Schema-Test-Suite, draft 2020-12, mandatory files: what the grammars accept, and the suite's word.

python -m benchmarks.json_schema_suite [--ordered] [--show]

Byte for byte and without a vocabulary; properties in any order, because the suite's are unordered.  A group
whose schema is refused counts all its tests as refused.  Ends with status 1 where anything invalid was
accepted.
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from octavo.grammar import Grammar, GrammarEmptyError, GrammarError
from octavo.grammar.engine.automaton import DEAD, Automaton

SHARED = Path(os.environ.get("OCTAVO_SHARED", Path(__file__).parents[1].parent / "shared"))
SUITE = SHARED / "data/json-schema/test-suite"


def accepts(automaton: Automaton, data: bytes) -> bool:
    state = automaton.start
    for byte in data:
        state = automaton.step(state, byte)
        if state == DEAD:
            return False
    return bool(automaton.states[state].endings)


def remotes() -> dict[str, Any]:
    found = {}
    for path in sorted((SUITE / "remotes").rglob("*.json")):
        found[f"http://localhost:1234/{path.relative_to(SUITE / 'remotes')}"] = json.loads(path.read_text())
    return found


def judge(group: dict[str, Any], resources: dict[str, Any], any_order: bool) -> list[str]:
    """For each test: "pass", "refused", "false accept" or "false reject"."""
    try:
        grammar = Grammar.from_json_schema(group["schema"], any_order=any_order, resources=resources)
        automaton: Automaton | None = Automaton(grammar.start)
    except GrammarEmptyError:
        automaton = None
    except GrammarError as error:
        if "--show" in sys.argv:
            print(f"refused: {group['description']}: {error}")
        return ["refused"] * len(group["tests"])
    verdicts = []
    for test in group["tests"]:
        data = json.dumps(test["data"], ensure_ascii=False).encode()
        try:
            accepted = automaton is not None and accepts(automaton, data)
        except GrammarError:
            verdicts.append("refused")
            continue
        verdict = "pass" if accepted == test["valid"] else "false accept" if accepted else "false reject"
        if verdict != "pass" and "--show" in sys.argv:
            print(f"{verdict}: {group['description']}: {test['description']}: {data[:80]!r}")
        verdicts.append(verdict)
    return verdicts


def main() -> int:
    resources = remotes()
    total: Counter[str] = Counter()
    for path in sorted((SUITE / "tests/draft2020-12").glob("*.json")):
        counts: Counter[str] = Counter()
        for group in json.loads(path.read_text()):
            counts.update(judge(group, resources, any_order="--ordered" not in sys.argv))
        print(f"{path.stem:24} " + "  ".join(f"{name} {count}" for name, count in sorted(counts.items())))
        total += counts
    share = total["pass"] / max(sum(total.values()), 1)
    print(f"{sum(total.values())} tests, {share:.1%} pass: {dict(total)}")
    return 1 if total["false accept"] else 0


if __name__ == "__main__":
    sys.exit(main())
