"""Objects: which keys may come next, what their values must satisfy, and when the object may close."""

from __future__ import annotations

from functools import cached_property
from itertools import combinations
from typing import TYPE_CHECKING, Any, NamedTuple

from octavo.grammar.json_schema.cases import Case
from octavo.grammar.json_schema.claim_fit import MOST_CLAIMS, claims_fit, dead_ends
from octavo.grammar.json_schema.key_watch import KeyWatch
from octavo.grammar.json_schema.scalars import Goal
from octavo.grammar.literals import LiteralTrie
from octavo.grammar.network import Position
from octavo.grammar.text_positions import StringText

if TYPE_CHECKING:
    from octavo.grammar.json_schema.goals import Goals

MAX_CLASSES = 6  # of unnamed keys, told apart in every combination


class Progress(NamedTuple):
    """What has been read: `seen` is the next index in order, or a bit set of names; `keys` is how many there
    were, no further than it matters; `pending` are existence claims still to be met; `used` the unnamed keys
    that must not come again."""

    seen: int = 0
    keys: int = 0
    pending: int = 0
    used: frozenset[str] = frozenset()


class ObjectShape:
    """One case of an object: names in order, classes of other keys, what must be there, how many."""

    def __init__(self, goals: Goals, case: Case) -> None:
        self.goals = goals
        self.least, self.most = 0, None
        self._universals: list[
            tuple[Any, Goal | None]
        ] = []  # key class, what values satisfy (None: no such key)
        self.claims: list[tuple[Any, Goal]] = []
        self.required: set[str] = set()
        absent: set[str] = set()
        names: dict[str, None] = {}
        late: dict[str, None] = {}
        for item in case:
            kind = item[0]
            if kind == "required":
                self.required.add(item[1])
                late[item[1]] = None
            elif kind == "absent":
                absent.add(item[1])
                late[item[1]] = None
            elif kind == "count":
                self.least = max(self.least, item[1])
                self.most = min((most for most in (self.most, item[2]) if most is not None), default=None)
            else:
                spec = item[1]
                (names if spec[0] == "name" else late).update(dict.fromkeys(_names_in(spec)))
                if kind == "some":
                    self.claims.append((spec, item[2]))
                elif kind == "forbidden":
                    self._universals.append((spec, None))
                elif goal := goals.goal(item[2]):
                    self._universals.append((spec, goal if goals.kinds(goal) else None))
        self.names = [*names, *(name for name in late if name not in names)]
        self._needed = [index for index, name in enumerate(self.names) if name in self.required]
        self._name_goals: list[Goal | None | bool] = [False if n in absent else True for n in self.names]
        self._labels: list[tuple[int, int, str]] = []  # name index or -1, classes, text
        self._label_ids: dict[tuple[int, int, str], int] = {}
        self._keys: dict[Progress, int] = {}
        self._extra_goals: dict[int, Goal | None] = {}
        self._satisfiable: bool | None = None
        self._allowed_extras: int | None = None
        # Distinct keys must be told apart only where they are counted up to a least number.
        self.counts = self.least > len(self.required) or self.most is not None
        self.distinct = self.least > len(self.required)

    # What most cases are never asked for, as they contradict themselves, is made when it is.

    @cached_property
    def trie(self) -> LiteralTrie:
        return LiteralTrie.build(self.names)

    @cached_property
    def names_leaf(self) -> int:
        algebra = self.goals.algebra
        return algebra.leaf(self.trie) if self.names else algebra.empty

    @cached_property
    def classes(self) -> list[int]:
        """The classes that tell unnamed keys apart; those that hold for all of them are kept aside."""
        specs = [
            *(spec for spec, _ in self._universals if spec[0] != "name"),
            *(spec for spec, _ in self.claims),
        ]
        found = dict.fromkeys(map(self._key_expression, specs))
        return [expression for expression in found if expression != self.goals.algebra.anything]

    @cached_property
    def _class_goals(self) -> list[tuple[int, Goal | None]]:
        """Of classes (-1: every unnamed key), the goal."""
        return [(self._class_of(spec), goal) for spec, goal in self._universals if spec[0] != "name"]

    @cached_property
    def claim_classes(self) -> list[int]:
        return [self._class_of(spec) for spec, _ in self.claims]

    def _class_of(self, spec: Any) -> int:
        expression = self._key_expression(spec)
        return -1 if expression == self.goals.algebra.anything else self.classes.index(expression)

    def _key_expression(self, spec: Any) -> int:
        """The keys of a class, as far as unnamed keys are concerned."""
        algebra, scalars = self.goals.algebra, self.goals.scalars
        if spec[0] == "pattern":
            return scalars.pattern(spec[1], "patternProperties")
        if spec[0] == "keys":
            return scalars.strings(frozenset({(spec[1], False)}))
        patterns = [scalars.pattern(pattern, "patternProperties") for pattern in sorted(spec[2])]
        return algebra.both(*(algebra.negate(pattern) for pattern in patterns))

    def matches(self, spec: Any, name: str) -> bool:
        if spec[0] == "name":
            return bool(spec[1] == name)
        if spec[0] == "rest" and name in spec[1]:
            return False
        return self.goals.algebra.matches(self._key_expression(spec), name)

    # What a value must satisfy.

    def name_goal(self, index: int) -> Goal | None:
        """For the value of a named key; None where the key cannot be there."""
        found = self._name_goals[index]
        if found is True:
            name = self.names[index]
            goals = [goal for spec, goal in self._universals if self.matches(spec, name)]
            found = None if None in goals else self.goals.goal(*(goal for goal in goals if goal is not None))
            self._name_goals[index] = found
        return None if found is False or found is None else found

    def value_goals(self) -> list[Goal | None]:
        """Of all keys, without claims."""
        classes = range(1 << len(self.classes)) if len(self.classes) <= MAX_CLASSES else (0,)
        return [*map(self.name_goal, range(len(self.names))), *map(self.extra_goal, classes)]

    def name_allowed(self, index: int) -> bool:
        goal = self.name_goal(index)
        return goal is not None and self.goals.satisfiable(goal)

    def extra_goal(self, classes: int) -> Goal | None:
        if classes not in self._extra_goals:
            self._extra_goals[classes] = self._find_extra_goal(classes)
        return self._extra_goals[classes]

    def _find_extra_goal(self, classes: int) -> Goal | None:
        goals = [goal for index, goal in self._class_goals if index < 0 or classes >> index & 1]
        return None if None in goals else self.goals.goal(*(goal for goal in goals if goal is not None))

    def extras(self) -> int:
        """The unnamed keys that can have a value, as an expression (names not yet taken out)."""
        if self._allowed_extras is not None:
            return self._allowed_extras
        allowed = self._find_extras()
        # While Goals still looks for what can be satisfied, answers may be too small: they are not kept.
        if not self.goals.deciding:
            self._allowed_extras = allowed
        return allowed

    def _find_extras(self) -> int:
        algebra, satisfiable = self.goals.algebra, self.goals.satisfiable
        many = len(self.classes) > MAX_CLASSES
        banned = [i for i, goal in self._class_goals if goal is None or (many and not satisfiable(goal))]
        if -1 in banned:
            return algebra.empty
        barred = [] if many else [self.exactly(m) for m, goal in self.mixtures if not satisfiable(goal)]
        return algebra.both(*map(algebra.negate, [*(self.classes[index] for index in banned), *barred]))

    @cached_property
    def mixtures(self) -> list[tuple[int, Goal]]:
        """The classes, as bits, that an unnamed key can be of together, with what its value must satisfy."""
        pairs = [(mask, self.extra_goal(mask)) for mask in range(1 << len(self.classes))]
        return [(mask, goal) for mask, goal in pairs if goal is not None]

    def exactly(self, mask: int) -> int:
        algebra = self.goals.algebra
        return algebra.both(
            *(e if mask >> i & 1 else algebra.negate(e) for i, e in enumerate(self.classes)), algebra.anything
        )

    # Which keys may come next.

    def remaining(self, progress: Progress) -> list[int]:
        """The names that may still come, whatever comes between."""
        if self.goals.any_order:
            candidates = [i for i in range(len(self.names)) if not progress.seen >> i & 1]
        else:
            candidates = list(range(progress.seen, len(self.names)))
        return [index for index in candidates if self.name_allowed(index)]

    def next_names(self, progress: Progress) -> list[int]:
        """The names that may come now: in order, none may be skipped that is required."""
        result = []
        for index in self.remaining(progress):
            result.append(index)
            if not self.goals.any_order and self.names[index] in self.required:
                break
        return result

    def start(self) -> Progress:
        return Progress(pending=(1 << len(self.claims)) - 1)

    def missing(self, progress: Progress) -> list[int]:
        """The required names that have not come."""
        if self.goals.any_order:
            return [index for index in self._needed if not progress.seen >> index & 1]
        return [index for index in self._needed if index >= progress.seen]

    def may_close(self, progress: Progress) -> bool:
        enough = not self.counts or progress.keys >= self.least
        return enough and not progress.pending and not self.missing(progress)

    def can_finish(self, progress: Progress) -> bool:
        """Whether the object can still be closed, now or after more keys."""
        missing = self.missing(progress)
        if not all(map(self.name_allowed, missing)):
            return False
        if not self.counts and not progress.pending:
            return True
        remaining = self.remaining(progress)
        if self.counts:
            if self.most is not None and progress.keys + len(missing) > self.most:
                return False
            if progress.keys + len(remaining) < self.least and not self._others(progress):
                return False
        pending = [claim for claim in range(len(self.claims)) if progress.pending >> claim & 1]
        if not all(self._claimable(claim, remaining, progress) for claim in pending):
            return False
        return self.most is None or claims_fit(self, pending, progress, missing, remaining)

    def _others(self, progress: Progress) -> bool:
        """Whether unnamed keys may come."""
        return self.goals.algebra.live(self._unnamed(progress))

    def _claimable(self, claim: int, remaining: list[int], progress: Progress) -> bool:
        spec, goal = self.claims[claim]
        for index in remaining:
            own = self.name_goal(index)
            if own is not None and self.matches(spec, self.names[index]):
                if self.goals.satisfiable(self.goals.goal(own, goal)):
                    return True
        if len(self.classes) > MAX_CLASSES:
            return self._others(progress)
        cls = self.claim_classes[claim]
        fitting = any(
            (cls < 0 or mask >> cls & 1)
            and self.goals.algebra.live(self.exactly(mask))
            and self.goals.satisfiable(self.goals.goal(own, goal))
            for mask, own in self.mixtures
        )
        return fitting and (not (self.names or progress.used) or self._others(progress))

    def satisfiable(self) -> bool:
        if self._satisfiable is None:
            if self.most is not None and self.most < max(self.least, len(self.required)):
                answer = False
            else:
                answer = self.can_finish(self.start())
            # An answer that leans on an open question is not kept: Goals decides which are final.
            if not answer:
                return False
            self._satisfiable = answer
        return self._satisfiable

    def _unnamed(self, progress: Progress) -> int:
        algebra, scalars = self.goals.algebra, self.goals.scalars
        parts = [self.extras()]
        if parts[0] == algebra.empty:
            return algebra.empty
        if self.names:
            parts.append(algebra.negate(self.names_leaf))
        if progress.used:
            parts.append(algebra.negate(scalars.texts(sorted(progress.used))))
        return algebra.both(*parts)

    def key(self, progress: Progress) -> Position | None:
        """The place before the next key; None where there cannot be one."""
        if progress not in self._keys:
            self._keys[progress] = self._find_key(progress)
        expression = self._keys[progress]
        if not self.goals.algebra.live(expression):
            return None
        watch = KeyWatch(self, self.trie, tuple(self.classes), "" if self._captures(progress) else None)
        return StringText(self.goals.algebra, expression, watch=watch)

    def _find_key(self, progress: Progress) -> int:
        algebra, scalars = self.goals.algebra, self.goals.scalars
        allowed = [i for i in self.next_names(progress) if self._leads_on(progress, i)]
        own = scalars.texts(self.names[index] for index in allowed)
        if not self._leads_on(progress, -1):
            return own
        if self.extras() == algebra.anything:
            # All keys but a few: far fewer derivatives than names on one side and all others on the other.
            barred = set(range(len(self.names))).difference(allowed)
            texts = [*(self.names[index] for index in sorted(barred)), *sorted(progress.used)]
            keys = algebra.negate(scalars.texts(texts)) if texts else algebra.anything
        else:
            keys = algebra.either(own, self._unnamed(progress))
        ends = dead_ends(self, progress)
        return algebra.either(own, algebra.both(keys, *map(algebra.negate, ends))) if ends else keys

    def needed_key(self, progress: Progress) -> Position | None:
        """The place before the next key that must come; None where none must."""
        seen = progress.seen
        for index, name in enumerate(self.names):
            still = not seen >> index & 1 if self.goals.any_order else index >= seen
            if name in self.required and still:
                expression = self.goals.scalars.texts((name,))
                watch = KeyWatch(self, self.trie, tuple(self.classes))
                return StringText(self.goals.algebra, expression, watch=watch)
        return None

    def _captures(self, progress: Progress) -> bool:
        return bool(self.claims) or (self.distinct and progress.keys < self.least)

    def _leads_on(self, progress: Progress, index: int) -> bool:
        """Whether the object can be closed after this name (or, for -1, some unnamed key)."""
        if self.counts and self.most is not None and progress.keys >= self.most:
            return False
        if not self.counts and not progress.pending:
            return True
        if index >= 0 and progress.pending and self.most is not None:
            return bool(self.after_key(progress, self.label(index, 0, "")))
        after = self.advance(progress, index, "")
        return self.can_finish(after._replace(pending=0)) if progress.pending else self.can_finish(after)

    def advance(self, progress: Progress, index: int, text: str, met: int = 0) -> Progress:
        seen = progress.seen
        if index >= 0:
            seen = seen | 1 << index if self.goals.any_order else index + 1
        count, used = progress.keys, progress.used
        if self.counts:
            count = count + 1 if self.most is not None else min(count + 1, self.least)
        if index < 0 and text and (met or (self.distinct and progress.keys < self.least)):
            used |= {text}
        if self.distinct and count >= self.least and not self.claims:
            used = frozenset()
        return Progress(seen, count, progress.pending & ~met, used)

    # Labels of keys.

    def label(self, index: int, classes: int, text: str) -> int:
        key = (index, classes, text)
        if key not in self._label_ids:
            self._label_ids[key] = len(self._labels)
            self._labels.append(key)
        return self._label_ids[key]

    def native_label(self, index: int, classes: int, text: str | None) -> int:
        return self.label(index, 0 if index >= 0 else classes, text or "" if index < 0 else "")

    def after_key(self, progress: Progress, label: int) -> tuple[tuple[Goal, Progress], ...]:
        """What the value may be after this key, and what has been read once it ends."""
        index, classes, text = self._labels[label]
        goal = self.name_goal(index) if index >= 0 else self.extra_goal(classes)
        if goal is None:
            return ()
        if not self.claims:
            after = self.advance(progress, index, text)
            return ((goal, after),) if self.goals.satisfiable(goal) else ()
        applying = [
            claim
            for claim in range(len(self.claims))
            if progress.pending >> claim & 1 and self._claim_applies(claim, index, classes)
        ]
        result = []
        together = len(applying) if len(applying) <= MOST_CLAIMS else 3
        for size in range(together + 1):
            for met in combinations(applying, size):
                both = self.goals.goal(goal, *(self.claims[claim][1] for claim in met))
                after = self.advance(progress, index, text, sum(1 << claim for claim in met))
                if self.goals.satisfiable(both) and (not progress.pending or self.can_finish(after)):
                    result.append((both, after))
        return tuple(result)

    def _claim_applies(self, claim: int, index: int, classes: int) -> bool:
        if index >= 0:
            return self.matches(self.claims[claim][0], self.names[index])
        cls = self.claim_classes[claim]
        return cls < 0 or bool(classes >> cls & 1)


def _names_in(spec: Any) -> list[str]:
    if spec[0] == "name":
        return [spec[1]]
    return sorted(spec[1]) if spec[0] == "rest" else []
