"""Completions: one, a stream, and a batch.    python examples/complete.py [MODEL]"""

import sys

import octavo

with octavo.load(*sys.argv[1:2]) as model:
    completion = model.generate("The capital of France is", max_tokens=12, temperature=0)
    print(completion.text)
    print(f"({completion.finish_reason}, {completion.tokens_per_second:.0f} tokens/s)\n")

    for piece in model.stream("Once upon a time", max_tokens=40, temperature=0.7, seed=1):
        print(piece, end="", flush=True)
    print("\n")

    # A list is one batch: the weights are read once for all of it.  A sequence's text does not depend on the
    # others, so a seed gives the same text here as alone.
    prompts = ["Red, green and", "One, two, three,", "Monday, Tuesday,"]
    for prompt, answer in zip(prompts, model.generate(prompts, max_tokens=8, temperature=0), strict=True):
        print(f"{prompt}|{answer.text!r}")
