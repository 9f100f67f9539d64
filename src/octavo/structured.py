"""What a caller means by `grammar=`, compiled for one model's vocabulary.

Text meets tokens here: `octavo.grammar` knows bytes and any vocabulary, `decoding` knows ids.
"""

from __future__ import annotations

import inspect
import re
import threading
from collections import OrderedDict
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from octavo.errors import OctavoError

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

    from octavo.decoding.constraints.constraint import Constraint, ForcedMode
    from octavo.decoding.constraints.healing import SortedVocabulary
    from octavo.grammar import CompiledGrammar, Grammar, GrammarCompiler
    from octavo.text.tokenizer import Tokenizer

# Compiled grammars that a model remembers: the states and masks found for one serve its next generation.
REMEMBERED = 32
# At once: one that takes long does not hold up the others.
COMPILING = 2


def as_grammar(meaning: Any) -> Grammar:
    """A grammar from whatever describes one.

    A Grammar; a JSON Schema (mapping or boolean); a compiled regular expression (`re.compile`); a text of
    GBNF or Lark; the name of a language ("json", "python", "sql"); a list of choices; a pydantic model,
    dataclass, TypedDict, Literal, Enum or any other annotation; a function, for its arguments.  Raises
    GrammarError where it cannot be enforced.
    """
    from octavo.grammar import Grammar

    if isinstance(meaning, Grammar):
        return meaning
    if isinstance(meaning, (bool, Mapping)):
        return Grammar.from_json_schema(meaning)
    if isinstance(meaning, re.Pattern):
        return Grammar.from_regex(meaning.pattern)
    if isinstance(meaning, str):
        return Grammar.from_text(meaning)
    if isinstance(meaning, (list, tuple)) and all(isinstance(choice, str) for choice in meaning):
        return Grammar.from_choices(meaning)
    return Grammar.from_types(meaning)


class StructuredOutput:
    """Grammars of one model, compiled when they are first used and remembered; safe from several threads.

    A grammar is compiled beside the thread that decodes, under the limits of `octavo.grammar`: one that is
    too complex ends its own request with an error.
    """

    def __init__(self, tokenizer: Tokenizer, vocabulary_size: int) -> None:
        self._tokenizer = tokenizer
        self._vocabulary_size = vocabulary_size
        self._lock = threading.Lock()
        self._compiler: GrammarCompiler | None = None
        self._compiled: OrderedDict[object, CompiledGrammar] = OrderedDict()
        self._executor: ThreadPoolExecutor | None = None
        self._closed = False

    def constraint(
        self,
        meaning: Any,
        max_tokens: int,
        forced: ForcedMode,
        *,
        trigger: str | tuple[str, str] | None = None,
        healed: bytes = b"",
    ) -> Constraint | Future[Constraint] | None:
        """What holds a new text within a grammar; its future where that is still to be compiled.

        trigger: the text behind which the grammar begins, or that and the text behind which it ends; what is
        around them is free.  healed: what the text begins with instead, also without a grammar.
        """
        from octavo.decoding.constraints.healing import HealedPrompt

        if meaning is None:
            if trigger is not None:
                raise ValueError("trigger: it says where a grammar begins, and no grammar is given")
            return HealedPrompt(healed, self._sorted_vocabulary) if healed else None

        key = (_key(meaning), trigger, healed)
        with self._lock:
            known = key in self._compiled
        if known:
            return self._constraint(key, meaning, max_tokens, forced)
        return self._make_executor().submit(self._constraint, key, meaning, max_tokens, forced)

    def _constraint(
        self, key: tuple[object, Any, bytes], meaning: Any, max_tokens: int, forced: ForcedMode
    ) -> Constraint:
        from octavo.decoding.constraints.grammar_constraint import GrammarConstraint
        from octavo.grammar import GrammarMatcher

        matcher = GrammarMatcher(self._compile(key, meaning))
        return GrammarConstraint(matcher, self._encode, max_tokens, forced)

    def compile(self, meaning: Any) -> CompiledGrammar:
        """The grammar for this vocabulary; the same meaning gives the same object while it is remembered."""
        return self._compile((_key(meaning), None, b""), meaning)

    def _compile(self, key: tuple[object, Any, bytes], meaning: Any) -> CompiledGrammar:
        with self._lock:
            if key in self._compiled:
                self._compiled.move_to_end(key)
                return self._compiled[key]
        _, trigger, healed = key
        grammar = as_grammar(meaning)
        if trigger is not None:
            from octavo.grammar import Grammar

            begin, end = (trigger, "") if isinstance(trigger, str) else trigger
            grammar = Grammar.tagged(begin, grammar, end)
        compiled = self._make_compiler().compile(grammar.beginning(healed) if healed else grammar)
        with self._lock:
            self._compiled[key] = compiled
            while len(self._compiled) > REMEMBERED:
                self._compiled.popitem(last=False)
        return compiled

    def take_back(self, tokens: list[int]) -> tuple[list[int], bytes]:
        """A prompt without the end that is to be written anew, and the bytes of that end (healing.py)."""
        return self._sorted_vocabulary.take_back(tokens)

    def close(self) -> None:
        """Compile no more."""
        with self._lock:
            self._closed = True
        if self._executor is not None:
            self._executor.shutdown(wait=False, cancel_futures=True)

    @cached_property
    def _token_bytes(self) -> list[bytes]:
        return [self._tokenizer.token_bytes(token) for token in range(self._vocabulary_size)]

    @cached_property
    def _sorted_vocabulary(self) -> SortedVocabulary:
        from octavo.decoding.constraints.healing import SortedVocabulary

        return SortedVocabulary(self._token_bytes)

    def _make_executor(self) -> ThreadPoolExecutor:
        from concurrent.futures import ThreadPoolExecutor

        with self._lock:
            if self._closed:
                raise OctavoError("the model is closed: load it again")
            if self._executor is None:
                self._executor = ThreadPoolExecutor(COMPILING, "octavo-grammars")
            return self._executor

    def _make_compiler(self) -> GrammarCompiler:
        from octavo.grammar import GrammarCompiler, TokenizerInfo

        with self._lock:
            if self._compiler is None:
                info = TokenizerInfo(self._token_bytes, stop_token_ids=self._tokenizer.end_ids)
                self._compiler = GrammarCompiler(info)
            return self._compiler

    def _encode(self, data: bytes) -> list[int]:
        """Ids that spell the bytes as the tokenizer would; fewer where the bytes end within a character."""
        text = data.decode("utf-8", "ignore")
        if not data.startswith(text.encode()):
            return []
        tokens = self._tokenizer.encode(text, add_special=False)
        spelled = b"".join(map(self._tokenizer.token_bytes, tokens))
        return (
            tokens if data.startswith(spelled) else []
        )  # some tokenizers begin a text with a space of their own


def _key(meaning: Any) -> object:
    """What tells meanings apart: their contents for schemas and texts, else the object itself."""
    if isinstance(meaning, (bool, Mapping)):
        import json

        return ("schema", json.dumps(meaning, sort_keys=False, default=str))
    if isinstance(meaning, (str, re.Pattern)) or inspect.isclass(meaning):
        return meaning
    if isinstance(meaning, (list, tuple)):
        return ("choices", tuple(map(str, meaning)))
    return ("object", id(meaning), meaning) if meaning.__hash__ else ("object", id(meaning))
