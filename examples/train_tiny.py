"""Train a small GPT on Python's own source and let it write.    python examples/train_tiny.py [MINUTES]"""

import sys
import tempfile

import octavo
from octavo.training import TrainingConfig, train

MINUTES = float(sys.argv[1]) if len(sys.argv) > 1 else 0.5

with tempfile.TemporaryDirectory() as folder:
    result = train(TrainingConfig(out=folder, minutes=MINUTES, size="nano"))
    assert result.validation is not None
    print(f"{result.tokens:,} tokens, {result.validation.bits_per_byte:.2f} bits a byte\n")

    with octavo.load(folder) as model:
        print(model.generate("import os\n\ndef ", max_tokens=80, temperature=0.7, seed=1).text)
