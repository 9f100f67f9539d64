"""Runs that are worth repeating: each a function that returns a frozen configuration."""
