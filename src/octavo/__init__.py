"""octavo: a language model's whole life on the machine you have.

    import octavo

    with octavo.load("smollm2-135m") as model:
        print(model.generate("The capital of France is", max_tokens=8).text)

Names are imported when they are first used, so that `import octavo` costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from octavo.api import Model, load
    from octavo.completion import Completion, ContextLengthError, GenerationOptions, Piece, Stream
    from octavo.errors import OctavoError

__all__ = [
    "Completion",
    "ContextLengthError",
    "GenerationOptions",
    "Model",
    "OctavoError",
    "Piece",
    "Stream",
    "load",
]

_HOMES = {
    "Completion": "octavo.completion",
    "ContextLengthError": "octavo.completion",
    "GenerationOptions": "octavo.completion",
    "Model": "octavo.api",
    "OctavoError": "octavo.errors",
    "Piece": "octavo.completion",
    "Stream": "octavo.completion",
    "load": "octavo.api",
}


if not TYPE_CHECKING:  # type checkers know the names from above, and must not think that every name is here

    def __getattr__(name: str) -> object:
        """Import a public name on first use (PEP 562)."""
        if name not in _HOMES:
            raise AttributeError(f"module 'octavo' has no attribute {name!r}")
        value = getattr(import_module(_HOMES[name]), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
