"""Measures of a model: how well it predicts a text, and how near it is to another."""
