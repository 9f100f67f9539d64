"""A conversation from a program, with a stop string.    python examples/converse.py [MODEL]"""

import sys

import octavo

QUESTIONS = ("Name a planet.", "Is it larger than the Earth?", "List three of its features.")

with octavo.load(*sys.argv[1:2], context=1024) as model:
    messages = [{"role": "system", "content": "You answer in one short sentence."}]
    for question in QUESTIONS:
        messages.append({"role": "user", "content": question})
        print(f"> {question}")
        with model.stream_chat(messages, max_tokens=60, temperature=0.3, seed=0, stop="\n\n") as stream:
            for piece in stream:
                print(piece, end="", flush=True)
        print("\n")
        messages.append({"role": "assistant", "content": stream.completion().text})
