"""Goals (schemas that must and must not hold, together) -> alternatives per type, made when first reached."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from octavo.grammar.errors import GrammarTooComplexError
from octavo.grammar.expressions import Algebra
from octavo.grammar.json_schema.arrays import ArrayPosition, ArrayShape
from octavo.grammar.json_schema.cases import Case, CaseFinder
from octavo.grammar.json_schema.document import SchemaDocument
from octavo.grammar.json_schema.formulas import Formulas
from octavo.grammar.json_schema.glance import has_values
from octavo.grammar.json_schema.keywords import ANNOTATIONS, EVERY_TYPE
from octavo.grammar.json_schema.object_positions import ObjectPosition
from octavo.grammar.json_schema.objects import ObjectShape
from octavo.grammar.json_schema.scalars import Goal, Scalars
from octavo.grammar.layout import LAYOUTS
from octavo.grammar.network import BasePosition, Outline, Position, Return, Silent
from octavo.grammar.text_positions import PlainText, StringText

ANYTHING: Goal = frozenset()
OPENING = {"array": 0x5B, "object": 0x7B}  # their first bytes
WORDS = ("null", "true", "false")
MAX_GOALS = 100_000
MAX_DEPTH = 120


class Goals:
    """Everything that one schema's positions share."""

    def __init__(
        self,
        document: SchemaDocument,
        any_order: bool = False,
        layout: str = "flexible",
        strict: bool = True,
    ) -> None:
        self.document = document
        self.any_order = any_order
        self.layout = layout
        self.layout_number = len(LAYOUTS) - 1 - LAYOUTS.index(layout)
        self.algebra = Algebra()
        self.formulas = Formulas(document, strict)
        self.scalars = Scalars(self.algebra, self.formulas)
        self.finder = CaseFinder(self.formulas)
        self._settled: dict[tuple[str, bool], Goal] = {}  # single schemas, as `goal` gives them
        self._joined: dict[tuple[Goal, ...], Goal] = {}
        self._kinds: dict[Goal, frozenset[str]] = {}
        self._alternatives: dict[Goal, tuple[Position, ...]] = {}
        self._arrays: dict[Goal, list[ArrayShape]] = {}
        self._objects: dict[Goal, list[ObjectShape]] = {}
        self._cases: dict[Goal, list[Case]] = {}  # of objects
        self._satisfiable: dict[tuple[Goal, str], bool] = {}
        self._active: dict[tuple[Goal, str], int] = {}
        self._texts: list[str] = []
        self._text_ids: dict[str, int] = {}
        self._lowest = MAX_DEPTH * 10  # the outermost active question that the current answer leaned on

    def release(self) -> None:
        """Forgets what can be found again, which refers back to here: memory is free as soon as nobody asks
        any more, not when Python's garbage collector stops everything to look for it.
        """
        self._alternatives.clear()
        self._arrays.clear()
        self._objects.clear()

    def goal(self, *goals: Goal) -> Goal:
        """All of them, without schemas that allow everything; bare references are followed."""
        if goals not in self._joined:
            for literal in (literal for goal in goals for literal in goal):
                if literal not in self._settled:
                    self._settled[literal] = self._settle(*literal)
            parts = (self._settled[literal] for goal in goals for literal in goal)
            self._joined[goals] = frozenset().union(*parts)
        return self._joined[goals]

    def _settle(self, place: str, holds: bool) -> Goal:
        for _ in range(MAX_DEPTH):
            schema = self.document.at(place)
            if not isinstance(schema, dict) or not isinstance(schema.get("$ref"), str):
                break
            if not ANNOTATIONS.issuperset(keyword for keyword in schema if keyword != "$ref"):
                break
            place = self.document.resolve(place, schema["$ref"])
        schema = self.document.at(place)
        if (schema is True or schema == {}) and holds:
            return ANYTHING
        return frozenset({(place, holds)})

    def arrays(self, goal: Goal) -> list[ArrayShape]:
        if goal not in self._arrays:
            cases = self.finder.cases(goal, "array", self.impossible)
            self._arrays[goal] = [ArrayShape(self, case) for case in cases]
        return self._arrays[goal]

    def objects(self, goal: Goal) -> Iterator[ObjectShape]:
        """Made one by one: to know that there are values, one case that has some is enough."""
        shapes = self._objects.setdefault(goal, [])
        for index, case in enumerate(self._object_cases(goal)):
            if index == len(shapes):
                shapes.append(ObjectShape(self, case))
            yield shapes[index]

    def _object_cases(self, goal: Goal) -> list[Case]:
        if goal not in self._cases:
            self._cases[goal] = self.finder.cases(goal, "object", self.impossible)
        return self._cases[goal]

    def look_at_all(self, start: Goal) -> None:
        """Makes the cases of every goal that needs an array or object, so that errors in them come now; where
        a scalar will do, an array that cannot be enforced is an error when it is reached.
        """
        seen, work = {start}, [start]
        while work:
            goal = work.pop()
            if self._has_scalar(goal, self.kinds(goal)):
                continue
            found: list[Goal | None] = []
            shapes: list[ObjectShape | ArrayShape] = [*self.objects(goal), *self.arrays(goal)]
            for shape in shapes:
                found += shape.value_goals()
            for other in found:
                if other is not None and other not in seen:
                    seen.add(other)
                    work.append(other)
            if len(seen) > MAX_GOALS:
                raise GrammarTooComplexError(
                    f"the schema reached {MAX_GOALS} combinations of subschemas, the limit"
                )

    def text_label(self, text: str) -> int:
        """A label that stands for a text; `labelled_text` tells it."""
        if text not in self._text_ids:
            self._text_ids[text] = len(self._texts)
            self._texts.append(text)
        return self._text_ids[text]

    def labelled_text(self, label: int) -> str:
        return self._texts[label]

    def native_label(self, index: int, classes: int, text: str | None) -> int:
        return self.text_label(text or "")

    def position(self, goal: Goal) -> Position:
        return GoalPosition(self, goal)

    def alternatives(self, goal: Goal) -> tuple[Position, ...]:
        """Where a value that satisfies the goal can begin; nothing that cannot be finished."""
        found = self._alternatives.get(goal)
        if found is None:
            assert not self.deciding
            if len(self._alternatives) >= MAX_GOALS:
                raise GrammarTooComplexError(
                    f"the schema reached {MAX_GOALS} combinations of subschemas, the limit"
                )
            found = self._alternatives[goal] = tuple(self._begin(goal))
        return found

    def _begin(self, goal: Goal) -> list[Position]:
        algebra, scalars, kinds = self.algebra, self.scalars, self.kinds(goal)
        result: list[Position] = []
        words = [algebra.literal(word) for word in WORDS if word in kinds and scalars.constant(goal, word)]
        if words:
            result.append(PlainText(algebra, algebra.either(*words)))
        if "string" in kinds and algebra.live(strings := scalars.strings(goal)):
            result.append(StringText(algebra, strings))
        if "number" in kinds and algebra.live(numbers := scalars.number(goal)):
            result.append(PlainText(algebra, numbers))
        for kind in sorted(kinds & OPENING.keys()):
            count = len(self._object_cases(goal) if kind == "object" else self.arrays(goal))
            if count == 1:
                result += self.cases(goal, kind)
            elif self.satisfiable(goal, kind):
                result.append(Opening(self, goal, kind))
        return result

    def cases(self, goal: Goal, kind: str) -> list[Position]:
        """The places before arrays or objects, one for each case that has values."""
        if kind == "object":
            return [ObjectPosition.begin(shape) for shape in self.objects(goal) if shape.satisfiable()]
        return [ArrayPosition.begin(shape) for shape in self.arrays(goal) if shape.satisfiable()]

    def kinds(self, goal: Goal) -> frozenset[str]:
        """The types that values of a goal may have, as far as `type` and references tell."""
        found = self._kinds.get(goal)
        if found is None:
            found, formulas = EVERY_TYPE, self.formulas
            for place, holds in goal:
                found &= formulas.kinds(place) if holds else formulas.kinds_without(place)
            self._kinds[goal] = found
        return found

    # Whether anything satisfies a goal: the least fixpoint, by depth-first search.

    def satisfiable(self, goal: Goal, kind: str = "any") -> bool:
        key = (goal, kind)
        found = self._satisfiable.get(key)
        if found is not None:
            return found
        if key in self._active:
            self._lowest = min(self._lowest, self._active[key])
            return False
        depth = len(self._active)
        if depth > MAX_DEPTH:
            raise GrammarTooComplexError(f"the schema nests over {MAX_DEPTH} deep before any value can end")
        outer, self._lowest = self._lowest, MAX_DEPTH * 10
        self._active[key] = depth
        try:
            answer = self._decide(goal, kind)
        finally:
            del self._active[key]
            leaned, self._lowest = self._lowest, outer
        if answer or leaned >= depth:
            self._satisfiable[key] = answer
        else:
            self._lowest = min(self._lowest, leaned)
        return answer

    def _decide(self, goal: Goal, kind: str) -> bool:
        if kind == "any" and len(goal) == 1:
            ((place, holds),) = goal
            if holds and has_values(self.document.at(place)):
                return True
        kinds = self.kinds(goal)
        if kind == "any" and self._has_scalar(goal, kinds):
            return True
        if kind != "object" and "array" in kinds and any(shape.satisfiable() for shape in self.arrays(goal)):
            return True
        if kind == "array" or "object" not in kinds:
            return False
        return any(shape.satisfiable() for shape in self.objects(goal))

    def _has_scalar(self, goal: Goal, kinds: frozenset[str]) -> bool:
        scalars, algebra = self.scalars, self.algebra
        if any(word in kinds and scalars.constant(goal, word) for word in WORDS):
            return True
        if "string" in kinds and algebra.live(scalars.strings(goal)):
            return True
        return "number" in kinds and algebra.live(scalars.number(goal))

    @property
    def deciding(self) -> bool:
        """Whether a question is open, so that "not satisfiable" may only mean "not yet"."""
        return bool(self._active)

    def impossible(self, goal: Goal, kind: str) -> bool:
        """Whether surely no value of a type (or of any) satisfies a goal; an open question is not sure."""
        goal = self.goal(goal)
        return not self.satisfiable(goal, kind) and self._satisfiable.get((goal, kind)) is False


