"""What llama-bench and llama-batched-bench print is read right, told by scripts that print the same."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks.peers import LlamaBench, MissingPeerError, import_peer, llama_benches

BENCH = """
import sys
if "--help" in sys.argv:
    print("options: FORK")
    sys.exit()
prompt, generate = (int(sys.argv[sys.argv.index(name) + 1]) for name in ("-p", "-n"))
print('[{"build_number": 7, "build_commit": "abc", "avg_ts": %d}]' % (1000 * prompt + generate))
"""
BATCHED = """
import sys
value = lambda name: int(sys.argv[sys.argv.index(name) + 1])
assert ("-rtr" in sys.argv) == FORK
print("|    PP |     TG |    B |   N_KV |   T_PP s | S_PP t/s |   T_TG s | S_TG t/s |      T s |    S t/s |")
print("|-------|--------|------|--------|----------|----------|----------|----------|----------|----------|")
numbers = value("-npp"), value("-ntg"), value("-npl")
print("|%6d | %6d | %4d | 9 | 1.0 | 2.0 | 3.0 | 456.50 | 5.0 | 6.0 |" % numbers)
"""


def write_program(path: Path, source: str) -> Path:
    path.write_text(f"#!{sys.executable}\n{source}")
    path.chmod(0o755)
    return path


@pytest.fixture(params=[False, True], ids=["llama.cpp", "fork"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> LlamaBench:
    option = "--run-time-repack" if request.param else "--n-depth"
    binary = write_program(tmp_path / "llama-bench", BENCH.replace("FORK", option))
    write_program(tmp_path / "llama-batched-bench", BATCHED.replace("FORK", str(request.param)))
    return LlamaBench("native", binary, tmp_path / "model.gguf", threads=2)


def test_prompts_and_single_sequences_are_read_from_json(bench: LlamaBench) -> None:
    assert bench.prompt(512) == 512_000
    assert bench.generate(64) == 64
    assert bench.version() == "build 7 (abc)"


@pytest.mark.parametrize(("batch", "depth"), [(8, 128), (1, 2048)])
def test_batches_and_depths_are_read_from_the_table(bench: LlamaBench, batch: int, depth: int) -> None:
    assert bench.generate(64, batch, depth) == 456.5


def test_a_program_that_fails_is_named(tmp_path: Path) -> None:
    binary = write_program(tmp_path / "llama-bench", "import sys; sys.exit('no such model')")
    with pytest.raises(RuntimeError, match="llama-bench of native failed: no such model"):
        LlamaBench("native", binary, tmp_path / "model.gguf", threads=2).prompt(1)


def test_the_environment_names_builds(bench: LlamaBench, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(bench.binary)
    monkeypatch.setenv("OCTAVO_LLAMA_BENCH", f"one={path},{path}")
    assert [each.name for each in llama_benches(bench.model, 2)] == ["one", "llama.cpp (native)"]
    monkeypatch.setenv("OCTAVO_LLAMA_BENCH", "one=/nowhere/llama-bench")
    with pytest.raises(MissingPeerError, match="/nowhere/llama-bench is no file"):
        llama_benches(bench.model, 2)
    monkeypatch.delenv("OCTAVO_LLAMA_BENCH")
    assert llama_benches(bench.model, 2) == []


def test_a_peer_that_is_absent_says_how_to_get_it() -> None:
    with pytest.raises(MissingPeerError, match=r'pip install "octavo\[bench\]"'):
        import_peer("a_peer_that_nobody_has")
