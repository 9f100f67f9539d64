"""A Hugging Face tokenizer.json, run by the `tokenizers` library that defines the format."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from octavo.errors import FormatError, UnsupportedError
from octavo.text.vocabulary import Spelling, Vocabulary, find_end_ids

if TYPE_CHECKING:
    import tokenizers

_MAX_FILE_BYTES = 256 << 20
_NAMES = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token")


class LibraryEncoder:
    """The library finds special tokens itself; whether it does is a state of its object, hence the lock."""

    def __init__(self, library: tokenizers.Tokenizer) -> None:
        self._library = library
        self._lock = threading.Lock()

    def encode(self, text: str, *, parse_special: bool) -> list[int]:
        with self._lock:
            self._library.encode_special_tokens = not parse_special
            ids: list[int] = self._library.encode(text, add_special_tokens=False).ids
        return ids


def read_tokenizer_file(path: Path, config: Mapping[str, object] | None) -> tuple[Vocabulary, LibraryEncoder]:
    """The vocabulary and encoder of a tokenizer.json; see Tokenizer.from_file."""
    library = _load(path)
    if config is None:
        config = {
            **_read_json(path.with_name("generation_config.json")),
            **_read_json(path.with_name("tokenizer_config.json")),
        }
    texts = library.get_vocab(with_added_tokens=True)
    tokens = [""] * (max(texts.values(), default=-1) + 1)
    for text, id in texts.items():
        tokens[id] = text
    added = library.get_added_tokens_decoder()
    control = {token.content: id for id, token in added.items() if token.special}
    names = {name: token for name in _NAMES if (token := _token_text(config.get(name))) is not None}
    ids = {name: texts.get(text) for name, text in names.items()}
    prefix, suffix = _frame(library, config, ids)
    spelling, strip_first_space = _spelling(library)
    beginning = ids.get("bos_token", ids.get("cls_token"))
    ends = frozenset[int]()
    if spelling is not Spelling.WORDPIECE:
        ends = find_end_ids([ids.get("eos_token"), *_end_ids(config)], control)
    vocabulary = Vocabulary(
        tokens=tokens,
        spelling=spelling,
        control=frozenset(control.values()),
        end_ids=ends,
        beginning_id=prefix[0] if beginning is None and prefix else beginning,
        prefix=prefix,
        suffix=suffix,
        strip_first_space=strip_first_space,
        names=names,
    )
    return vocabulary, LibraryEncoder(library)


def _load(path: Path) -> tokenizers.Tokenizer:
    from tokenizers import Tokenizer

    if path.stat().st_size > _MAX_FILE_BYTES:
        raise FormatError(f"{path}: a tokenizer.json of more than {_MAX_FILE_BYTES >> 20} MB is refused")
    try:
        library = Tokenizer.from_file(str(path))
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # the library raises bare Exception, and panics as BaseException
        raise FormatError(f"{path} is not a tokenizer.json that can be read: {error}") from error
    library.no_truncation()
    library.no_padding()
    return library


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    if path.stat().st_size > _MAX_FILE_BYTES:
        raise FormatError(f"{path}: more than {_MAX_FILE_BYTES >> 20} MB is refused")
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise FormatError(f"{path} must hold one JSON object")
    return content


def _token_text(value: object) -> str | None:
    """A token in tokenizer_config.json: its text, or an object that holds it."""
    if isinstance(value, Mapping):
        value = value.get("content")
    return value if isinstance(value, str) else None


def _end_ids(config: Mapping[str, object]) -> list[int]:
    value = config.get("eos_token_id")
    values = value if isinstance(value, list) else [value]
    return [id for id in values if isinstance(id, int)]


def _frame(
    library: tokenizers.Tokenizer, config: Mapping[str, object], ids: Mapping[str, int | None]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Ids before and after a text: by the explicit flags of the config, else by the post-processor."""
    if "add_bos_token" in config or "add_eos_token" in config:
        beginning, end = ids.get("bos_token"), ids.get("eos_token")
        return (
            (beginning,) if config.get("add_bos_token") and beginning is not None else (),
            (end,) if config.get("add_eos_token") and end is not None else (),
        )
    body = library.encode("a", add_special_tokens=False).ids
    whole = library.encode("a", add_special_tokens=True).ids
    for start in range(len(whole) - len(body) + 1):
        if whole[start : start + len(body)] == body:
            return tuple(whole[:start]), tuple(whole[start + len(body) :])
    raise FormatError("the post_processor of tokenizer.json does not keep the text's own ids")


def _spelling(library: tokenizers.Tokenizer) -> tuple[Spelling, bool]:
    """How tokens spell bytes, and whether decoding takes off a first space, by the file's `decoder`."""
    decoder: dict[str, Any] = json.loads(library.decoder.__getstate__()) if library.decoder else {}
    steps = decoder.get("decoders", [decoder]) if decoder else []
    kinds = {step.get("type") for step in steps}
    if "ByteLevel" in kinds:
        return Spelling.BYTE_LEVEL, False
    if "WordPiece" in kinds:
        return Spelling.WORDPIECE, True
    if kinds & {"ByteFallback", "Metaspace"}:
        strips = any(
            (step.get("type") == "Strip" and step.get("content") == " " and step.get("start"))
            or (step.get("type") == "Metaspace" and step.get("prepend_scheme") != "never")
            for step in steps
        )
        return Spelling.SENTENCEPIECE, strips
    raise UnsupportedError(
        f"the decoder of tokenizer.json is {sorted(map(str, kinds)) or 'missing'}; "
        "octavo has ByteLevel, WordPiece, Metaspace and ByteFallback"
    )
