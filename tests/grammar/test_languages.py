"""Lark, Python and SQL: every sample is parsed by the language's own parser, known texts are accepted."""

from __future__ import annotations

import ast
import random
import sqlite3
import sys
import warnings
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from octavo.grammar import Grammar, GrammarCompiler, GrammarMatcher, TokenizerInfo, allocate_token_bitmask

INFO = TokenizerInfo([bytes([byte]) for byte in range(256)])
VERSION = "3.12" if sys.version_info >= (3, 12) else "3.11"
CALCULATOR = r"""
    ?start: sum
    ?sum: product | sum "+" product -> add | sum "-" product
    ?product: atom | product "*" atom | product "/" atom
    ?atom: NUMBER | "-" atom | NAME | "(" sum ")" | "if" sum "then" sum | call{sum} | TAG | /".*?"/
    call{x}: NAME "(" _sep{x, ","} ")"
    _sep{x, s}: x (s x)*
    NAME: /[a-z_]\w*/i
    TAG.2: "@" ("a".."f")~2..3
    COMMENT: "/*" /(.|\n)*?/ "*/" | "//" /[^\n]*/
    %import common.NUMBER
    %import common.WS
    %ignore WS
    %ignore COMMENT
"""


def matcher(grammar: Grammar) -> GrammarMatcher:
    return GrammarMatcher(GrammarCompiler(INFO).compile(grammar))


@cache
def language(name: str, **options: str) -> GrammarMatcher:
    """Compiled once for all tests, so that they share its states."""
    return matcher(Grammar.builtin(name, **options))


def sample(text: GrammarMatcher, rng: random.Random, size: int) -> str:
    """Random bytes within the grammar, brackets and blanks more often, closed in the end."""
    text.reset()
    result, mask = bytearray(), allocate_token_bitmask(1, 256)[0]
    while len(result) < size:
        text.fill_next_token_bitmask(mask)
        allowed = np.flatnonzero(np.unpackbits(mask.view(np.uint8), bitorder="little")).tolist()
        if not allowed:
            break
        signs = [byte for byte in allowed if byte in b"(){}[]:=,. \n\"'"]
        plain = [byte for byte in allowed if byte < 128]
        draw = rng.random()
        choice = rng.choice(signs if signs and draw < 0.3 else plain if plain and draw < 0.97 else allowed)
        assert text.accept_token(choice)
        result.append(choice)
    ending = text.closing_bytes()
    assert ending is not None, bytes(result)
    return (result + ending).decode()


def accepts(text: GrammarMatcher, data: str) -> bool:
    text.reset()
    return text.accept_bytes(data.encode()) and text.is_completed()


def test_lark_samples_parse_in_lark() -> None:
    lark = pytest.importorskip("lark")
    parser = lark.Lark(CALCULATOR, parser="lalr")
    text, rng = matcher(Grammar.from_lark(CALCULATOR)), random.Random(1)
    for _ in range(25):
        parser.parse(sample(text, rng, rng.randrange(60)))


def test_lark_cuts_tokens_as_its_lexer() -> None:
    text = matcher(Grammar.from_lark(CALCULATOR))
    for good in ("1+2", "if a then b", "f(a, b) /* c */ * -1", "@abc", "a // c", '"a" + "b"'):
        assert accepts(text, good), good
    for bad in ("ifa then b", "1 2", "a /* c", "@a", "if", '"a" "b"', "a//+b\nc"):
        assert not accepts(text, bad), bad


