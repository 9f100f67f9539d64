"""Mutated headers of GGUF and safetensors files: they open, or an OctavoError says why not, and nothing else.

OCTAVO_FUZZ is the number of mutations of each format (2,000 by default).
"""

from __future__ import annotations

import json
import os
import random
import resource
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from tiny_models import TinyGguf

from octavo.errors import OctavoError
from octavo.weights.checkpoint import open_checkpoint

COUNT = int(os.environ.get("OCTAVO_FUZZ", "2000"))
# What reading the hostile files may add to the peak memory of the process; a wrong allocation is far larger.
MEMORY_BYTES = 256 << 20
HOSTILE = (0, 1, -1, 1 << 31, (1 << 32) - 1, 1 << 63, (1 << 64) - 1)

Opener = Callable[[bytes], bool]


def opens(path: Path, whole: Path) -> Opener:
    """A function that writes bytes to `path`, opens `whole`, and tells whether that went well."""

    def attempt(content: bytes) -> bool:
        path.unlink(missing_ok=True)  # overwriting in place makes some file systems wait for the disk
        path.write_bytes(content)
        try:
            checkpoint = open_checkpoint(whole)
            for value in checkpoint.metadata.values():
                if not isinstance(value, str) and hasattr(value, "__iter__"):
                    list(value)
            for tensor in checkpoint.tensors.values():
                assert tensor.numpy().shape == tensor.shape
        except OctavoError as error:
            assert str(error)
            return False
        return True

    return attempt


def assert_memory_is_bounded(before: int) -> None:
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    assert after - before < MEMORY_BYTES


def peak_memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def gguf_integers(content: bytes) -> tuple[list[tuple[int, int]], int]:
    """Position and size of every integer of the structure of a GGUF file, and where the header ends.

    Walks the file in its own way, so that the reader under test is not its own judge.
    """
    found: list[tuple[int, int]] = []
    position = 4

    def integer(size: int) -> int:
        nonlocal position
        found.append((position, size))
        position += size
        return int.from_bytes(content[position - size : position], "little")

    def skip(size: int) -> None:
        nonlocal position
        position += size

    def value(kind: int) -> None:
        if kind == 8:
            skip(integer(8))
        elif kind == 9:
            element, length = integer(4), integer(8)
            for _ in range(length):
                value(element)
        else:
            integer({4: 4, 5: 4, 6: 4, 7: 1}[kind])

    integer(4)
    tensors, entries = integer(8), integer(8)
    for _ in range(entries):
        skip(integer(8))
        value(integer(4))
    for _ in range(tensors):
        skip(integer(8))
        for _ in range(integer(4)):
            integer(8)
        integer(4)
        integer(8)
    return found, position


def changed(content: bytes, position: int, size: int, value: int) -> bytes:
    raw = (value % (1 << 8 * size)).to_bytes(size, "little")
    return content[:position] + raw + content[position + size :]


def damaged_at_random(content: bytes, header: int, chance: random.Random) -> bytes:
    """One to four random changes, most of them in the header."""
    damaged = bytearray(content)
    for _ in range(chance.randint(1, 4)):
        end = header if chance.random() < 0.95 else len(damaged)
        position = chance.randrange(min(end, len(damaged)))
        kind = chance.randrange(5)
        if kind == 0:
            damaged[position] ^= 1 << chance.randrange(8)
        elif kind == 1:
            damaged[position] = chance.randrange(256)
        elif kind == 2:
            del damaged[position : position + chance.randint(1, 16)]
        elif kind == 3:
            damaged[position:position] = chance.randbytes(chance.randint(1, 16))
        else:
            source = chance.randrange(header)
            size = chance.randint(1, 32)
            damaged[position : position + size] = damaged[source : source + size]
    return bytes(damaged)


def gguf_mutations(content: bytes, chance: random.Random) -> Iterator[bytes]:
    """Every integer at every hostile value, then random damage without end."""
    integers, header = gguf_integers(content)
    for position, size in integers:
        true = int.from_bytes(content[position : position + size], "little")
        for value in (*HOSTILE, true - 1, true + 1):
            yield changed(content, position, size, value)
    while True:
        damaged = content
        for _ in range(chance.randint(0, 3)):
            position, size = chance.choice(integers)
            damaged = changed(damaged, position, size, chance.choice(HOSTILE))
        yield damaged_at_random(damaged, header, chance)


