"""What a model expects next, and how sure it is.    python examples/next_token.py [MODEL [TEXT]]"""

import sys

import numpy as np

import octavo

TEXT = sys.argv[2] if len(sys.argv) > 2 else "The largest planet of the solar system is"

with octavo.load(*sys.argv[1:2]) as model:
    tokens = model.tokenizer.encode(TEXT)
    logits = model.logits(tokens).astype(np.float64)  # [T, V]: row t tells of token t + 1
    probabilities = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities /= probabilities.sum(axis=1, keepdims=True)

    print(f"{'token':>16}  how likely it was after those before it")
    for position, token in enumerate(tokens[1:]):
        print(f"{model.tokenizer.decode([token])!r:>16}  {probabilities[position, token]:7.2%}")
    print(f"\nafter {TEXT!r}:")
    for token in np.argsort(-probabilities[-1])[:8]:
        print(f"{model.tokenizer.decode([int(token)])!r:>16}  {probabilities[-1, token]:7.2%}")