def test_python_samples_parse() -> None:
    text, rng = language("python", version=VERSION), random.Random(2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(25):
            ast.parse(sample(text, rng, rng.randrange(120)))


def test_python_accepts_our_own_code() -> None:
    text = language("python", version=VERSION)
    folder = Path(__file__).parent
    for file in ("test_gbnf.py",):
        assert accepts(text, (folder / file).read_text(encoding="utf-8")), file


@pytest.mark.parametrize(
    ("code", "right"),
    [
        ("if x:\n    y\nelse:\n    z\n", True),
        ("if x:\n    y\n  z\n", False),
        ("if x:\ny\n", False),
        ("for a in b:\n\tif c:\n\t\td\n", True),
        ("x = (1,\n  2)\n", True),
        ("x = 1,\n  2\n", False),
        ("match = 1\nmatch match:\n  case [a, *_]: pass\n", True),
        ("class = 1\n", False),
        ("print(f'{x!r:>{w}} {{}}')", True),
        ("f'{x'", False),
        ("x = 1 \\\n  + 2\n", True),
        ("f(a=1, b)\n", False),
        ("a + 1 = 2\n", False),
        ("type A[T] = list[T]\n", VERSION == "3.12"),
    ],
)
def test_python_by_example(code: str, right: bool) -> None:
    assert accepts(language("python", version=VERSION), code) == right


def syntax_error(statement: str) -> str | None:
    """What SQLite's parser says; that a table is not there is no syntax."""
    connection = sqlite3.connect(":memory:")
    try:
        connection.execute(statement)
    except (sqlite3.Error, sqlite3.Warning) as error:
        message = str(error)
        if any(words in message for words in ("syntax error", "incomplete input", "unrecognized token")):
            return message
    finally:
        connection.close()
    return None


def test_sql_samples_are_prepared() -> None:
    text, rng = language("sql"), random.Random(3)
    assert syntax_error("SELECT FROM") and not syntax_error("SELECT a FROM nowhere")
    for _ in range(30):
        statement = sample(text, rng, rng.randrange(120))
        assert syntax_error(statement) is None, statement


@pytest.mark.parametrize(
    ("statement", "right"),
    [
        (
            "SELECT a, count(*) AS n FROM t WHERE b LIKE 'x''y' GROUP BY a HAVING n > 1 ORDER BY n DESC",
            True,
        ),
        (
            "select * from a left join b using (id) where x in (select y from z) and not exists (select 1)",
            True,
        ),
        ("WITH r AS (VALUES (1, 2)) INSERT INTO t (a) SELECT 1 FROM r", True),
        (
            "create table if not exists t (id integer primary key, foreign key (a) references b)",
            True,
        ),
        ("SELECTa FROM t", False),
        ("SELECT a FROM", False),
        ("SELECT order FROM t", False),
    ],
)
def test_sql_by_example(statement: str, right: bool) -> None:
    assert (syntax_error(statement) is None) == right
    assert accepts(language("sql"), statement) == right


def test_grammars_that_begin_later() -> None:
    number = Grammar.from_regex("[0-9]+;")
    tagged = matcher(Grammar.tagged("<call>", number))
    for good in ("free", "free <call>12; more", "<call>1;<call>2;", "<cal"):
        assert accepts(tagged, good), good
    assert not accepts(tagged, "free <call>x") and not accepts(tagged, "<call>1")
    ended = matcher(Grammar.tagged("```", number, "\n```"))
    for good in ("free", "``", "```12;\n``` free ```3;\n```", "```12;\n```"):
        assert accepts(ended, good), good
    for bad in ("```12;", "```12; ```", "```12;\n``` ```", "```x"):
        assert not accepts(ended, bad), bad
    healed = matcher(number.beginning(b" 4"))
    assert accepts(healed, " 42;") and not accepts(healed, "42;") and healed.forced_bytes() == b" 4"


def test_texts_name_their_notation() -> None:
    assert repr(Grammar.from_text('start: "a"')) == "Grammar(Lark)"
    assert repr(Grammar.from_text('root ::= "a"')) == "Grammar(GBNF)"
    assert repr(Grammar.from_text("sql")).startswith("Grammar(SQL")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("start: other", "no rule 'other'"),
        ("start: A", "no terminal 'A'"),
        ('start: "a" {', "expected"),
        ("start: A\nA: /a*/", "empty text"),
        ("start: A\nA: B\nB: A", "contains itself"),
        ("%import python.NAME\nstart: NAME", "only from common"),
        ('start: t{"a"}\nt{x}: t{t{x}}', "grows|no text"),
    ],
)
def test_lark_errors_say_what_is_wrong(text: str, says: str) -> None:
    from octavo.grammar import GrammarError

    with pytest.raises(GrammarError, match=says):
        Grammar.from_lark(text)
