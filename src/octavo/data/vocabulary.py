"""Training a tokenizer: byte-level byte-pair encoding, or one token for each byte that occurs.

Byte-pair encoding: Sennrich, Haddow and Birch 2016; over bytes, as in GPT-2 (Radford et al. 2019, section
2.2).  The `tokenizers` library does the counting, and its tokenizer.json is what is written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from octavo.errors import FormatError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Kind = Literal["bpe", "characters"]
END_OF_TEXT = "<|endoftext|>"
# Tokens 0, 1 and 2 of a vocabulary for pairs of texts: padding, beginning, end.
PAIR_SPECIALS = ("<pad>", "<s>", "</s>")
# Tokens 0 to 4 of an encoder's vocabulary: padding, unknown, beginning, end, masked.
ENCODER_SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
# All single bytes and the end of text.
SMALLEST_VOCABULARY = 257


def train_tokenizer(
    documents: Iterable[str],
    *,
    kind: Kind = "bpe",
    vocabulary_size: int = 4096,
    specials: Sequence[str] = (END_OF_TEXT,),
    space_first: bool = False,
) -> Tokenizer:
    """A byte-level tokenizer of at most `vocabulary_size` tokens, the first of which are `specials`.

    space_first: a text's first word is the token that it would be in the middle of a text.

    kind "characters": no merges, and only the bytes that occur, so plain ASCII gets one token a character;
    bytes that never occurred cannot be encoded.  Raises FormatError for a corpus without text, ValueError for
    a size that cannot hold all bytes.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    characters = kind == "characters"
    if not characters and vocabulary_size < SMALLEST_VOCABULARY:
        raise ValueError(
            f"vocabulary_size: {vocabulary_size}; a byte-level tokenizer has at least {SMALLEST_VOCABULARY}"
        )
    tokenizer = Tokenizer(models.BPE())
    split = not characters  # GPT-2's pattern keeps merges within words
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=space_first, use_regex=split)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=SMALLEST_VOCABULARY if characters else vocabulary_size,
        min_frequency=1 << 60 if characters else 2,
        special_tokens=list(specials),
        initial_alphabet=[] if characters else sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(documents, trainer)
    if characters and tokenizer.get_vocab_size() <= len(specials):
        raise FormatError("the corpus is empty: there is no text to make a vocabulary of")
    return tokenizer


def train_word_pieces(
    documents: Iterable[str], *, vocabulary_size: int = 8192, lowercase: bool = True
) -> Tokenizer:
    """An encoder's tokenizer: words cut into pieces, "##" before those that go on with a word.

    WordPiece (Schuster and Nakajima 2012) as BERT has it (Devlin et al. 2018, section 3); pieces are counted
    as byte-pair merges, as the `tokenizers` library does.  A text becomes [CLS] text [SEP], a pair
    [CLS] first [SEP] second [SEP] with types 0 and 1.  Raises FormatError for a corpus without text.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    texts = list(documents)
    normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    alphabet = _alphabet(map(normalizer.normalize_str, texts), most=min(1000, vocabulary_size // 4))
    if not alphabet:
        raise FormatError("the corpus is empty: there is no text to make a vocabulary of")
    counting: Any = models.WordPiece(unk_token="[UNK]")
    tokenizer = Tokenizer(counting)
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    # Pieces of one character get their numbers beforehand: the library numbers them as its hash table has
    # them, which breaks ties between merges in another way each time.
    first = [*ENCODER_SPECIALS, *alphabet, *(f"##{character}" for character in alphabet)]
    trainer = trainers.WordPieceTrainer(
        vocab_size=max(vocabulary_size, len(first)),
        special_tokens=first,
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    model: Any = models.WordPiece(tokenizer.get_vocab(), unk_token="[UNK]", max_input_chars_per_word=100)
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens(list(ENCODER_SPECIALS))
    begin, end = (tokenizer.token_to_id(name) for name in ("[CLS]", "[SEP]"))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", begin), ("[SEP]", end)],
    )
    return tokenizer


def _alphabet(texts: Iterable[str], most: int) -> list[str]:
    """The most frequent characters, sorted."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(text)
    frequent = sorted((each for each in counts if not each.isspace()), key=lambda each: (-counts[each], each))
    return sorted(frequent[:most])


def special_tokens(tokenizer: Tokenizer, names: Sequence[str], where: str) -> tuple[int, ...]:
    """Their ids.  Raises FormatError that names the first that the vocabulary has not."""
    found = [tokenizer.token_to_id(name) for name in names]
    if None in found:
        raise FormatError(f"{where}: the vocabulary has no {names[found.index(None)]}; this model needs it")
    return tuple(token for token in found if token is not None)


def load_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer of a tokenizer.json, or of a folder that has one.  Raises FormatError."""
    from tokenizers import Tokenizer

    file = path / "tokenizer.json" if path.is_dir() else path
    if not file.is_file():
        raise FormatError(f"{file}: there is no such tokenizer.json")
    try:
        return Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises bare Exception
        raise FormatError(f"{file} is not a tokenizer.json that can be read: {error}") from error


def end_of_text_token(tokenizer: Tokenizer) -> int | None:
    """The id that separates documents, if the vocabulary has one of the usual names for it."""
    for name in (END_OF_TEXT, "</s>", "<|im_end|>", "<eos>"):
        token: int | None = tokenizer.token_to_id(name)
        if token is not None:
            return token
    return None
