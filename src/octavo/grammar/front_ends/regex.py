"""Trees of regular expressions -> expressions, with anchors, word boundaries and lookahead at any place.

A tree is compiled in front of what follows it (its continuation, always up to the end of the text), so
lookahead is an intersection with the continuation, and `$` an intersection with the empty text.  What an
anchor needs to know about the text before it (start, a word character, another one) is followed by splitting
what comes before.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from itertools import groupby

from octavo.grammar.errors import GrammarUnsupportedError
from octavo.grammar.expressions import UNBOUNDED, Algebra
from octavo.grammar.front_ends.characters import named_class
from octavo.grammar.front_ends.regex_syntax import RegexParser, Tree

START, WORD, OTHER = "start", "word", "other"
Continuation = Callable[[str], int]
MAX_UNROLLED = 32


def compile_regex(algebra: Algebra, pattern: str, dialect: str = "ecma", search: bool = False) -> int:
    """The texts that match in full, or with `search` those in which a match can be found anywhere."""
    tree = RegexParser(pattern, dialect).parse()
    return RegexCompiler(algebra, dialect).compile(tree, search)


class RegexCompiler:
    def __init__(self, algebra: Algebra, dialect: str) -> None:
        self.algebra = algebra
        self.dialect = dialect
        self._kept: list[Tree] = []  # trees made here, alive because the tables below know them by identity
        self._pure: dict[int, bool] = {}
        self._sensitive: dict[int, bool] = {}
        self._made: dict[int, tuple[Tree, int]] = {}  # with the tree, so that no other gets its identity

    @cached_property
    def word(self) -> int:
        return self.algebra.characters(named_class("w", self.dialect))

    @cached_property
    def ends_with(self) -> dict[str, int]:
        """By context, the texts that end in it."""
        algebra = self.algebra
        return {
            WORD: algebra.concat(algebra.anything, self.word),
            OTHER: algebra.concat(algebra.anything, algebra.characters(named_class("W", self.dialect))),
        }

    def compile(self, tree: Tree, search: bool) -> int:
        algebra = self.algebra
        if not search:
            return self._sequence([tree], START, lambda _: algebra.epsilon, False)
        matched: Continuation = lambda _: algebra.anything  # noqa: E731
        if not self._is_sensitive(tree):
            return algebra.concat(algebra.anything, self._sequence([tree], START, matched, False))
        options = [self._sequence([tree], START, matched, False)]
        if _begins_at_start(tree):
            return options[0]
        for context, prefix in self.ends_with.items():
            options.append(algebra.concat(prefix, self._sequence([tree], context, matched, False)))
        return algebra.either(*options)

    def _is_pure(self, tree: Tree) -> bool:
        """No assertion inside: the tree denotes a language by itself."""
        found = self._pure.get(id(tree))
        if found is None:
            found = tree[0] == "set" or (
                tree[0] in ("seq", "alt", "repeat") and all(map(self._is_pure, _children(tree)))
            )
            self._pure[id(tree)] = found
        return found

    def _is_sensitive(self, tree: Tree) -> bool:
        """Whether some assertion inside looks at the text before it."""
        found = self._sensitive.get(id(tree))
        if found is None:
            found = tree[0] in ("start", "word") or any(map(self._is_sensitive, _children(tree)))
            self._sensitive[id(tree)] = found
        return found

    def _plain(self, tree: Tree) -> int:
        known = self._made.get(id(tree))
        if known is None:
            known = self._made[id(tree)] = (tree, self._make_plain(tree))
        return known[1]

    def _make_plain(self, tree: Tree) -> int:
        algebra = self.algebra
        if tree[0] == "set":
            return algebra.characters(tree[1])
        if tree[0] == "repeat":
            return algebra.repeat(self._plain(tree[1]), tree[2], tree[3])
        parts = [self._plain(child) for child in tree[1]]
        return algebra.concat(*parts) if tree[0] == "seq" else algebra.either(*parts)

    def _sequence(self, trees: list[Tree], context: str, then: Continuation, sensitive: bool) -> int:
        """The expression of `trees` in a row, then the continuation, after a text that ended as in `context`.

        `sensitive` tells whether the continuation depends on its context.
        """
        if not trees:
            return then(context)
        first, rest = trees[0], trees[1:]
        rest_sensitive = sensitive or any(map(self._is_sensitive, rest))

        def after(reached: str) -> int:
            return self._sequence(rest, reached, then, sensitive)

        if self._is_pure(first):
            return self._before(self._plain(first), context, after, rest_sensitive)
        kind = first[0]
        if kind == "seq":
            return self._sequence([*self._runs(first[1]), *rest], context, then, sensitive)
        if kind == "alt":
            return self.algebra.either(
                *(self._sequence([o, *rest], context, then, sensitive) for o in first[1])
            )
        if kind == "repeat":
            return self._repeat(first, context, after, rest_sensitive)
        if kind == "start":
            return after(context) if context == START else self.algebra.empty
        return self._assertion(first, context, after(context))

    def _runs(self, trees: list[Tree]) -> list[Tree]:
        """The same row with neighbours that have no assertion joined, so that it is not deep but short."""
        result: list[Tree] = []
        for pure, run in groupby(trees, self._is_pure):
            members = list(run)
            result += [("seq", members)] if pure and len(members) > 1 else members
        self._kept += result
        return result

    def _before(self, part: int, context: str, after: Continuation, sensitive: bool) -> int:
        algebra = self.algebra
        if not sensitive:
            return algebra.concat(part, after(context))
        options = [after(context)] if algebra.nullable(part) else []
        for reached, shape in self.ends_with.items():
            piece = algebra.both(part, shape)
            if algebra.live(piece):
                options.append(algebra.concat(piece, after(reached)))
        return algebra.either(*options)

    def _repeat(self, tree: Tree, context: str, after: Continuation, sensitive: bool) -> int:
        _, body, least, most = tree
        algebra = self.algebra
        if most == UNBOUNDED and least > 0:
            required = ("repeat", body, least, least)
            return self._repeat(
                required,
                context,
                lambda c: self._repeat(("repeat", body, 0, most), c, after, sensitive),
                True,
            )
        if most == UNBOUNDED:
            return self._star(body, context, after, sensitive)
        if most > MAX_UNROLLED:
            raise GrammarUnsupportedError(
                f"an assertion inside a repeat of over {MAX_UNROLLED} is not supported"
            )

        def iterate(count: int, reached: str) -> int:
            options = [after(reached)] if count >= least else []
            if count < most:
                options.append(self._sequence([body], reached, lambda c: iterate(count + 1, c), True))
            return algebra.either(*options)

        return iterate(0, context)

    def _star(self, body: Tree, context: str, after: Continuation, sensitive: bool) -> int:
        """L = after | body L, as a recursive expression for each context in which an iteration can begin."""
        algebra = self.algebra
        names: dict[str, int] = {}

        def loop(reached: str) -> int:
            if reached not in names:
                rest = after(reached)
                names[reached] = name = algebra.recursive(algebra.nullable(rest))
                # An iteration that consumes nothing adds nothing; without this the name would not be guarded.
                again = self._sequence(
                    [body], reached, lambda c: algebra.both(loop(c), algebra.anything), True
                )
                if algebra.nullable(self._sequence([body], reached, lambda _: algebra.epsilon, False)):
                    raise GrammarUnsupportedError(
                        "an assertion inside a repeat that can be empty is not supported"
                    )
                algebra.define(name, algebra.either(rest, again))
            return names[reached]

        return loop(context)

    def _assertion(self, tree: Tree, context: str, rest: int) -> int:
        algebra = self.algebra
        if tree[0] == "end":
            return algebra.both(rest, algebra.epsilon)
        if tree[0] == "word":
            word_next = algebra.concat(self.word, algebra.anything)
            boundary = algebra.negate(word_next) if context == WORD else word_next
            return algebra.both(rest, boundary if tree[1] else algebra.negate(boundary))
        _, ahead, wanted, inner = tree
        if not ahead:
            raise GrammarUnsupportedError("lookbehind in a regex is not supported")
        seen = self._sequence([inner], context, lambda _: algebra.anything, False)
        return algebra.both(rest, seen if wanted else algebra.negate(seen))


def _begins_at_start(tree: Tree) -> bool:
    """Whether a match can only begin where the text does."""
    if tree[0] == "seq":
        return bool(tree[1]) and _begins_at_start(tree[1][0])
    if tree[0] == "alt":
        return all(map(_begins_at_start, tree[1]))
    return bool(tree[0] == "start")


def _children(tree: Tree) -> list[Tree]:
    if tree[0] in ("seq", "alt"):
        return list(tree[1])
    if tree[0] == "repeat":
        return [tree[1]]
    return [tree[3]] if tree[0] == "look" else []
