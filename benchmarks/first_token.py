"""The peer's side of startup.py: `python -m benchmarks.first_token MODEL PROMPT THREADS` prints one token."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from benchmarks.peers import Xllamacpp


def main() -> None:
    model, prompt, threads = sys.argv[1:]
    # The library prints to file descriptor 1; only the token may count.
    output = os.dup(1)
    os.dup2(2, 1)
    engine = Xllamacpp(Path(model), threads=int(threads), warm_up=False)
    os.write(output, (engine.first_token(prompt) or "\n").encode())
    # Its threads may never end by themselves.
    os._exit(0)


if __name__ == "__main__":
    main()
