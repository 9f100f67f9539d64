"""The command line: one file for each verb, whose `command` is a click command; main.py finds them.

More than a dozen files: a verb has a file of its own, however small.
"""
