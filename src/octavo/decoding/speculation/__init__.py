"""Speculative decoding: draft tokens cheaply, verify them in one step of the model (docs/speculation.md)."""