@dataclass(frozen=True, slots=True)
class GoalPosition(Silent):
    """The place before a value that must satisfy a goal."""

    goals: Goals
    goal: Goal

    def calls(self) -> Sequence[tuple[Position, Return | None]]:
        return [(position, None) for position in self.goals.alternatives(self.goal)]


@dataclass(frozen=True, slots=True)
class Opening(BasePosition):
    """The place before an array or object of several cases; which are possible is found once it has begun."""

    goals: Goals
    goal: Goal
    kind: str

    def outline(self) -> Outline:
        return Outline(moves=((OPENING[self.kind], Opened(self.goals, self.goal, self.kind)),))

    def step(self, byte: int) -> Position | None:
        return Opened(self.goals, self.goal, self.kind) if byte == OPENING[self.kind] else None


@dataclass(frozen=True, slots=True)
class Opened(Silent):
    """Behind the bracket."""

    goals: Goals
    goal: Goal
    kind: str

    def calls(self) -> Sequence[tuple[Position, Return | None]]:
        before = self.goals.cases(self.goal, self.kind)
        behind = [position.step(OPENING[self.kind]) for position in before]
        return [(position, None) for position in behind if position is not None]


@dataclass(frozen=True, slots=True)
class WholeSchema(GoalPosition):
    """The place before a whole document; without it nobody begins one."""

    def __del__(self) -> None:
        self.goals.release()
