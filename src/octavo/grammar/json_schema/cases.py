"""Formulas over arrays and objects -> the list of cases (conjunctions of constraints) that they allow.

Cases are found as a satisfiability solver does it: first everything that must hold, then one alternative
after the other, dropping those that contradict what is known and those that are satisfied already.  What is
known of the value of a name counts too where a schema lists values: once `kind` is "a", what asks for "b" is
no alternative, and what asks for another than "b" none either, so cases are as many as kinds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from octavo.grammar.errors import GrammarSyntaxError, GrammarTooComplexError, GrammarUnsupportedError
from octavo.grammar.json_schema.formulas import Formula, Formulas
from octavo.grammar.json_schema.glance import lists_scalars
from octavo.grammar.json_schema.scalars import Goal

Constraint = tuple[Any, ...]
Case = tuple[Constraint, ...]
Signed = tuple[Formula, bool]
Impossible = Callable[[Goal, str], bool]  # of a goal and a type
Known = dict[Constraint, None]
MAX_CASES = 512
MAX_WORK = 50_000
MAX_LOOK = 2  # schemas in schemas, to see whether they are decided


class CaseFinder:
    def __init__(self, formulas: Formulas) -> None:
        self.formulas = formulas
        #: What is known of a value, a schema that lists values, whether it must hold -> whether it cannot.
        self.excluded: dict[tuple[Goal, str, bool], bool] = {}
        self._listing: dict[str, bool] = {}

    def lists_scalars(self, place: str) -> bool:
        found = self._listing.get(place)
        if found is None:
            found = self._listing[place] = lists_scalars(self.formulas.document.at(place))
        return found

    def cases(self, goal: Goal, kind: str, impossible: Impossible) -> list[Case]:
        """`impossible` may say True only where no value of the type satisfies a goal."""
        start: list[Signed] = [(("place", place), holds) for place, holds in sorted(goal, key=place_order)]
        return _Search(self, impossible, kind).run(start)


def place_order(literal: tuple[str, bool]) -> tuple[int, str, bool]:
    return (len(literal[0]), literal[0], literal[1])


class _Search:
    def __init__(self, finder: CaseFinder, impossible: Impossible, kind: str) -> None:
        self.finder = finder
        self.formulas = finder.formulas
        self.impossible = impossible
        self.kind = kind
        self.values: dict[str, Goal] = {}  # what is known of the values of names
        self.results: dict[Case, None] = {}
        self.work = 0

    def run(self, start: list[Signed]) -> list[Case]:
        self._explore({}, start, [], frozenset())
        return list(self.results)

    def _explore(  # noqa: C901 - one branch for each kind
        self,
        known: Known,
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

    def _add(self, known: Known, choices: list[list[Signed]], atom: Formula, holds: bool) -> bool:
        """Adds what an atom says; False if that contradicts what is known."""
        for item in constraints_of(atom, holds):
            if item[0] == "choice":
                choices.append([(option, True) for option in item[1]])
            elif opposite(item) in known:
                return False
            else:
                known[item] = None
        return True

    def _choose(self, known: Known, choices: list[list[Signed]], places: frozenset[Signed]) -> None:
        self.values = _values_of_names(known) if choices else {}
        remaining: list[list[Signed]] = []
        for options in choices:
            verdicts = [self._verdict(known, places, *option) for option in options]
            if True in verdicts:
                continue
            alive = [option for option, verdict in zip(options, verdicts, strict=True) if verdict is None]
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
        self, known: Known, places: frozenset[Signed], formula: Formula, holds: bool, depth: int = MAX_LOOK
    ) -> bool | None:
        """True or False where what is known decides the formula; None where it does not."""
        if isinstance(formula, bool):
            return formula == holds
        name = formula[0]
        if name == "place":
            return self._verdict_of_place(known, places, formula[1], holds, depth)
        if name == "not":
            return self._verdict(known, places, formula[1], not holds, depth)
        if name in ("and", "or"):
            verdicts = [self._verdict(known, places, part, holds, depth) for part in formula[1]]
            if (name == "and") == holds:
                return False if False in verdicts else True if all(v is True for v in verdicts) else None
            return True if True in verdicts else False if all(v is False for v in verdicts) else None
        return None if name == "one" else self._verdict_of_atom(known, formula, holds)

    def _verdict_of_place(
        self, known: Known, places: frozenset[Signed], place: str, holds: bool, depth: int
    ) -> bool | None:
        if (place, holds) in places:
            return True
        if (place, not holds) in places:
            return False
        if depth == 0:
            return None
        return self._verdict(known, places, self.formulas.of(place, self.kind), holds, depth - 1)

    def _verdict_of_atom(self, known: Known, atom: Formula, holds: bool) -> bool | None:
        if atom[0] == "unique" and not holds:
            return None  # an error, but only for who chooses it
        decided = True
        for item in constraints_of(atom, holds):
            if item not in known:
                if opposite(item) in known:
                    return False
                decided = False
        if decided:
            return True
        if atom[0] == "values" and atom[1][0] == "name" and atom[1][1] in self.values:
            return self._verdict_of_value(known, atom[1][1], atom[2], holds)
        return None

    def _verdict_of_value(self, known: Known, name: str, place: str, holds: bool) -> bool | None:
        """Whether, after what is known of a name, its value satisfies (or not) a schema that lists values."""
        if not self.finder.lists_scalars(place):
            return None
        about, present = self.values[name], ("required", name) in known
        if (present or not holds) and self._excluded(about, place, holds):
            return False
        if (present or holds) and self._excluded(about, place, not holds):
            return True
        return None

    def _excluded(self, about: Goal, place: str, holds: bool) -> bool:
        key = (about, place, holds)
        found = self.finder.excluded.get(key)
        if found is None:
            kinds = [self.formulas.kinds(other) for other, positive in about if positive]
            # Some array or object may do where they are not excluded, and to look for one can take long.
            open_ended = not holds and (not kinds or {"array", "object"} & frozenset.intersection(*kinds))
            found = not open_ended and self.impossible(about | {(place, holds)}, "any")
            self.finder.excluded[key] = found
        return found

    def _disjoint(self, place: str, other: str) -> bool:
        return self.impossible(frozenset({(place, True), (other, True)}), self.kind)

    def _exactly_one(self, places: list[str], holds: bool) -> list[Signed]:
        disjoint = self._disjoint
        if not places:
            return [(not holds, True)]
        options: list[Signed] = []
        if not holds:
            options.append((("and", [("not", ("place", place)) for place in places]), True))
            for index, place in enumerate(places):
                for other in places[:index]:
                    if not disjoint(place, other):
                        options.append((("and", [("place", place), ("place", other)]), True))
            return options
        for index, place in enumerate(places):
            parts: list[Formula] = [("place", place)]
            for position, other in enumerate(places):
                if position != index and not disjoint(place, other):
                    parts.append(("not", ("place", other)))
            options.append((("and", parts), True))
        return options


def _values_of_names(known: Known) -> dict[str, Goal]:
    found: dict[str, Goal] = {}
    for item in known:
        if item[0] == "values" and item[1][0] == "name":
            found[item[1][1]] = found.get(item[1][1], frozenset()) | item[2]
    return found


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
