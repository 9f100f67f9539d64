"""The errors that octavo raises for people: each says what was wrong, where, and what to do."""

from __future__ import annotations


class OctavoError(Exception):
    """Base of every error that octavo raises on purpose."""


class FormatError(OctavoError, ValueError):
    """A file is not what it claims to be: truncated, inconsistent or hostile.  Names the field."""


class UnsupportedError(OctavoError, ValueError):
    """An architecture, tensor type or option that octavo does not have.  Lists what is supported."""


class ModelNotFoundError(OctavoError, LookupError):
    """No model of that name or path.  Lists what can be had."""


class DownloadError(OctavoError, OSError):
    """A model could not be brought here.  Says from where, why, and what to try."""


class TemplateError(OctavoError, ValueError):
    """A chat template failed, tried something forbidden, or ran over its limits."""


class OutOfMemoryError(OctavoError, MemoryError):
    """The work would not fit in memory; nothing was allocated.  Says how much is needed and is there."""


class CancelledError(OctavoError):
    """The work was cancelled by its owner."""
