"""octavo run: where the prompt comes from, what is printed, what goes wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from octavo import api
from octavo.cli.run import command
from octavo.errors import ModelNotFoundError
from octavo.weights.hub import DEFAULT_MODEL

Invoke = Callable[..., Any]
UseModel = Callable[..., dict[str, Any]]
Scripted = Callable[..., Callable[[bytes], int]]

ECHO_TEMPLATE = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}[answer]"


def seen_by(prompts: list[bytes], answer: bytes = b"ok") -> Callable[[bytes], int]:
    """A script that keeps every history it is asked about and says `answer`."""

    def next_token(history: bytes) -> int:
        prompts.append(history)
        said = next((length for length in range(len(answer), 0, -1) if history.endswith(answer[:length])), 0)
        return answer[said] if said < len(answer) else 256

    return next_token


def test_one_word_is_the_prompt_of_the_default_model(
    invoke: Invoke, use_model: UseModel, scripted: Scripted
) -> None:
    called = use_model(scripted(" world"))
    result = invoke(command, "hello", "--temperature", "0")
    assert result.exit_code == 0
    assert result.stdout == " world\n"
    assert called["model"] == DEFAULT_MODEL


def test_the_closing_line_has_tokens_speed_and_share(
    invoke: Invoke, use_model: UseModel, scripted: Scripted
) -> None:
    use_model(scripted(" world"))
    result = invoke(command, "model", "hello", "--temperature", "0")
    assert (
        " tokens, " in result.stderr
        and "tokens/s" in result.stderr
        and "% of the memory-bandwidth" in result.stderr
    )
    assert invoke(command, "model", "hello", "--quiet").stderr == ""


def test_two_words_are_model_and_prompt(invoke: Invoke, use_model: UseModel, scripted: Scripted) -> None:
    called = use_model(scripted("x"))
    options = ("--context", "100", "--threads", "1", "--kv-type", "int8", "--offline")
    assert invoke(command, "some-model", "hello", *options).exit_code == 0
    wanted = {"model": "some-model", "context": 100, "threads": 1, "kv_type": "int8", "offline": True}
    assert wanted.items() <= called.items()


def test_more_words_need_quotes(invoke: Invoke) -> None:
    result = invoke(command, "why", "is", "it")
    assert result.exit_code == 2 and "quotes" in result.stderr


def test_prompts_from_files_pipe_and_argument_are_joined(
    invoke: Invoke, use_model: UseModel, tmp_path: Path
) -> None:
    prompts: list[bytes] = []
    use_model(seen_by(prompts))
    file = tmp_path / "part.txt"
    file.write_text("from a file\n")
    result = invoke(command, "-f", str(file), "instruction", "--temperature", "0", input="from a pipe\n")
    assert result.stdout == "ok\n"
    assert prompts[0] == b"from a file\n\nfrom a pipe\n\ninstruction"


def test_a_model_alone_takes_its_prompt_from_the_pipe(
    invoke: Invoke, use_model: UseModel, tmp_path: Path
) -> None:
    prompts: list[bytes] = []
    called = use_model(seen_by(prompts))
    model = tmp_path / "model.gguf"
    model.write_bytes(b"")
    assert invoke(command, str(model), "--temperature", "0", input="piped\n").exit_code == 0
    assert called["model"] == str(model) and prompts[0] == b"piped\n"
    assert invoke(command, "hf:owner/name", "-f", "-", input="dash").exit_code == 0
    assert called["model"] == "hf:owner/name"


def test_no_prompt_is_a_usage_error(invoke: Invoke) -> None:
    for words in ((), (DEFAULT_MODEL,), ("",), ("  ",)):
        result = invoke(command, *words)
        assert result.exit_code == 2 and "prompt" in result.stderr
    missing = invoke(command, "-f", "no/such/file")
    assert missing.exit_code == 2 and "no/such/file" in missing.stderr


def test_a_chat_template_is_applied_unless_raw(invoke: Invoke, use_model: UseModel) -> None:
    prompts: list[bytes] = []
    use_model(seen_by(prompts), template=ECHO_TEMPLATE)
    invoke(command, "hello", "--system", "be kind", "--temperature", "0")
    assert prompts[0] == b"[system]be kind[user]hello[answer]"
    prompts.clear()
    invoke(command, "hello", "--raw", "--temperature", "0")
    assert prompts[0] == b"hello"
    assert invoke(command, "hello", "--raw", "--system", "x").exit_code == 2


def test_json_is_one_object_with_the_promised_fields(
    invoke: Invoke, use_model: UseModel, scripted: Scripted
) -> None:
    use_model(scripted(" wörld"))
    result = invoke(command, "m", "hello", "--json", "--temperature", "0")
    answer = json.loads(result.stdout)
    assert list(answer) == [
        "text",
        "tokens",
        "finish_reason",
        "prompt_tokens",
        "completion_tokens",
        "time_to_first_token_s",
        "tokens_per_second",
        "drafted",
        "accepted",
        "accepted_by_depth",
        "speedup_estimate",
    ]
    assert answer["text"] == " wörld" and answer["finish_reason"] == "stop" and answer["prompt_tokens"] == 5
    assert answer["completion_tokens"] == len(answer["tokens"])
    assert answer["time_to_first_token_s"] > 0 and answer["tokens_per_second"] > 0
    assert result.stderr == ""


def test_every_sampling_option_reaches_the_engine(
    invoke: Invoke, use_model: UseModel, monkeypatch: pytest.MonkeyPatch, scripted: Scripted
) -> None:
    use_model(scripted("abcdef"))
    given: dict[str, Any] = {}
    original = api.Model.stream

    def stream(model: api.Model, prompt: str, **options: Any) -> Any:
        given.update(options)
        return original(model, prompt, **options)

    monkeypatch.setattr(api.Model, "stream", stream)
    words = (
        "--temperature 0 --top-k 5 --top-p 0.9 --min-p 0.1 --repetition-penalty 1.1 --presence-penalty 0.2"
    )
    words += " --frequency-penalty 0.3 --logit-bias 65=-2.5 --logit-bias 66=-inf --seed 4 --stop e --stop zz"
    result = invoke(command, "m", "hello", *words.split(), "--max-tokens", "20")
    assert result.exit_code == 0 and result.stdout == "abcd\n"
    assert given == {
        "temperature": 0,
        "top_k": 5,
        "top_p": 0.9,
        "min_p": 0.1,
        "repetition_penalty": 1.1,
        "presence_penalty": 0.2,
        "frequency_penalty": 0.3,
        "logit_bias": {65: -2.5, 66: float("-inf")},
        "seed": 4,
        "stop": ["e", "zz"],
        "max_tokens": 20,
    }


@pytest.mark.parametrize(
    "words",
    ["--temperature -1", "--top-p 0", "--max-tokens 0", "--logit-bias 5", "--kv-type f64", "--threads 0"],
)
def test_impossible_options_name_themselves(invoke: Invoke, words: str) -> None:
    result = invoke(command, "m", "hello", *words.split())
    assert result.exit_code == 2 and words.split()[0] in result.stderr


@pytest.mark.parametrize("bias", ["5=inf", "999999=1", "5=nan"])
def test_a_bias_that_cannot_be_honoured_is_one_line(
    invoke: Invoke, use_model: UseModel, scripted: Scripted, bias: str
) -> None:
    use_model(scripted("x"))
    result = invoke(command, "m", "hello", "--logit-bias", bias)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("error: logit_bias") and result.stderr.count("\n") == 1


def test_errors_are_one_line_and_exit_code_1(
    invoke: Invoke, use_model: UseModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_model(context=64)
    result = invoke(command, "m", "x" * 100)
    assert result.exit_code == 1 and result.stdout == ""
    assert (
        result.stderr.startswith("error: ")
        and result.stderr.count("\n") == 1
        and "100 tokens" in result.stderr
    )

    def missing(model: str, **_: Any) -> api.Model:
        raise ModelNotFoundError(f"no model {model}")

    monkeypatch.setattr(api, "load", missing)
    result = invoke(command, "nowhere", "x")
    assert (result.exit_code, result.stderr) == (1, "error: no model nowhere\n")
