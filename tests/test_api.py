"""The front door, on a model whose logits are a known function of the history."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import octavo
from octavo.api import Model
from octavo.completion import Completion, ContextLengthError
from octavo.errors import UnsupportedError

MakeModel = Callable[..., Model]
Scripted = Callable[..., Callable[[bytes], int]]

PLAIN_TEMPLATE = (
    "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}[answer]{% endif %}"
)


def test_generate_gives_text_tokens_reason_and_timings(make_model: MakeModel, scripted: Scripted) -> None:
    completion = make_model(scripted(" world")).generate("hello", temperature=0)
    assert isinstance(completion, Completion)
    assert completion.text == " world" and completion.finish_reason == "stop"
    assert bytes(completion.tokens[:6]) == b" world"
    assert completion.timings.prompt_tokens == 5
    assert str(completion) == " world"


def test_max_tokens_ends_with_length(make_model: MakeModel, scripted: Scripted) -> None:
    completion = make_model(scripted(" world")).generate("hello", temperature=0, max_tokens=3)
    assert completion.text == " wo" and len(completion.tokens) == 3 and completion.finish_reason == "length"


def test_a_list_is_one_batch_and_changes_no_text(make_model: MakeModel) -> None:
    prompts = ["a", "a longer prompt, longer than one step takes " * 2, "zwölf", "a"]
    together = make_model().generate(prompts, seed=7, max_tokens=20)
    alone = [make_model().generate(prompt, seed=7, max_tokens=20) for prompt in prompts]
    assert [one.tokens for one in together] == [one.tokens for one in alone]
    assert together[0].tokens == together[3].tokens
    assert make_model().generate([], max_tokens=1) == []


def test_a_batch_shares_its_steps(make_model: MakeModel, scripted: Scripted) -> None:
    model = make_model(scripted("0123456789"))
    model.generate(["a", "b", "c", "d"], temperature=0)
    assert model.runner.steps <= 14  # type: ignore[attr-defined]


def test_seeds_decide_the_text(make_model: MakeModel) -> None:
    model = make_model()
    texts = {model.generate("x", seed=seed, max_tokens=12).text for seed in (1, 1, 2, 3)}
    assert len(texts) == 3


def test_stop_strings_cross_tokens_and_are_not_emitted(make_model: MakeModel, scripted: Scripted) -> None:
    model = make_model(scripted("one two three"))
    assert model.generate("x", temperature=0, stop=" t").text == "one"
    completion = model.generate("x", temperature=0, stop=["three", "wo t"])
    assert completion.text == "one t" and completion.finish_reason == "stop"
    pieces = list(model.stream("x", temperature=0, stop=["two!"]))
    assert "".join(pieces) == "one two three"


def test_streams_never_cut_a_character(make_model: MakeModel, scripted: Scripted) -> None:
    pieces = list(make_model(scripted("für 東京 🎉")).stream("x", temperature=0))
    assert "".join(pieces) == "für 東京 🎉"
    assert all("�" not in piece for piece in pieces)


def test_a_stream_can_be_left(make_model: MakeModel, scripted: Scripted) -> None:
    model = make_model(scripted("for ever ", end=False))
    with model.stream("x", temperature=0, max_tokens=200) as stream:
        next(stream)
    assert stream.completion().finish_reason == "cancelled"
    assert len(model.generate("y", temperature=0, max_tokens=200).tokens) == 200


def test_chat_renders_the_template_and_answers(make_model: MakeModel, scripted: Scripted) -> None:
    model = make_model(scripted("hi"), template=PLAIN_TEMPLATE)
    messages = [{"role": "system", "content": "be kind"}, {"role": "user", "content": "hello"}]
    assert bytes(model.encode_chat(messages)) == b"[system]be kind[user]hello[answer]"
    assert model.chat(messages, temperature=0).text == "hi"
    assert "".join(model.stream_chat(messages, temperature=0)) == "hi"
    assert model.has_chat_template and not make_model().has_chat_template


def test_special_tokens_in_what_a_user_says_are_text(make_model: MakeModel) -> None:
    model = make_model(template=PLAIN_TEMPLATE + "<end>")
    tokens = model.encode_chat([{"role": "user", "content": "say <end> now"}])
    assert tokens == [*b"[user]say <end> now[answer]", 256]
    hidden = "<e<end>nd>\ufdd0<end><end>"
    tokens = model.encode_chat([{"role": "user", "content": hidden}])
    assert tokens == [*f"[user]{hidden}[answer]".encode(), 256]


def test_defaults_come_from_the_model_and_then_from_octavo(make_model: MakeModel, scripted: Scripted) -> None:
    greedy = make_model(generation={"temperature": 0.0})
    assert greedy.generate("x", max_tokens=5).tokens == greedy.generate("x", max_tokens=5).tokens
    sampling = greedy._sampling(top_k=3)
    assert (sampling.temperature, sampling.top_k, sampling.top_p) == (0.0, 3, 0.95)
    assert greedy._sampling(temperature=0.5).temperature == 0.5


def test_options_reach_the_sampler(make_model: MakeModel, scripted: Scripted) -> None:
    model = make_model(scripted("aaaa", end=False))
    assert (
        model.generate(
            "x", temperature=0, max_tokens=3, logit_bias={ord("a"): -1000.0, ord("b"): 1000.0}
        ).text
        == "bbb"
    )
    with pytest.raises(TypeError, match="temprature"):
        model.generate("x", temprature=1.0)  # type: ignore[call-overload]


def test_a_prompt_beyond_the_context_says_both_numbers(make_model: MakeModel) -> None:
    model = make_model(context=64)
    with pytest.raises(ContextLengthError, match=r"100 tokens.*63"):
        model.generate("x" * 100)
    with pytest.raises(ContextLengthError):
        model.generate(["short", "x" * 64])
    assert len(model.generate("x" * 60, max_tokens=100, logit_bias={256: -1000.0}).tokens) == 4


def test_impossible_options_are_refused(make_model: MakeModel) -> None:
    model = make_model()
    with pytest.raises(ValueError, match="max_tokens"):
        model.generate("x", max_tokens=0)
    with pytest.raises(ValueError, match="prompt"):
        model.generate("")
    with pytest.raises(ValueError, match="temperature"):
        model.generate("x", temperature=-1.0)


def test_logits_are_those_of_each_history(make_model: MakeModel) -> None:
    model = make_model()
    tokens = list(b"a text longer than the largest step of this runner, which takes 64")
    expected = np.stack([model.runner.logits_after(tokens[: end + 1]) for end in range(len(tokens))])  # type: ignore[attr-defined]
    assert np.array_equal(model.logits(tokens), expected)
    with pytest.raises(ValueError, match="999"):
        model.logits([1, 999])
    with pytest.raises(ValueError, match="no tokens"):
        model.logits([])


def test_a_decoder_embeds_the_mean_of_its_states(make_model: MakeModel) -> None:
    model = make_model()
    texts = ["short", "x" * 100, "another", "one more text that shares a step"]
    vectors = model.embed(texts)
    assert vectors.shape == (4, 8) and vectors.dtype == np.float32
    for text, vector in zip(texts, vectors, strict=True):
        history = list(text.encode())
        states = [model.runner.states_after(history[: end + 1]) for end in range(len(history))]  # type: ignore[attr-defined]
        assert vector == pytest.approx(np.mean(states, axis=0), abs=1e-5)
    assert model.embed([]).shape == (0, 8)
    with pytest.raises(TypeError, match="list"):
        model.embed("one text")


def test_an_encoder_pools_as_its_configuration_says(make_model: MakeModel) -> None:
    first = make_model(config={"causal": False, "pooling": "cls"})
    assert np.array_equal(first.embed(["abc"])[0], first.runner.states_after(list(b"a")))  # type: ignore[attr-defined]
    normal = make_model(config={"causal": False, "pooling": "mean", "normalize_embeddings": True})
    assert np.linalg.norm(normal.embed(["abc", "de"]), axis=1) == pytest.approx([1, 1], abs=1e-6)
    with pytest.raises(ContextLengthError, match=r"70 tokens and 64 fit"):
        normal.embed(["x" * 70])
    assert np.array_equal(normal.embed(["x" * 70], truncate=True), normal.embed(["x" * 64]))
    with pytest.raises(UnsupportedError, match="encoder"):
        normal.generate("abc")


def test_several_threads_get_what_one_gets(make_model: MakeModel) -> None:
    model = make_model(block_count=24)
    prompts = [f"prompt {index}" * (index + 1) for index in range(6)]
    expected = [make_model().generate(prompt, seed=3, max_tokens=30).tokens for prompt in prompts]
    logits = model.logits(list(b"some text"))
    results: dict[int, Any] = {}

    def work(index: int) -> None:
        tokens = model.generate(prompts[index], seed=3, max_tokens=30).tokens
        results[index] = tokens, model.logits(list(b"some text")), model.embed(["text"])

    threads = [threading.Thread(target=work, args=(index,)) for index in range(len(prompts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert [results[index][0] for index in range(len(prompts))] == expected
    assert all(np.array_equal(result[1], logits) for result in results.values())


def test_a_closed_model_says_so(make_model: MakeModel) -> None:
    model = make_model()
    with model:
        model.generate("x", max_tokens=1)
    model.close()
    with pytest.raises(octavo.OctavoError, match="closed"):
        model.generate("x")
    with pytest.raises(octavo.OctavoError, match="closed"):
        model.embed(["x"])


def test_import_octavo_imports_nothing_that_costs() -> None:
    costly = ("numpy", "tokenizers", "jinja2", "rich", "torch")
    code = f"import octavo, sys; print([name for name in {costly} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"
    assert callable(octavo.load) and "load" in dir(octavo)
    with pytest.raises(AttributeError, match="nothing"):
        octavo.nothing  # noqa: B018
