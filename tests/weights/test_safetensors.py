"""The safetensors reader: agreement with the `safetensors` package, shards, and every damaged field."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from octavo.errors import FormatError, UnsupportedError
from octavo.weights.safetensors import read_safetensors, read_sharded
from octavo.weights.tensor import TensorType


def content(header: object, data: bytes = b"", *, length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(
    shape: object = (2,), begin: object = 0, end: object = 8, dtype: object = "F32"
) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def test_what_the_package_writes_is_read(tmp_path: Path) -> None:
    package = pytest.importorskip("safetensors.numpy", reason="the package `safetensors` is not installed")
    generator = np.random.default_rng(1)
    arrays: dict[str, np.ndarray[Any, Any]] = {
        "a": generator.normal(size=(3, 5)).astype(np.float32),
        "b": generator.normal(size=(2, 3, 4)).astype(np.float16),
        "c": np.array(4, np.float32),
        "d": np.arange(3, dtype=np.int64),
        "e": np.zeros((0, 4), np.float32),
    }
    path = tmp_path / "model.safetensors"
    package.save_file(arrays, path, metadata={"format": "pt"})
    entries = read_safetensors(path)
    assert entries.keys() == arrays.keys()
    for name in "abc":
        tensor = entries[name].tensor("renamed")
        assert tensor.name == "renamed" and tensor.shape == arrays[name].shape
        np.testing.assert_array_equal(tensor.numpy(), arrays[name].astype(np.float32))
        assert not tensor.data.flags.writeable and not tensor.data.flags.owndata
    with pytest.raises(UnsupportedError, match="tensor d has the type I64; supported: F32, F16, BF16"):
        entries["d"].tensor("d")


def test_bfloat16(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(content({"t": entry([2], 0, 4, "BF16")}, bytes.fromhex("803f 00c0")))
    tensor = read_safetensors(path)["t"].tensor("t")
    assert tensor.type is TensorType.BF16 and tensor.numpy().tolist() == [1.0, -2.0]


DAMAGED = {
    "empty": (b"", "empty"),
    "7 bytes": (bytes(7), "header length"),
    "header beyond the end": (content({}, length=3), "header length"),
    "header of 2^63 bytes": (content({}, length=1 << 63), "header length"),
    "no JSON": (content(b"{nothing}"), "not valid JSON"),
    "no UTF-8": (content(b'{"\xff": 1}'), "not valid JSON"),
    "a list": (content([]), "must be a JSON object"),
    "name twice": (content(b'{"t": 1, "t": 2}'), "'t' occurs twice"),
    "deep": (content(b"[" * 100_000), "nested too deeply"),
    "entry a number": (content({"t": 1}), "tensor 't'"),
    "no dtype": (content({"t": {"shape": [2], "data_offsets": [0, 8]}}, bytes(8)), "t: dtype"),
    "shape a number": (content({"t": entry(2)}, bytes(8)), "t: shape"),
    "shape negative": (content({"t": entry([-2])}, bytes(8)), "t: shape"),
    "shape a float": (content({"t": entry([2.0])}, bytes(8)), "t: shape"),
    "shape a truth value": (content({"t": entry([True, 2])}, bytes(8)), "t: shape"),
    "shape of 9": (content({"t": entry([1] * 8 + [2])}, bytes(8)), "t: shape"),
    "product wraps": (content({"t": entry([1 << 32, 1 << 32])}, bytes(8)), "t: data_offsets"),
    "size wrong": (content({"t": entry([3])}, bytes(8)), "t: data_offsets: 8 bytes"),
    "begin after end": (content({"t": entry([2], 8, 0)}, bytes(8)), "t: data_offsets"),
    "one offset": (content({"t": {**entry(), "data_offsets": [8]}}, bytes(8)), "t: data_offsets"),
    "truncated": (content({"t": entry()}, bytes(7)), "t: data_offsets.*truncated"),
    "overlap": (content({"t": entry(), "u": entry([2], 4, 12)}, bytes(12)), "u: data_offsets: begins at 4"),
    "hole": (content({"t": entry(), "u": entry([2], 12, 20)}, bytes(20)), "u: data_offsets: begins at 12"),
    "rest": (content({"t": entry()}, bytes(9)), "1 bytes after the last tensor"),
    "half a byte": (content({"t": entry([1], 0, 1, "F4")}, bytes(1)), "t: data_offsets"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_damage_is_named(tmp_path: Path, case: str) -> None:
    raw, message = DAMAGED[case]
    path = tmp_path / "m.safetensors"
    path.write_bytes(raw)
    with pytest.raises(FormatError, match=message) as caught:
        read_safetensors(path)
    assert str(path) in str(caught.value)


def test_an_unknown_dtype_is_named(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(content({"t": entry(dtype="F128")}, bytes(8)))
    with pytest.raises(UnsupportedError, match="tensor t has the type 'F128'; supported: F32"):
        read_safetensors(path)


def shards(folder: Path, weight_map: object, files: dict[str, list[str]]) -> Path:
    for file, names in files.items():
        header = {name: entry([2], 8 * index, 8 * index + 8) for index, name in enumerate(names)}
        (folder / file).write_bytes(content(header, bytes(8 * len(names))))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return folder


def test_shards_are_one(tmp_path: Path) -> None:
    weight_map = {"a": "1.safetensors", "b": "2.safetensors", "c": "1.safetensors"}
    shards(tmp_path, weight_map, {"1.safetensors": ["a", "c"], "2.safetensors": ["b"]})
    assert set(read_sharded(tmp_path)) == {"a", "b", "c"}


BAD_INDEXES = {
    "no map": (None, {}, "weight_map"),
    "a number for a file": ({"a": 1}, {}, "weight_map"),
    "another folder": ({"a": "../1.safetensors"}, {}, "no safetensors file of this folder"),
    "an absolute path": ({"a": "/etc/passwd.safetensors"}, {}, "no safetensors file of this folder"),
    "a pickle": ({"a": "1.bin"}, {}, "no safetensors file of this folder"),
    "a missing file": ({"a": "1.safetensors"}, {}, "1.safetensors is not in the folder"),
    "a missing tensor": (
        {"a": "1.safetensors", "b": "1.safetensors"},
        {"1.safetensors": ["a"]},
        "b is not in",
    ),
    "a tensor twice": (
        {"a": "1.safetensors", "b": "2.safetensors"},
        {"1.safetensors": ["a"], "2.safetensors": ["a", "b"]},
        "tensor a is in another file",
    ),
}


@pytest.mark.parametrize("case", BAD_INDEXES)
def test_bad_indexes_are_refused(tmp_path: Path, case: str) -> None:
    weight_map, files, message = BAD_INDEXES[case]
    shards(tmp_path, weight_map, files)
    with pytest.raises(FormatError, match=message):
        read_sharded(tmp_path)
