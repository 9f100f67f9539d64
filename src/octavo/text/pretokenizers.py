"""How byte-level BPE vocabularies cut text before merging, by the name in `tokenizer.ggml.pre`.

A vocabulary's merges were learned inside the pieces that one regular expression cuts, so another expression
gives other ids, quietly.  GGUF stores only a name; an unknown name is therefore an error, never a guess.
Sources: the `pre_tokenizer` section of each family's own tokenizer.json (it also has the normalizer, which
GGUF does not record: Qwen's is NFC), and llama.cpp's table of names (src/llama-vocab.cpp).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from octavo.errors import UnsupportedError

if TYPE_CHECKING:
    import tokenizers.pre_tokenizers

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_BREAKS_AND_SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_LLAMA3 = (
    _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|" + _BREAKS_AND_SPACES
)
_QWEN2 = _LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
_QWEN35 = (
    _CONTRACTIONS
    + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|"
    + _BREAKS_AND_SPACES
)
_UPPER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
_LOWER = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_TEKKEN = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*|\p{{N}}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|" + _BREAKS_AND_SPACES
)
_GPT4O = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+{_CONTRACTIONS}?"
    rf"|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*{_CONTRACTIONS}?|\p{{N}}{{1,3}}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|" + _BREAKS_AND_SPACES
)
_DEEPSEEK_V3 = (
    r"\p{N}{1,3}",
    "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+",
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
    r"| ?[\p{P}\p{S}]+[\r\n]*|" + _BREAKS_AND_SPACES,
)
_DEEPSEEK_CODER = (
    r"[\r\n]",
    r"\s?\p{L}+",
    r"\s?\p{P}+",
    "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+",
    r"\p{N}",
)


@dataclass(frozen=True, slots=True)
class PreTokenizer:
    """The cuts of one family, and what else its tokenizer.json fixes that GGUF leaves out.

    patterns: regular expressions applied one after the other, each isolating its matches.
    gpt2_pattern: GPT-2's own expression, built into the byte-level step, comes last.
    split_digits: every digit is a piece of its own before anything else.
    ignore_merges: a piece that is a token as a whole is taken without merging.
    compose: text is brought to Unicode NFC first.
    add_beginning: whether the beginning token is added where the file does not say.
    """

    patterns: tuple[str, ...] = ()
    gpt2_pattern: bool = False
    split_digits: bool = False
    ignore_merges: bool = False
    compose: bool = False
    add_beginning: bool = False

    def build(self) -> tokenizers.pre_tokenizers.PreTokenizer:
        """The same cuts as an object of the `tokenizers` library; its pieces are in the byte alphabet."""
        from tokenizers import Regex, pre_tokenizers

        steps: list[pre_tokenizers.PreTokenizer] = []
        if self.split_digits:
            steps.append(pre_tokenizers.Digits(individual_digits=True))
        steps += [pre_tokenizers.Split(Regex(pattern), behavior="isolated") for pattern in self.patterns]
        steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=self.gpt2_pattern))
        return pre_tokenizers.Sequence(steps)


_GPT2 = PreTokenizer(gpt2_pattern=True)
_DIGITS_GPT2 = PreTokenizer(gpt2_pattern=True, split_digits=True)
_LLAMA_BPE = PreTokenizer((_LLAMA3,), ignore_merges=True, add_beginning=True)
_LLAMA_MERGED = PreTokenizer((_LLAMA3,))
_QWEN = PreTokenizer((_QWEN2,), compose=True)
_O200K = PreTokenizer((_GPT4O,))

_FAMILIES: dict[PreTokenizer, tuple[str, ...]] = {
    _GPT2: ("default", "gpt-2", "phi-2", "mpt", "olmo", "jais", "roberta-bpe", "trillion", "gigachat"),
    _DIGITS_GPT2: ("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"),
    _LLAMA_BPE: ("llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"),
    _LLAMA_MERGED: ("dbrx", "smaug-bpe", "glm4", "chatglm-bpe"),
    _QWEN: ("qwen2", "deepseek-r1-qwen", "megrez"),
    PreTokenizer((_QWEN35,), compose=True): ("qwen35",),
    PreTokenizer((_TEKKEN,), ignore_merges=True, add_beginning=True): ("tekken",),
    _O200K: ("gpt-4o", "llama4"),
    PreTokenizer(_DEEPSEEK_V3): ("deepseek-v3",),
    PreTokenizer(_DEEPSEEK_CODER): ("deepseek-coder",),
}
_BY_NAME = {name: family for family, names in _FAMILIES.items() for name in names}


def pretokenizer(name: str) -> PreTokenizer:
    """The cuts that GGUF calls `name`; UnsupportedError for a name that is not in the table."""
    try:
        return _BY_NAME[name]
    except KeyError:
        raise UnsupportedError(
            f"the GGUF field tokenizer.ggml.pre names the pre-tokenizer {name!r}, which octavo does not "
            f"have; it has: {', '.join(sorted(_BY_NAME))}"
        ) from None
