"""Seeded lines of all that tokenizers disagree on: prose, code, numbers, white space, scripts, noise."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

_WORDS = (
    "the of and to in a is that it was for on are as with his they at be this from I have or by one had not "
    "Paris London tokenization unbelievable don't we'll I'm they've she'd you're IT'S CAN'T naive "
    "café Zürich Ångström cooperate state-of-the-art e.g. i.e. U.S.A. co-op o'clock HTTPServer camelCase "
    "snake_case"
).split()
_SCRIPTS = (
    "日本語のテキストを分割する",
    "今天天气很好，我们去公园散步吧。",
    "안녕하세요 세계 여러분",
    "Привет, мир! Как дела?",
    "Γειά σου Κόσμε",
    "مرحبا بالعالم، كيف حالك؟",
    "שלום עולם",
    "नमस्ते दुनिया क्या हाल है",
    "สวัสดีชาวโลก",
    "Xin chào thế giới",
    "ქართული ენა",
    "e\u0301 a\u0308 o\u0302\u0323 \u1e69\u0307",  # not in Unicode NFC
    "\u212b \u2126 \uf900 \u0958",  # characters that NFC replaces
)
_EMOJI = "😀 😂 👍🏽 👩‍👩‍👧‍👦 🏳️‍🌈 🇫🇷 ❤️ ☃ ⚡ 🤷🏿‍♂️ 🧑‍🚀 ✅ ™ ﷺ 𝓗𝓮𝓵𝓵𝓸 ｆｕｌｌ".split()
_CODE = (
    "def f(x: int) -> str:\n    return f'{x:>10}'\n",
    "for (int i = 0; i < 10; ++i) { a[i] += b[i] * 3.14e-5f; }",
    '{"key": [1, 2.5, -3e10, null, true], "nested": {"a": "\\u00e9\\n"}}',
    "SELECT * FROM users WHERE id != 42 AND name LIKE '%o''brien%';",
    '\t\tif err != nil {\n\t\t\treturn nil, fmt.Errorf("x: %w", err)\n\t\t}',
    '<div class="a b"><h1>T</h1><b>x</b><!-- c --></div></s><<b>></table >',
    '$ rm -rf /tmp/*.log && echo "done" || exit 1 # comment',
    "\\begin{equation} \\sum_{i=1}^{n} x_i^2 = \\alpha \\end{equation}",
    "0x1F 1_000_000 3.14159 1,234,567.89 ½ ² ٣٤ Ⅷ 2024-01-01T12:34:56Z +1 (555) 010-9999",
)
_SPECIAL = (
    "<|im_start|>user <|im_end|> <|endoftext|> <s> </s> <unk> [CLS] [SEP] [MASK] <bos> <eos> <start_of_turn> "
    "<end_of_turn> <|eot_id|> <0x41> <tool_call> </tool_call> [multimodal] <|fim_prefix|> "
    "<unused7> \u2581 \u2581\u2581"
).split(" ")
_SPACES = (
    " ",
    "  ",
    "   ",
    "\t",
    "\n",
    "\n\n",
    "\r\n",
    " \n",
    "\n ",
    "\u00a0",
    "\u3000",
    "\u200b",
    "\x0b",
    "\x85",
)


def mixed_lines(count: int, seed: int = 20240) -> Iterator[str]:
    """`count` lines; every line is valid Unicode without lone surrogates."""
    random_source = random.Random(seed)
    kinds = (_prose, _script, _emoji, _code, _numbers, _white_space, _special, _noise, _byte_noise, _mixture)
    for index in range(count):
        yield kinds[index % len(kinds)](random_source)


def _prose(source: random.Random) -> str:
    words = [source.choice(_WORDS) for _ in range(source.randint(1, 25))]
    words = [source.choice((word, word.upper(), word.capitalize(), word + ",")) for word in words]
    return source.choice(("", " ")) + " ".join(words) + source.choice(("", ".", "?!", "...", " "))


def _script(source: random.Random) -> str:
    return source.choice(("", " ", "。")).join(source.choice(_SCRIPTS) for _ in range(source.randint(1, 4)))


def _emoji(source: random.Random) -> str:
    return source.choice(("", " ")).join(source.choice(_EMOJI) for _ in range(source.randint(1, 12)))


def _code(source: random.Random) -> str:
    text = source.choice(_CODE)
    begin = source.randrange(len(text) // 2)
    return text[begin : source.randint(begin + 1, len(text))] + source.choice(_CODE)


def _numbers(source: random.Random) -> str:
    parts = [str(source.randrange(10 ** source.randint(1, 18))) for _ in range(source.randint(1, 8))]
    return source.choice((" ", "  ", ".", ",", "-", "+ ")).join(parts)


def _white_space(source: random.Random) -> str:
    parts = []
    for _ in range(source.randint(1, 10)):
        parts.append(source.choice(_SPACES) * source.choice((1, 1, 2, 3, 7, 31, 32, 40)))
        parts.append(source.choice(("", "", source.choice(_WORDS), str(source.randrange(100)), "{", "é")))
    return "".join(parts)


def _special(source: random.Random) -> str:
    parts = [source.choice((*_SPECIAL, source.choice(_WORDS))) for _ in range(source.randint(1, 8))]
    return source.choice(("", " ", "\n")).join(parts)


def _noise(source: random.Random) -> str:
    planes = (
        (0x20, 0x7F),
        (0xA0, 0x250),
        (0x300, 0x370),
        (0x370, 0x2100),
        (0x2100, 0xD800),
        (0xE000, 0x11000),
    )
    return "".join(chr(source.randrange(*source.choice(planes))) for _ in range(source.randint(1, 30)))


def _byte_noise(source: random.Random) -> str:
    decode: Callable[[bytes], str] = lambda data: data.decode("utf-8", "replace")  # noqa: E731
    if source.random() < 0.3:
        return source.randbytes(source.randint(1, 40)).decode("latin-1")
    return decode(source.randbytes(source.randint(1, 40)))


def _mixture(source: random.Random) -> str:
    kinds = (_prose, _script, _emoji, _code, _numbers, _white_space, _special, _noise)
    return "".join(source.choice(kinds)(source)[: source.randint(1, 40)] for _ in range(source.randint(2, 5)))
