"""str <-> ids: tokenizers and chat templates.

More than a dozen files: a tokenizer (vocabulary, pre-tokenizers, merging, special tokens, streaming) and a
template sandbox (its values, its budget, its meter) are two subjects that house.md keeps in one folder.
"""
