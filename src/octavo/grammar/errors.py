"""What can go wrong with a grammar, said so that a person can mend it."""

from __future__ import annotations

from octavo.errors import OctavoError


class GrammarError(OctavoError, ValueError):
    """Base of every error about a grammar."""


class GrammarSyntaxError(GrammarError):
    """The text of a regex, GBNF or Lark grammar is not well formed.  Says where."""


class GrammarUnsupportedError(GrammarError):
    """A construct that cannot be enforced exactly.  Names it and, in a schema, its JSON pointer."""


class GrammarTooComplexError(GrammarError):
    """A limit on size, depth, states or work was reached; the request ends, the process does not."""


class GrammarEmptyError(GrammarError):
    """No text at all satisfies the grammar."""


class GrammarStateError(GrammarError):
    """A matcher was asked for something its state does not allow, such as rolling back too far."""
