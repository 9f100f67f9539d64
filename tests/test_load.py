"""octavo.load on files: a tiny seeded model through every real part, and real models where they are there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny_models import HIDDEN, random_tensor, tiny_metadata, tiny_tensors

import octavo
from octavo.errors import ModelNotFoundError, OutOfMemoryError
from octavo.weights.gguf_writer import write_gguf
from octavo.weights.tensor import TensorType

CONTEXT = 1024
SPECIAL = ["<s>", "</s>", "<|im_start|>", "<|im_end|>"]
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def byte_letters() -> list[str]:
    """GPT-2's printable stand-ins for the 256 bytes."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return [chr(byte if byte in plain else next(others)) for byte in range(256)]


def write_model(path: Path, architecture: str = "llama") -> Path:
    tokens = SPECIAL + byte_letters()
    kinds = np.ones(len(tokens), np.int32)
    kinds[: len(SPECIAL)] = 3
    metadata = tiny_metadata(architecture) | {
        f"{architecture}.vocab_size": len(tokens),
        f"{architecture}.context_length": CONTEXT,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.merges": ["a b"],
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.chat_template": TEMPLATE,
    }
    embedding = random_tensor("token_embd.weight", (len(tokens), HIDDEN), TensorType.F16)
    tensors = tiny_tensors(architecture) | {"token_embd.weight": embedding}
    write_gguf(path, metadata, list(tensors.values()))
    return path


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "tiny.gguf")


def test_every_part_from_a_file_to_text(model_file: Path) -> None:
    with octavo.load(model_file, threads=2) as model:
        assert (model.context, model.threads, model.name) == (CONTEXT, 2, "tiny.gguf")
        tokens = model.tokenizer.encode("für")
        assert model.tokenizer.decode(tokens) == "für"
        logits = model.logits(tokens)
        assert logits.shape == (len(tokens), len(SPECIAL) + 256) and np.isfinite(logits).all()
        assert model.embed(["one", "another text"]).shape == (2, HIDDEN)
        prompts = ["a", "a prompt that is a good deal longer", "third"]
        together = model.generate(prompts, max_tokens=12, seed=5)
        alone = [model.generate(prompt, max_tokens=12, seed=5) for prompt in prompts]
        assert [one.tokens for one in together] == [one.tokens for one in alone]
        assert model.chat([{"role": "user", "content": "hi"}], max_tokens=3).timings.prompt_tokens > 20


def test_a_prompt_of_several_steps(model_file: Path) -> None:
    with octavo.load(model_file, threads=2) as model:
        prompt = "a long prompt " * 50
        assert len(model.tokenizer.encode(prompt)) > 2 * model.runner.max_step_tokens
        greedy = model.generate(prompt, max_tokens=3, temperature=0)
        assert greedy.tokens[0] == int(model.logits(model.tokenizer.encode(prompt))[-1].argmax())


def test_what_does_not_fit_is_refused_before_it_is_taken(model_file: Path) -> None:
    with pytest.raises(OutOfMemoryError, match="KV cache of 1000000000000 tokens"):
        octavo.load(model_file, cache_tokens=10**12)
    with pytest.raises(octavo.ContextLengthError, match=r"context: 1025.*1024"):
        octavo.load(model_file, context=1025)
    with pytest.raises(ValueError, match="threads"):
        octavo.load(model_file, threads=0)
    with pytest.raises(ModelNotFoundError):
        octavo.load(model_file.with_name("absent.gguf"))


def test_a_whole_generation_imports_no_torch_and_nothing_of_grammars(model_file: Path) -> None:
    code = (
        "import sys, octavo\n"
        "with octavo.load(sys.argv[1]) as model:\n"
        "    model.generate('hello', max_tokens=3)\n"
        "    model.chat([{'role': 'user', 'content': 'hi'}], max_tokens=3)\n"
        "print([name for name in ('torch', 'octavo.grammar') if name in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, str(model_file)], capture_output=True, text=True, check=True
    )
    assert result.stdout == "[]\n"


@pytest.mark.parametrize(
    ("verb", "words"),
    [
        ("run", ["hello", "--json", "--max-tokens", "4"]),
        ("embed", ["one", "two", "--json"]),
        ("perplexity", ["FILE", "--context", "32", "--json"]),
        ("bench", ["--quick", "--json"]),
    ],
)
def test_each_verb_on_a_file(model_file: Path, tmp_path: Path, verb: str, words: list[str]) -> None:
    text = tmp_path / "text.txt"
    text.write_text("some text to predict, " * 5)
    words = [str(text) if word == "FILE" else word for word in words]
    code = f"from octavo.cli.{verb} import command; command.main()"
    result = subprocess.run(
        [sys.executable, "-c", code, str(model_file), *words],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env=os.environ | {"OCTAVO_HOME": str(tmp_path)},
    )
    assert result.returncode == 0, result.stderr
    assert isinstance(json.loads(result.stdout), dict)


EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_examples_run(model_file: Path, example: Path) -> None:
    runs_a_model = "octavo.load(*sys.argv" in example.read_text()
    argument = str(model_file) if runs_a_model else "0.05"  # minutes
    result = subprocess.run(
        [sys.executable, str(example), argument], capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout


MODELS = Path(os.environ.get("OCTAVO_TEST_MODELS", "~/.cache/octavo-models")).expanduser()


@pytest.mark.real
def test_a_real_model_answers() -> None:
    path = MODELS / "SmolLM2-135M-Instruct.Q4_1.gguf"
    if not path.exists():
        pytest.skip(f"{path} is not there")
    with octavo.load(path) as model:
        assert "Paris" in model.generate("The capital of France is", max_tokens=8, temperature=0).text
        question = [{"role": "user", "content": "What is 2 + 2? Answer with one number."}]
        answer = model.chat(question, max_tokens=40, temperature=0)
        assert "4" in answer.text and answer.finish_reason == "stop"


@pytest.mark.real
def test_a_real_encoder_knows_what_is_alike() -> None:
    path = MODELS / "all-MiniLM-L6-v2"
    if not path.exists():
        pytest.skip(f"{path} is not there")
    with octavo.load(path) as model:
        vectors = model.embed(
            ["A cat sits on the mat.", "A kitten rests on a rug.", "Stocks fell on Monday."]
        )
    assert vectors.shape == (3, 384)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx([1, 1, 1], abs=1e-5)
    assert vectors[0] @ vectors[1] > 0.5 > vectors[0] @ vectors[2]
