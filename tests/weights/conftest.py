"""Tiny models as fixtures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tiny_folders import Maker, save_folder
from tiny_models import TinyGguf, tiny_metadata, tiny_tensors

from octavo.weights.gguf_writer import write_gguf
from octavo.weights.tensor import Tensor


@pytest.fixture
def tiny_gguf(tmp_path: Path) -> TinyGguf:
    """make(architecture, metadata={...}, tensors={...}): a model file; None takes a key or tensor away."""

    def make(
        architecture: str,
        metadata: Mapping[str, object] | None = None,
        tensors: Mapping[str, Tensor | None] | None = None,
    ) -> Path:
        values = {**tiny_metadata(architecture), **(metadata or {})}
        held = {**tiny_tensors(architecture), **(tensors or {})}
        path = tmp_path / f"{architecture}.gguf"
        write_gguf(
            path,
            {key: value for key, value in values.items() if value is not None},
            [tensor for tensor in held.values() if tensor is not None],
        )
        return path

    return make


@pytest.fixture
def make(tmp_path: Path) -> Maker:
    """make(case, **more) saves a seeded model as a folder; the folder and the model."""

    def save(case: str, **more: Any) -> tuple[Path, Any]:
        return tmp_path, save_folder(tmp_path, case, **more)

    return save