@pytest.mark.parametrize("architecture", ["llama", "gemma3", "bert"])
def test_mutated_gguf_files(tiny_gguf: TinyGguf, tmp_path: Path, architecture: str) -> None:
    path = tiny_gguf(architecture)
    attempt = opens(path, path)
    content = path.read_bytes()
    assert attempt(content)
    before = peak_memory()
    mutations = gguf_mutations(content, random.Random(1))
    refused = sum(not attempt(next(mutations)) for _ in range(COUNT // 3 + 1))
    assert refused > COUNT // 10
    assert_memory_is_bounded(before)


def test_every_truncation_of_a_gguf_file_is_refused(tiny_gguf: TinyGguf) -> None:
    path = tiny_gguf("llama")
    attempt = opens(path, path)
    content = path.read_bytes()
    _, header = gguf_integers(content)
    last_data = max(len(content) - 64, header)
    lengths = [*range(header + 64), *range(header + 64, last_data, 997)]
    assert [length for length in lengths if attempt(content[:length])] == []


# A llama folder: config.json and model.safetensors.

CONFIG = {
    "model_type": "llama",
    "vocab_size": 24,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 64,
    "tie_word_embeddings": True,
    "rope_theta": 10000.0,
    "rope_scaling": {"rope_type": "linear", "factor": 2.0},
    "eos_token_id": [1, 2],
    "bos_token_id": 0,
}
SHAPES = {
    "model.embed_tokens.weight": (24, 16),
    "model.norm.weight": (16,),
    "model.layers.0.input_layernorm.weight": (16,),
    "model.layers.0.post_attention_layernorm.weight": (16,),
    **{f"model.layers.0.self_attn.{name}_proj.weight": (16, 16) for name in "qkvo"},
    "model.layers.0.mlp.gate_proj.weight": (24, 16),
    "model.layers.0.mlp.up_proj.weight": (24, 16),
    "model.layers.0.mlp.down_proj.weight": (16, 24),
}


def safetensors_content() -> tuple[bytes, dict[str, dict[str, object]], bytes]:
    """A whole file, its header and its data."""
    header: dict[str, dict[str, object]] = {}
    offset = 0
    for name, shape in SHAPES.items():
        size = 4 * int(np.prod(shape))
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [offset, offset + size]}
        offset += size
    data = np.ones(offset // 4, np.float32).tobytes()
    return join(header, data), header, data


def join(header: object, data: bytes) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


ODD: tuple[object, ...] = (
    *(*HOSTILE, 1 << 200, 1.0, 1e300, -0.0, None, True),
    *("8", "F8_E4M3", "I64", "\x00", "é" * 50, [], {}, [[]]),
)
Route = tuple[object, ...]  # the keys and indexes that lead to a node of a JSON value


def routes(node: object, route: Route = ()) -> Iterator[Route]:
    yield route
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, child in children:
        yield from routes(child, (*route, key))


def replaced(node: object, route: Route, new: object) -> object:
    """A copy of `node` with the node at the end of `route`, if that is still there, replaced."""
    if not route:
        return new
    if isinstance(node, dict):
        return {key: replaced(node[key], route[1:], new) if key == route[0] else node[key] for key in node}
    if isinstance(node, list):
        return [replaced(x, route[1:], new) if index == route[0] else x for index, x in enumerate(node)]
    return node


def json_mutations(value: object, chance: random.Random) -> Iterator[object]:
    """Every node of a JSON value replaced by every odd one, then random pairs of such changes without end."""
    found = list(routes(value))
    for route in found:
        for odd in ODD:
            yield replaced(value, route, odd)
    while True:
        once = replaced(value, chance.choice(found), chance.choice(ODD))
        yield replaced(once, chance.choice(found), chance.choice(ODD))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    (tmp_path / "model.safetensors").write_bytes(safetensors_content()[0])
    return tmp_path


def test_mutated_safetensors_headers(folder: Path) -> None:
    content, header, data = safetensors_content()
    attempt = opens(folder / "model.safetensors", folder)
    assert attempt(content)
    before = peak_memory()
    chance = random.Random(2)
    length = struct.unpack("<Q", content[:8])[0]
    for value in (*HOSTILE, length - 1, length + 1):
        assert not attempt(changed(content, 0, 8, value))
    mutations = json_mutations(header, chance)
    refused = sum(not attempt(join(next(mutations), data)) for _ in range(COUNT // 2))
    assert refused > COUNT // 3
    for _ in range(COUNT // 2):
        attempt(damaged_at_random(content, length + 8, chance))
    assert_memory_is_bounded(before)


def test_every_truncation_of_a_safetensors_file_is_refused(folder: Path) -> None:
    content = safetensors_content()[0]
    attempt = opens(folder / "model.safetensors", folder)
    lengths = [*range(struct.unpack("<Q", content[:8])[0] + 72), *range(0, len(content), 97)]
    assert [length for length in lengths if attempt(content[:length])] == []


def test_mutated_configurations(folder: Path) -> None:
    attempt = opens(folder / "config.json", folder)
    before = peak_memory()
    mutations = json_mutations(CONFIG, random.Random(3))
    refused = sum(not attempt(json.dumps(next(mutations)).encode()) for _ in range(COUNT // 2))
    assert refused > COUNT // 10
    assert_memory_is_bounded(before)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
@pytest.mark.parametrize("shape", ["[" * 100_000, '{"a":' * 100_000, "[" + "{}," * 5_000_000 + "{}]"])
def test_deep_and_wide_json_is_refused(folder: Path, name: str, shape: str) -> None:
    text = shape.encode()
    content = text if name == "config.json" else struct.pack("<Q", len(text)) + text
    assert not opens(folder / name, folder)(content)
