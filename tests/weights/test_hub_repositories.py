"""hf:owner/repo through the hub's own library, from a hub on this machine.

Each download runs in a process of its own: the library reads where the hub is when it is imported.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hub_server import HubServer

CONTENT = bytes(range(256)) * 512
FOLDER = {
    "config.json": b"{}",
    "model.safetensors": CONTENT,
    "tokenizer.json": b"{}",
    "1_Pooling/config.json": b"{}",
    "README.md": b"---\nlicense: mit\n---\n",
}


Resolve = Callable[..., tuple[str, str]]


@pytest.fixture
def server() -> Iterator[HubServer]:
    repositories = {
        "owner/one": {"README.md": b"a card", "Model-Q8_0.gguf": CONTENT},
        "owner/several": {
            f"Model-{kind}.gguf": CONTENT + kind.encode() for kind in ("Q2_K", "Q4_K_M", "Q8_0")
        },
        "owner/odd": {f"Model-{kind}.gguf": CONTENT for kind in ("A", "B")},
        "owner/nested": {"quantized/Model-Q4_0.gguf": CONTENT},
        "owner/folder": {**FOLDER, "pytorch_model.bin": b"a pickle", "run.py": b"code"},
        "owner/pickles": {"pytorch_model.bin": b"a pickle"},
    }
    with HubServer(repositories) as running:
        yield running


@pytest.fixture
def resolve(server: HubServer, tmp_path: Path) -> Resolve:
    """resolve(model, offline=...) -> (path printed, what was said on standard error)."""

    def run(model: str, *, offline: bool = False, endpoint: str = server.url) -> tuple[str, str]:
        program = "import sys\nfrom octavo.weights import hub\n"
        program += f"sys.stdout.write(str(hub.resolve({model!r}, offline={offline})))"
        environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        environment |= {"HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_XET": "1"}
        environment |= {"OCTAVO_HOME": str(tmp_path / "home"), "NO_PROXY": "127.0.0.1"}
        done = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=120
        )
        return done.stdout, done.stderr

    return run


def test_the_one_file_of_a_repository(resolve: Resolve, server: HubServer) -> None:
    path, said = resolve("hf:owner/one")
    assert Path(path).read_bytes() == CONTENT, said
    assert Path(path).name == "Model-Q8_0.gguf"
    assert sorted(entry.name for entry in Path(path).parent.iterdir()) == ["Model-Q8_0.gguf", "octavo.json"]
    assert resolve("hf:owner/one", offline=True)[0] == path
    assert server.downloads == ["Model-Q8_0.gguf"]


def test_of_several_files_a_small_and_good_one(resolve: Resolve) -> None:
    assert resolve("hf:owner/several")[0].endswith("Model-Q4_K_M.gguf")


def test_a_named_file(resolve: Resolve) -> None:
    path, said = resolve("hf:owner/several/Model-Q2_K.gguf")
    assert Path(path).read_bytes() == CONTENT + b"Q2_K", said


def test_a_file_in_a_folder_of_a_repository(resolve: Resolve) -> None:
    for model in ("hf:owner/nested", "hf:owner/nested/quantized/Model-Q4_0.gguf"):
        path, said = resolve(model)
        assert Path(path).name == "Model-Q4_0.gguf" and Path(path).read_bytes() == CONTENT, said


def test_a_folder_without_code_and_pickles(resolve: Resolve) -> None:
    text, said = resolve("hf:owner/folder")
    path = Path(text)
    assert path.name == "folder", said
    found = {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}
    assert found == FOLDER


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("hf:owner/odd", "hf:owner/odd/Model-A.gguf"),
        ("hf:owner/pickles", "neither a .gguf nor a .safetensors"),
        ("hf:owner/absent", "hf:owner/absent"),
        ("hf:owner/one/absent.gguf", "hf:owner/one"),
    ],
)
def test_what_cannot_be_had(resolve: Resolve, model: str, words: str, tmp_path: Path) -> None:
    path, said = resolve(model)
    assert not path
    assert "DownloadError" in said and words in said
    assert not list((tmp_path / "home").glob("models/*"))


def test_no_network(resolve: Resolve) -> None:
    path, said = resolve("hf:owner/one/Model-Q8_0.gguf", endpoint="http://127.0.0.1:1")
    assert not path
    assert "HF_ENDPOINT" in said and "give its path" in said
