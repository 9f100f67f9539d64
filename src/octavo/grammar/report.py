"""What a compiled grammar enforces, and what it does not."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property


@dataclass
class Findings:
    enforced: list[str] = field(default_factory=list)
    approximated: dict[str, str] = field(default_factory=dict)
    ignored: dict[str, str] = field(default_factory=dict)


class Report:
    """JSON pointers of keywords (of other grammars, names of constructs), with the reason if there is one.

    `find` is asked when the report is first read, which most never are.
    """

    def __init__(self, enforced: Iterable[str] = (), find: Callable[[], Findings] | None = None) -> None:
        self._find = find or (lambda: Findings(list(enforced)))

    @cached_property
    def _found(self) -> Findings:
        return self._find()

    @property
    def enforced(self) -> list[str]:
        return self._found.enforced

    @property
    def approximated(self) -> dict[str, str]:
        return self._found.approximated

    @property
    def ignored(self) -> dict[str, str]:
        return self._found.ignored

    @property
    def exact(self) -> bool:
        return not self.approximated
