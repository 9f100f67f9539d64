"""The GGUF reader and writer: round trips, agreement with the `gguf` package, every damaged field."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import numpy as np
import pytest

from octavo.errors import FormatError, UnsupportedError
from octavo.text.string_table import StringTable
from octavo.weights import gguf
from octavo.weights.gguf import read_gguf
from octavo.weights.gguf_writer import write_gguf
from octavo.weights.tensor import Tensor, TensorType

METADATA: dict[str, object] = {
    "text": "grüße 🐙",
    "empty": "",
    "yes": True,
    "no": False,
    "u32": 4_000_000_000,
    "i32": -5,
    "u64": 1 << 40,
    "i64": -(1 << 40),
    "f32": 0.25,
    "strings": ["a", "", "çé", "x" * 300],
    "flags": [True, False, True],
    **{f"scalar {kind.__name__}": kind(7) for kind in (np.uint8, np.int8, np.uint16, np.int16, np.float64)},
    **{
        f"array {kind.__name__}": np.array([1, 2, 3], kind)
        for kind in (np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.int32, np.uint64, np.int64)
    },
    "array float": np.array([0.5, -2.0], np.float32),
    "array double": np.array([0.1], np.float64),
    "array empty": np.array([], np.float32),
}


def tensors_of_every_type() -> list[Tensor]:
    generator = np.random.default_rng(5)
    made = []
    for kind in TensorType:
        shape = (3, 2 * kind.block_elements)
        data = generator.integers(0, 256, 3 * 2 * kind.block_bytes, dtype=np.uint8)
        made.append(Tensor(f"of.{kind.name}", kind, shape, data))
    made.append(Tensor("four", TensorType.F32, (2, 3, 1, 4), np.zeros(96, np.uint8)))
    return made


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("alignment", [32, 1, 4096])
def test_what_is_written_is_read(tmp_path: Path, version: int, alignment: int) -> None:
    path = tmp_path / "t.gguf"
    metadata = {**METADATA, "general.alignment": alignment}
    tensors = tensors_of_every_type()
    write_gguf(path, metadata, tensors, version=version)
    file = read_gguf(path)
    assert file.version == version
    assert list(file.metadata) == list(metadata)
    for key, value in metadata.items():
        found = file.metadata[key]
        if isinstance(value, np.ndarray):
            assert isinstance(found, np.ndarray) and found.dtype == value.dtype
            np.testing.assert_array_equal(found, value)
        else:
            assert found == value
            assert isinstance(found, bool) == isinstance(value, bool)
    assert [tensor.name for tensor in tensors] == list(file.tensors)
    for tensor in tensors:
        found = file.tensors[tensor.name]
        assert (found.name, found.type, found.shape) == (tensor.name, tensor.type, tensor.shape)
        np.testing.assert_array_equal(found.data, tensor.data)
        assert not found.data.flags.writeable and not found.data.flags.owndata


def test_the_gguf_package_reads_what_we_write(tmp_path: Path) -> None:
    package = pytest.importorskip("gguf", reason="the independent reader `gguf` is not installed")
    path = tmp_path / "t.gguf"
    write_gguf(path, METADATA, tensors_of_every_type())
    reader = package.GGUFReader(path)
    assert reader.fields["text"].contents() == METADATA["text"]
    assert reader.fields["strings"].contents() == METADATA["strings"]
    assert reader.fields["i64"].contents() == METADATA["i64"]
    for found, tensor in zip(reader.tensors, tensors_of_every_type(), strict=True):
        assert (found.name, int(found.tensor_type)) == (tensor.name, int(tensor.type))
        assert tuple(int(size) for size in found.shape) == tensor.shape[::-1]
        np.testing.assert_array_equal(found.data.reshape(-1).view(np.uint8), tensor.data)


def test_we_read_what_the_gguf_package_writes(tmp_path: Path) -> None:
    package = pytest.importorskip("gguf", reason="the independent writer `gguf` is not installed")
    path = tmp_path / "t.gguf"
    writer = package.GGUFWriter(path, "llama")
    writer.add_array("tokenizer.ggml.tokens", ["a", "é"])
    writer.add_uint64("big", 1 << 50)
    writer.add_custom_alignment(64)
    values = np.arange(12, dtype=np.float32).reshape(3, 4)
    writer.add_tensor("one", values)
    writer.add_tensor("two", values.astype(np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    file = read_gguf(path)
    assert file.metadata["tokenizer.ggml.tokens"] == ["a", "é"]
    assert file.metadata["big"] == 1 << 50
    np.testing.assert_array_equal(file.tensors["one"].numpy(), values)
    np.testing.assert_array_equal(file.tensors["two"].numpy(), values)


def test_string_arrays_are_sequences(tmp_path: Path) -> None:
    path = tmp_path / "t.gguf"
    strings = ["zero", "", "zwei", "trois"]
    write_gguf(path, {"s": strings}, [])
    found = read_gguf(path).metadata["s"]
    assert isinstance(found, StringTable)
    assert len(found) == 4 and [found[index] for index in range(-4, 4)] == strings * 2
    assert found[1:3] == strings[1:3] and list(found) == strings and found.index("zwei") == 2
    with pytest.raises(IndexError):
        found[4]


def test_a_writer_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"^bad: .*dict"):
        write_gguf(tmp_path / "t.gguf", {"bad": {}}, [])
    assert not list(tmp_path.iterdir())


# Damaged files, made byte by byte.


def u32(value: int) -> bytes:
    return struct.pack("<I", value)


def u64(value: int) -> bytes:
    return struct.pack("<Q", value)


def text(value: bytes) -> bytes:
    return u64(len(value)) + value


def head(tensors: int = 0, entries: int = 0, *, magic: bytes = b"GGUF", version: int = 3) -> bytes:
    return magic + u32(version) + u64(tensors) + u64(entries)


def tensor(name: bytes, shape: tuple[int, ...] = (32,), kind: int = 0, offset: int = 0) -> bytes:
    return text(name) + u32(len(shape)) + b"".join(map(u64, shape)) + u32(kind) + u64(offset)


def with_data(header: bytes, size: int) -> bytes:
    return header + bytes(-len(header) % 32) + bytes(size)


STRING, ARRAY = u32(gguf.STRING), u32(gguf.ARRAY)
ALIGNMENT = text(b"general.alignment") + u32(4)
DAMAGED = {
    "magic": (head(magic=b"GGML"), "magic"),
    "short magic": (b"GG", "magic"),
    "short version": (b"GGUF\3", "version"),
    "no counts": (b"GGUF" + u32(3), "tensor count"),
    "too many tensors": (head(tensors=1 << 60), "tensor count"),
    "too many entries": (head(entries=(1 << 64) - 1), "metadata count"),
    "key too long": (head(entries=1) + u64(1 << 40) + bytes(64), "metadata key 0"),
    "key beyond the end": (head(entries=1) + u64(200) + bytes(64), "metadata key 0"),
    "empty key": (head(entries=1) + text(b"") + u32(0) + bytes(64), "metadata key 0.*empty"),
    "key not UTF-8": (head(entries=1) + text(b"\xff\xfe") + bytes(64), "metadata key 0.*UTF-8"),
    "key twice": (head(entries=2) + 2 * (text(b"k") + u32(0) + b"\1") + bytes(64), "'k' occurs twice"),
    "no such value type": (head(entries=1) + text(b"k") + u32(13) + bytes(64), "k type"),
    "value not UTF-8": (head(entries=1) + text(b"k") + STRING + text(b"\xff") + bytes(64), "k: is not UTF-8"),
    "bool of 2": (head(entries=1) + text(b"k") + u32(7) + b"\2" + bytes(64), "k: is 2"),
    "array of arrays": (head(entries=1) + text(b"k") + ARRAY + ARRAY + u64(1) + bytes(64), "k element type"),
    "array of nothing known": (
        head(entries=1) + text(b"k") + ARRAY + u32(99) + u64(1) + bytes(64),
        "k element",
    ),
    "array too long": (head(entries=1) + text(b"k") + ARRAY + u32(10) + u64(1 << 61) + bytes(64), "k: needs"),
    "bools of 3": (
        head(entries=1) + text(b"k") + ARRAY + u32(7) + u64(2) + b"\1\3" + bytes(64),
        "k: .*truth",
    ),
    "strings too many": (head(entries=1) + text(b"k") + ARRAY + STRING + u64(1 << 40), "k array length"),
    "string too long": (
        head(entries=1) + text(b"k") + ARRAY + STRING + u64(2) + text(b"a") + u64((1 << 64) - 1) + bytes(64),
        r"k\[1\].*beyond",
    ),
    "alignment 0": (head(entries=1) + ALIGNMENT + u32(0) + bytes(64), "general.alignment"),
    "alignment 48": (head(entries=1) + ALIGNMENT + u32(48) + bytes(64), "general.alignment"),
    "alignment 2 MiB": (head(entries=1) + ALIGNMENT + u32(1 << 21) + bytes(64), "general.alignment"),
    "no tensor name": (with_data(head(tensors=1) + tensor(b""), 128), "tensor 0 name"),
    "no dimensions": (with_data(head(tensors=1) + tensor(b"t", ()), 128), "t dimension count"),
    "5 dimensions": (with_data(head(tensors=1) + tensor(b"t", (1,) * 5), 128), "t dimension count"),
    "dimension 0": (with_data(head(tensors=1) + tensor(b"t", (32, 0)), 128), "t dimensions"),
    "product wraps": (with_data(head(tensors=1) + tensor(b"t", (1 << 32, 1 << 32)), 128), "t offset"),
    "row of half a block": (
        with_data(head(tensors=1) + tensor(b"t", (48, 2), 8), 128),
        "t dimension 0.*Q8_0",
    ),
    "offset unaligned": (with_data(head(tensors=1) + tensor(b"t", offset=16), 256), "t offset.*alignment"),
    "offset beyond": (with_data(head(tensors=1) + tensor(b"t", offset=1 << 63), 256), "t offset.*beyond"),
    "data cut": (with_data(head(tensors=1) + tensor(b"t"), 127), "t offset.*truncated"),
    "name twice": (
        with_data(head(tensors=2) + tensor(b"t") + tensor(b"t", offset=128), 256),
        "tensor t.*twice",
    ),
    "overlap": (
        with_data(head(tensors=2) + tensor(b"t") + tensor(b"u", offset=96), 256),
        "u offset.*tensor t",
    ),
    "empty": (b"", "empty"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_damage_is_named(tmp_path: Path, case: str) -> None:
    content, message = DAMAGED[case]
    path = tmp_path / "t.gguf"
    path.write_bytes(content)
    with pytest.raises(FormatError, match=message) as caught:
        read_gguf(path)
    assert str(path) in str(caught.value)


def test_bad_strings_of_arrays_are_found_when_read(tmp_path: Path) -> None:
    path = tmp_path / "t.gguf"
    strings = text(b"good") + text(b"\xff\xff") + text(b"good")
    path.write_bytes(head(entries=1) + text(b"k") + ARRAY + STRING + u64(3) + strings + bytes(64))
    found = read_gguf(path).metadata["k"]
    assert isinstance(found, StringTable) and found[0] == found[2] == "good"
    with pytest.raises(FormatError, match="k: a string is not UTF-8"):
        found[1]
    with pytest.raises(FormatError, match="k: a string is not UTF-8"):
        list(found)


UNSUPPORTED = {
    "version 1": (head(version=1), "version 1; supported"),
    "version 4": (head(version=4), "version 4; supported"),
    "big-endian": (head(version=3 << 24), "big-endian"),
    "IQ2_XXS": (
        with_data(head(tensors=1) + tensor(b"t", (256,), 16), 128),
        "tensor t has the type IQ2_XXS.*Q4_K",
    ),
    "type 1000": (
        with_data(head(tensors=1) + tensor(b"t", (256,), 1000), 128),
        "number 1000.*supported: F32",
    ),
    "split": (head(entries=1) + text(b"split.count") + u32(2) + b"\3\0" + bytes(64), "split.count.*3 files"),
}


@pytest.mark.parametrize("case", UNSUPPORTED)
def test_what_is_not_supported_is_named(tmp_path: Path, case: str) -> None:
    content, message = UNSUPPORTED[case]
    path = tmp_path / "t.gguf"
    path.write_bytes(content)
    with pytest.raises(UnsupportedError, match=message):
        read_gguf(path)


def test_a_folder_or_a_pipe_is_no_gguf_file(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.gguf"
    os.mkfifo(pipe)  # opening it would wait for ever
    for path in (tmp_path, pipe):
        with pytest.raises(FormatError, match="not a regular file"):
            read_gguf(path)
