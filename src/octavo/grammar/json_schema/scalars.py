"""Formulas over null, booleans, numbers and strings -> one exact expression per type, without cases."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property

from octavo.grammar.errors import GrammarError, GrammarSyntaxError, GrammarTooComplexError
from octavo.grammar.expressions import UNBOUNDED, Algebra
from octavo.grammar.front_ends.regex import RegexCompiler, compile_regex
from octavo.grammar.json_schema.formats import format_tree
from octavo.grammar.json_schema.formulas import Formula, Formulas
from octavo.grammar.json_schema.numbers import NumberLanguage
from octavo.grammar.literals import LiteralTrie

Goal = frozenset[tuple[str, bool]]  # (place, holds?): all of them


class Scalars:
    def __init__(self, algebra: Algebra, formulas: Formulas) -> None:
        self.algebra = algebra
        self.formulas = formulas
        self._goals: dict[tuple[Goal, str], int] = {}
        self._expressions: dict[tuple[str, str, bool], int] = {}
        self._patterns: dict[str, int] = {}
        self._formats: dict[tuple[str, bool], int] = {}
        self._tries: dict[tuple[str, ...], int] = {}
        self._numbers: dict[tuple[int, int], int] = {}  # by expression and how many are spelled
        self._spelled: set[str] = set()  # whole numbers that the schema writes with a point
        self._active: set[tuple[str, str, bool]] = set()

    @cached_property
    def numbers(self) -> NumberLanguage:
        return NumberLanguage(self.algebra)

    def constant(self, goal: Goal, kind: str) -> bool:
        """Whether null, true or false satisfies the goal."""
        return self.of(goal, kind) != self.algebra.empty

    def strings(self, goal: Goal) -> int:
        return self.of(goal, "string")

    def number(self, goal: Goal) -> int:
        """The texts of the numbers that satisfy the goal; without a point where all must be whole."""
        expression = self.of(goal, "number")
        if expression == self.algebra.anything:
            return self.numbers.free
        known = (expression, len(self._spelled))
        if known not in self._numbers:
            self._numbers[known] = self._written(expression)
        return self._numbers[known]

    def _written(self, expression: int) -> int:
        numbers, algebra = self.numbers, self.algebra
        if expression in (numbers.whole, numbers.pointless):
            return numbers.pointless
        plain = algebra.both(expression, numbers.plain)
        if numbers.surely_whole(expression) or self._all_whole(plain):
            # 2.0 only where the schema itself writes so.
            spelled = algebra.both(plain, self.texts(sorted(self._spelled)))
            return algebra.either(algebra.both(expression, numbers.pointless), spelled)
        return plain

    def _all_whole(self, plain: int) -> bool:
        algebra = self.algebra
        try:
            return not algebra.live(algebra.both(plain, algebra.negate(self.numbers.whole)))
        except GrammarTooComplexError:
            return False

    def of(self, goal: Goal, kind: str) -> int:
        found = self._goals.get((goal, kind))
        if found is None:
            parts = [self._place(place, kind, holds) for place, holds in goal]
            found = self._goals[goal, kind] = self.algebra.both(*parts)
        return found

    def _place(self, place: str, kind: str, holds: bool) -> int:
        key = (place, kind, holds)
        if key not in self._expressions:
            if key in self._active:
                raise GrammarSyntaxError(f"{place}: the schema refers to itself without any value between")
            self._active.add(key)
            self._expressions[key] = self._evaluate(self.formulas.of(place, kind), kind, holds)
            self._active.discard(key)
        return self._expressions[key]

    def _evaluate(self, formula: Formula, kind: str, holds: bool) -> int:
        algebra = self.algebra
        if isinstance(formula, bool):
            return algebra.anything if formula == holds else algebra.empty
        name = formula[0]
        if name == "not":
            return self._evaluate(formula[1], kind, not holds)
        if name in ("and", "or"):
            parts = [self._evaluate(part, kind, holds) for part in formula[1]]
            return algebra.both(*parts) if (name == "and") == holds else algebra.either(*parts)
        if name == "place":
            return self._place(formula[1], kind, holds)
        if name == "one":
            return self._exactly_one(formula[1], kind, holds)
        if name == "format" and not holds:
            return algebra.negate(self._format(formula[1], widest=True))
        atom = self._number_atom(formula) if kind == "number" else self._string_atom(formula)
        return atom if holds else algebra.negate(atom)

    def _exactly_one(self, places: list[str], kind: str, holds: bool) -> int:
        algebra = self.algebra
        yes = [self._place(place, kind, True) for place in places]
        no = [self._place(place, kind, False) for place in places]
        # Running through the list: the values that satisfied none so far, and those that satisfied exactly
        # one.
        none, one, several = algebra.anything, algebra.empty, algebra.empty
        for is_in, is_out in zip(yes, no, strict=True):
            several = algebra.either(several, algebra.both(one, is_in))
            one = algebra.either(algebra.both(one, is_out), algebra.both(none, is_in))
            none = algebra.both(none, is_out)
        return one if holds else algebra.either(none, several)

    def _number_atom(self, formula: Formula) -> int:
        algebra, numbers, name = self.algebra, self.numbers, formula[0]
        if name == "integer":
            return numbers.whole if formula[1] else numbers.pointless
        if name == "compare":
            return numbers.compare(formula[1], set(formula[2]))
        if name == "multiple":
            return numbers.multiple(formula[1])
        assert name == "numbers", name
        self._spelled.update(repr(v) for v in formula[1] if isinstance(v, float) and repr(v).endswith(".0"))
        return algebra.either(*(numbers.compare(value, {0}) for value in formula[1]))

    def _string_atom(self, formula: Formula) -> int:
        algebra, name = self.algebra, formula[0]
        if name == "texts":
            return self.texts(formula[1])
        if name == "length":
            low, high = formula[1], formula[2]
            if high is not None and high < low:
                return algebra.empty
            return algebra.repeat(algebra.any_character, low, UNBOUNDED if high is None else high)
        if name == "pattern":
            return self.pattern(formula[1], formula[2])
        assert name == "format", name
        return self._format(formula[1])

    def texts(self, texts: Iterable[str]) -> int:
        key = tuple(texts)
        if key not in self._tries:
            self._tries[key] = self.algebra.leaf(LiteralTrie.build(key)) if key else self.algebra.empty
        return self._tries[key]

    def pattern(self, pattern: str, where: str) -> int:
        try:
            return self._regex(pattern)
        except GrammarError as error:
            raise type(error)(f"{where}: {error}") from None

    def _format(self, name: str, widest: bool = False) -> int:
        key = (name, widest)
        if key not in self._formats:
            tree = format_tree(name, widest)
            self._formats[key] = RegexCompiler(self.algebra, "ecma").compile(tree, search=True)
        return self._formats[key]

    def _regex(self, pattern: str) -> int:
        if pattern not in self._patterns:
            self._patterns[pattern] = compile_regex(self.algebra, pattern, "ecma", search=True)
        return self._patterns[pattern]
