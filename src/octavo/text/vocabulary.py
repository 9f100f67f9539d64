"""What the tokens of a vocabulary are: their bytes, which of them are special, which end a generation."""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

SPACE_MARK = "\u2581"  # SentencePiece writes a space as this character
_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")

# Control tokens that end a turn or a text, whatever the file's metadata says; the list follows llama.cpp
# (src/llama-vocab.cpp), which also stops at the marks of fill-in-the-middle files.
END_TEXTS = frozenset(
    "<|eot_id|> <|im_end|> <|end|> <|return|> <|call|> <|flush|> <|calls|> <end_of_turn> <|endoftext|> "
    "<|end_of_text|> <|eom_id|> <EOT> _<EOT> [EOT] [EOS] </s> <eos> <end_of_utterance> <turn|> "
    "<\uff5cend\u2581of\u2581sentence\uff5c> "
    "<|fim_pad|> <fim-pad> <fim_pad> [PAD] <|fim_repo|> <|repo_name|> <fim-repo> <REPO> <reponame> "
    "<|file_sep|>".split()
)


class Spelling(enum.Enum):
    """How the text of a token spells its bytes."""

    BYTE_LEVEL = "byte-level"  # GPT-2's alphabet: one printable character for each byte
    SENTENCEPIECE = "sentencepiece"  # U+2581 is a space, <0x0A> a byte
    WORDPIECE = "wordpiece"  # a token is a word, ##token goes on with the one before


def byte_alphabet() -> dict[int, str]:
    """GPT-2's characters for the 256 bytes: printable Latin-1 is itself, the rest follows at U+0100."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    alphabet = {byte: chr(byte) for byte in printable}
    for byte in range(256):
        alphabet.setdefault(byte, chr(0x100 + len(alphabet) - len(printable)))
    return alphabet


_BYTE_OF = {character: byte for byte, character in byte_alphabet().items()}


@dataclass(frozen=True)
class Vocabulary:
    """The tokens by id, and the ids that mean something to the runtime.

    control: ids that are not text (turn marks, padding, ...); literal: ids whose text is already plain text,
    as user-defined tokens are.  prefix and suffix go around a text encoded with its special tokens.
    names: "bos_token", "eos_token", ... -> text, for chat templates.
    """

    tokens: Sequence[str]
    spelling: Spelling
    control: frozenset[int]
    end_ids: frozenset[int]
    beginning_id: int | None = None
    prefix: tuple[int, ...] = ()
    suffix: tuple[int, ...] = ()
    strip_first_space: bool = False
    literal: frozenset[int] = frozenset()
    names: Mapping[str, str] = field(default_factory=dict)

    def bytes_of(self, id: int) -> bytes:
        """The bytes of a token, special or not.  Ids past the vocabulary (padded logits) have none."""
        if id < 0:
            raise ValueError(f"a token id cannot be negative: {id}")
        if id >= len(self.tokens):
            return b""
        text = self.tokens[id]
        if id in self.control or id in self.literal:
            return text.encode()
        if self.spelling is Spelling.BYTE_LEVEL:
            try:
                return bytes(map(_BYTE_OF.__getitem__, text))
            except KeyError:  # an added token in plain text
                return text.encode()
        if self.spelling is Spelling.WORDPIECE:
            return _wordpiece_text(text).encode()
        byte = _BYTE_TOKEN.fullmatch(text)
        return bytes([int(byte[1], 16)]) if byte else text.replace(SPACE_MARK, " ").encode()


def _wordpiece_text(token: str) -> str:
    """A word with the space before it, except before the marks that the original decoder pulls close."""
    if token.startswith("##"):
        return token[2:]
    return token if token in (".", "?", "!", ",", "n't", "'m", "'s", "'ve", "'re") else " " + token


def find_end_ids(named: Iterable[int | None], texts: Mapping[str, int]) -> frozenset[int]:
    """All ids that end a generation: those the file names, and control tokens with a well-known text.

    texts: text -> id of the control tokens.  Where <|return|> and <|call|> exist (gpt-oss), <|end|> only
    closes one message of several.
    """
    known = {texts[text] for text in END_TEXTS if text in texts}
    if "<|return|>" in texts and "<|call|>" in texts:
        known.discard(texts.get("<|end|>", -1))
    return frozenset(known | {id for id in named if id is not None})
