"""JSON Schemas as grammars.

More than a dozen files: one for each type of value, and one for each step from a schema to cases of them.
"""
