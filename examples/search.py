"""Search by meaning.    python examples/search.py [MODEL]

Any model embeds, but one that was trained for it is far better: hf:sentence-transformers/all-MiniLM-L6-v2.
"""

import sys

import numpy as np

import octavo

NOTES = [
    "The bicycle needs a new chain before the tour.",
    "Grandmother's soup: leek, potatoes, a little cream.",
    "The server ran out of disk space at night.",
    "Tickets for the concert are in the drawer.",
]
QUESTIONS = ["What shall I cook?", "Why did the computer stop?"]

with octavo.load(*sys.argv[1:2]) as model:
    vectors = model.embed(NOTES + QUESTIONS)
vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
notes, questions = vectors[: len(NOTES)], vectors[len(NOTES) :]
for question, similarities in zip(QUESTIONS, questions @ notes.T, strict=True):
    best = int(similarities.argmax())
    print(f"{question}\n  {similarities[best]:.3f}  {NOTES[best]}")
