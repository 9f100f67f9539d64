"""Speculative decoding: draft tokens cheaply, verify them in one step of the model (docs/speculation.md).

More than a dozen files: one for each source of drafts, and one for each part of the reckoning.
"""
