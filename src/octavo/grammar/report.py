"""What a compiled grammar enforces, and what it does not."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Report:
    """JSON pointers of keywords (for other grammars, names of constructs), with the reason where there is
    one.
    """

    enforced: list[str] = field(default_factory=list)
    approximated: dict[str, str] = field(default_factory=dict)
    ignored: dict[str, str] = field(default_factory=dict)

    @property
    def exact(self) -> bool:
        return not self.approximated
