"""Models on the Hugging Face hub, by huggingface_hub: its endpoint, token and proxy settings hold here."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from octavo.errors import DownloadError

if TYPE_CHECKING:
    from tqdm import tqdm

# Of a repository without GGUF files: what octavo reads, and the card, which names the licence.
_FOLDER_FILES = [
    "*.json",
    "*.safetensors",
    "*.jinja",
    "README.md",
    "LICENSE*",
]
# Of several GGUF files in a repository, the first that is there: small, and close to the full precision.
_PREFERRED = ("Q4_K_M", "Q4_K_S", "Q4_1", "Q4_0", "Q5_K_M", "Q8_0")


def fetch_repository(repository: str, file: str | None, folder: Path, entry: str | None) -> str:
    """Bring a file of "owner/repo", or the model in it, into `folder`; returns the name of what came.

    entry: what to call a folder, or None for the repository's name.  What arrived before a break is kept and
    continued.  Raises DownloadError.
    """
    from huggingface_hub import HfApi, hf_hub_download, snapshot_download

    folder.mkdir(parents=True, exist_ok=True)
    try:
        file = file or _choose_gguf(HfApi().list_repo_files(repository), repository)
        if file is not None:
            path = Path(hf_hub_download(repository, file, local_dir=folder, tqdm_class=_silent_bar()))
            if path.parent != folder:
                path.replace(folder / path.name)
            return path.name
        name = entry or repository.split("/")[1]
        snapshot_download(
            repository, local_dir=folder / name, allow_patterns=_FOLDER_FILES, tqdm_class=_silent_bar()
        )
        return name
    except DownloadError:
        raise
    except Exception as error:  # of the hub's library and of the HTTP libraries below it, whose kinds change
        raise DownloadError(f"hf:{repository}: {_reason(error)}") from error


def _choose_gguf(files: list[str], repository: str) -> str | None:
    """The GGUF file of a repository to take; None if it has safetensors and is taken whole."""
    ggufs = sorted(name for name in files if name.lower().endswith(".gguf"))
    if len(ggufs) == 1:
        return ggufs[0]
    for kind in _PREFERRED:
        for name in ggufs:
            if re.search(rf"(?<![A-Z0-9_]){kind}\.gguf$", name, re.IGNORECASE):
                return name
    if ggufs:
        raise DownloadError(
            f"hf:{repository} has several files; name one: "
            + ", ".join(f"hf:{repository}/{name}" for name in ggufs[:6])
        )
    if not any(name.endswith(".safetensors") for name in files):
        raise DownloadError(f"hf:{repository} has neither a .gguf nor a .safetensors file")
    return None


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:300] if lines else ''}"


def _silent_bar() -> type[tqdm]:
    """The hub's own bars stay off: one bar for all sources is drawn by whoever called `resolve`."""
    from tqdm.auto import tqdm

    class SilentBar(tqdm):  # type: ignore[misc]
        def __init__(self, *arguments: Any, **options: Any) -> None:
            options.pop("name", None)  # huggingface_hub's own argument
            super().__init__(*arguments, **{**options, "disable": True})

    return SilentBar
