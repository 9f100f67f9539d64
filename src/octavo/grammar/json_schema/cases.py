"""Formulas over arrays and objects -> the list of cases (conjunctions of constraints) that they allow.

Cases are found as a satisfiability solver does it: first everything that must hold, then one alternative
after the other, dropping those that contradict what is known and those that are satisfied already.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from octavo.grammar.errors import GrammarSyntaxError, GrammarTooComplexError, GrammarUnsupportedError
from octavo.grammar.json_schema.formulas import Formula, Formulas
from octavo.grammar.json_schema.scalars import Goal

Constraint = tuple[Any, ...]
Case = tuple[Constraint, ...]
Signed = tuple[Formula, bool]
Disjoint = Callable[[str, str, str], bool]  # of two places and a type
MAX_CASES = 512
MAX_WORK = 50_000


class CaseFinder:
    def __init__(self, formulas: Formulas) -> None:
        self.formulas = formulas

    def cases(self, goal: Goal, kind: str, disjoint: Disjoint) -> list[Case]:
        """`disjoint` may say True only where no value satisfies both."""
        start: list[Signed] = [(("place", place), holds) for place, holds in sorted(goal, key=place_order)]
        return _Search(self.formulas, disjoint, kind).run(start)


def place_order(literal: tuple[str, bool]) -> tuple[int, str, bool]:
    return (len(literal[0]), literal[0], literal[1])


class _Search:
    def __init__(self, formulas: Formulas, disjoint: Disjoint, kind: str) -> None:
        self.formulas = formulas
        self.disjoint = disjoint
        self.kind = kind
        self.results: dict[Case, None] = {}
        self.work = 0

    def run(self, start: list[Signed]) -> list[Case]:
        self._explore({}, start, [], frozenset())
        return list(self.results)

    def _explore(  # noqa: C901 - one branch for each kind
        self,
        known: dict[Constraint, None],
        todo: list[Signed],
        choices: list[list[Signed]],
        places: frozenset[Signed],
    ) -> None:
        known, todo, choices = dict(known), list(todo), list(choices)
        while todo:
            self.work += 1
            if self.work > MAX_WORK:
                raise GrammarTooComplexError("the schema's alternatives multiply beyond the limits")
            formula, holds = todo.pop(0)
            if isinstance(formula, bool):
                if formula != holds:
                    return
                continue
            name = formula[0]
            if name == "place":
                signed = (formula[1], holds)
                if (formula[1], not holds) in places:
                    return
                if signed not in places:
                    places |= {signed}
                    todo.insert(0, (self.formulas.of(formula[1], self.kind), holds))
            elif name == "not":
                todo.insert(0, (formula[1], not holds))
            elif name in ("and", "or") and (name == "and") == holds:
                todo[:0] = [(part, holds) for part in formula[1]]
            elif name in ("and", "or"):
                choices.append([(part, holds) for part in formula[1]])
            elif name == "one":
                choices.append(self._exactly_one(formula[1], holds))
            elif not self._add(known, choices, formula, holds):
                return
        self._choose(known, choices, places)

    def _add(
        self, known: dict[Constraint, None], choices: list[list[Signed]], atom: Formula, holds: bool
    ) -> bool:
        """Adds what an atom says; False if that contradicts what is known."""
        for item in constraints_of(atom, holds):
            if item[0] == "choice":
                choices.append([(option, True) for option in item[1]])
            elif opposite(item) in known:
                return False
            else:
                known[item] = None
        return True

    def _choose(
        self, known: dict[Constraint, None], choices: list[list[Signed]], places: frozenset[Signed]
    ) -> None:
        remaining: list[list[Signed]] = []
        for options in choices:
            alive = [option for option in options if self._verdict(known, places, *option) is not False]
            if any(self._verdict(known, places, *option) is True for option in alive):
                continue
            if not alive:
                return
            remaining.append(alive)
        if not remaining:
            if len(self.results) >= MAX_CASES:
                raise GrammarTooComplexError(f"the schema has over {MAX_CASES} alternatives at one place")
            self.results[tuple(known)] = None
            return
        # Where one alternative is left it is no choice; otherwise in the schema's own order.
        chosen = min(range(len(remaining)), key=lambda index: (len(remaining[index]) > 1, index))
        others = remaining[:chosen] + remaining[chosen + 1 :]
        for option in remaining[chosen]:
            self._explore(known, [option], others, places)

    def _verdict(
        self, known: dict[Constraint, None], places: frozenset[Signed], formula: Formula, holds: bool
    ) -> bool | None:
        """True or False where what is known decides the formula; None where it does not."""
        if isinstance(formula, bool):
            return formula == holds
        name = formula[0]
        if name == "place":
            if (formula[1], holds) in places:
                return True
            return False if (formula[1], not holds) in places else None
        if name == "not":
            return self._verdict(known, places, formula[1], not holds)
        if name in ("and", "or"):
            verdicts = [self._verdict(known, places, part, holds) for part in formula[1]]
            if (name == "and") == holds:
                return False if False in verdicts else True if all(v is True for v in verdicts) else None
            return True if True in verdicts else False if all(v is False for v in verdicts) else None
        if name == "one":
            return None
        items = constraints_of(formula, holds)
        if any(opposite(item) in known for item in items):
            return False
        return True if all(item in known for item in items) else None

    def _exactly_one(self, places: list[str], holds: bool) -> list[Signed]:
        disjoint = self.disjoint
        if not places:
            return [(not holds, True)]
        options: list[Signed] = []
        if not holds:
            options.append((("and", [("not", ("place", place)) for place in places]), True))
            for index, place in enumerate(places):
                for other in places[:index]:
                    if not disjoint(place, other, self.kind):
                        options.append((("and", [("place", place), ("place", other)]), True))
            return options
        for index, place in enumerate(places):
            parts: list[Formula] = [("place", place)]
            for position, other in enumerate(places):
                if position != index and not disjoint(place, other, self.kind):
                    parts.append(("not", ("place", other)))
            options.append((("and", parts), True))
        return options


def opposite(item: Constraint) -> Constraint | None:
    if item[0] in ("required", "absent"):
        return ("absent" if item[0] == "required" else "required", item[1])
    return None


def constraints_of(atom: Formula, holds: bool) -> list[Constraint]:  # noqa: C901 - one branch for each kind
    """An atom, or its negation, as constraints that say something positive."""
    name = atom[0]
    if name == "required":
        return [("required" if holds else "absent", atom[1])]
    if name == "values":
        goal = frozenset({(atom[2], holds)})
        if holds:
            return [("values", atom[1], goal)]
        if atom[1][0] == "name":
            return [("required", atom[1][1]), ("values", atom[1], goal)]
        return [("some", atom[1], goal)]
    if name == "keys":
        return [("forbidden", ("keys", atom[1]))] if holds else [("some", ("keys", atom[1]), frozenset())]
    if name == "items":
        _, low, high, place = atom
        if holds:
            return [("items", low, high, frozenset({(place, True)}))]
        return [("contains", low, high, (place, False), 1, None)]
    if name == "contains":
        _, low, high, place, least, most = atom
        if holds:
            return [("contains", low, high, (place, True), least, most)] if least or most is not None else []
        return _outside(least, most, lambda a, b: ("contains", low, high, place, a, b))
    if name == "count":
        return [atom] if holds else _outside(atom[1], atom[2], lambda a, b: ("count", a, b))
    if name == "unique":
        if not holds:
            raise GrammarUnsupportedError(
                "uniqueItems under `not` or in an overlapping `oneOf` cannot be enforced"
            )
        return [("unique",)]
    raise GrammarSyntaxError(f"{name} is not a constraint")


def _outside(least: int, most: int | None, make: Callable[[int, int | None], Formula]) -> list[Constraint]:
    options: list[Formula] = []
    if least > 0:
        options.append(make(0, least - 1))
    if most is not None:
        options.append(make(most + 1, None))
    return [("choice", tuple(options) or (False,))]
