"""Training's own kernels against their slow twins: the formulas in float32 on the same bfloat16 inputs."""

from __future__ import annotations

from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")

from octavo.layers import native_training  # noqa: E402
from octavo.layers.activations import FORMULAS  # noqa: E402
from octavo.layers.attention import naive_attention  # noqa: E402
from octavo.layers.normalization import LayerNorm, RMSNorm  # noqa: E402
from octavo.layers.rope import looked_up_angles, rope_angles, rotate  # noqa: E402
from octavo.model_config import ModelConfig, RopeConfig  # noqa: E402
from octavo.models.gpt import GPT, initialize  # noqa: E402
from octavo.training.precision import ComputeCopy  # noqa: E402

pytestmark = pytest.mark.skipif(
    not native_training.available(), reason="this processor has no bfloat16 products"
)


def bfloat(*shape: int, scale: float = 1.0):
    return (torch.randn(*shape) * scale).bfloat16()


def compare(fast, slow, x, parameters=(), tolerance=1e-2):
    """Values and gradients of fast(x, *parameters) in bfloat16 beside slow(x.float(), *parameters)."""
    torch.manual_seed(5)
    found = []
    cotangent = None
    for function, value in ((fast, x), (slow, x.float())):
        leaves = [each.detach().clone().requires_grad_() for each in (value, *parameters)]
        output = function(*leaves)
        cotangent = torch.randn(output.shape).bfloat16() if cotangent is None else cotangent
        output.backward(cotangent.to(output.dtype))
        found.append([output.detach(), *(leaf.grad for leaf in leaves)])
    for one, other in zip(*found, strict=True):
        difference = (one.float() - other.float()).norm() / other.float().norm()
        assert difference < tolerance, f"{float(difference):.2g} of {tuple(one.shape)}"


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("kind", ["silu", "gelu", "gelu_tanh"])
def test_activations(kind: str, gated: bool) -> None:
    def slow(x):
        gate, up = x.chunk(2, dim=-1) if gated else (x, 1.0)
        return FORMULAS[kind](gate) * up

    x = bfloat(5, 7, 96 if gated else 48, scale=3.0)
    compare(lambda x: native_training.activation(kind, x, gated=gated), slow, x)


@pytest.mark.parametrize("rows", [1, 3, 50])
def test_norms(rows: int) -> None:
    torch.manual_seed(0)
    x, weight, bias = bfloat(rows, 80, scale=2.0) + 0.5, torch.randn(80), torch.randn(80)

    def layer_norm(x, weight, bias):
        norm = LayerNorm(80, 1e-5)
        return torch.func.functional_call(norm, {"weight": weight, "bias": bias}, x)

    def rms_norm(x, weight):
        return torch.func.functional_call(RMSNorm(80, 1e-5), {"weight": weight}, x)

    compare(lambda x, w, b: native_training.norm(x, w, b, 1e-5, centered=True), layer_norm, x, (weight, bias))
    compare(lambda x, w: native_training.norm(x, w, None, 1e-5, centered=False), rms_norm, x, (weight,))


def slow_attention(joined, heads, documents, angles, weights):
    """[B, T, (H + 2G) D] -> [B, T, H D], by the formulas."""
    sizes = [heads.queries, heads.keys, heads.keys]
    parts = joined.unflatten(2, (-1, heads.width)).transpose(1, 2).split(sizes, dim=1)
    query, key, value = parts
    if weights:
        query, key = (
            torch.func.functional_call(RMSNorm(heads.width, heads.epsilon), {"weight": weight}, part)
            for weight, part in zip(weights, (query, key), strict=True)
        )
    if angles:
        query, key = rotate(query, *angles, "half"), rotate(key, *angles, "half")
    tokens = torch.arange(joined.shape[1])
    mask = (tokens[:, None] >= tokens)[None, None]
    if documents is not None:
        mask = mask & (documents[:, None, :, None] == documents[:, None, None, :])
    return naive_attention(query, key, value, mask, scale=heads.scale).transpose(1, 2).flatten(2)


@pytest.mark.parametrize("queries, keys, width", [(2, 2, 32), (4, 2, 64), (3, 1, 96)])
@pytest.mark.parametrize("tokens", [1, 5, 64, 131, 200])
@pytest.mark.parametrize("packed", [False, True])
def test_attention(queries: int, keys: int, width: int, tokens: int, packed: bool) -> None:
    torch.manual_seed(0)
    heads = native_training.Heads(queries, keys, width, width**-0.5)
    documents = torch.arange(tokens).expand(3, -1) // torch.tensor([[7], [40], [100]]) if packed else None
    first = None if documents is None else native_training.first_visible(documents)
    compare(
        lambda joined: native_training.attention(joined, heads, first),
        lambda joined: slow_attention(joined, heads, documents, None, None),
        bfloat(3, tokens, (queries + 2 * keys) * width),
    )


@pytest.mark.parametrize("restart", [False, True])
def test_attention_with_norm_and_rotation(restart: bool) -> None:
    torch.manual_seed(0)
    heads = native_training.Heads(4, 2, 64, 0.125, 1e-6)
    positions = torch.arange(70).repeat(2, 1) % 30 if restart else torch.arange(70)
    rope = RopeConfig(1000.0, 64)
    angles = looked_up_angles(rope, positions)
    for one, other in zip(angles, rope_angles(rope, positions), strict=True):
        assert torch.equal(one, other)
    compare(
        lambda joined, q, k: native_training.attention(joined, heads, None, angles, (q, k)),
        lambda joined, q, k: slow_attention(joined, heads, None, angles, (q, k)),
        bfloat(2, 70, 8 * 64),
        (torch.rand(64) + 0.5, torch.rand(64) + 0.5),
    )


def test_documents_in_disorder_are_left_to_the_slow_path() -> None:
    assert native_training.first_visible(torch.tensor([[0, 0, 1, 0]])) is None
    assert native_training.first_visible(torch.tensor([[0, 0, 2, 2, 3]])).tolist() == [[0, 0, 2, 2, 4]]


def test_any_number_of_threads_gives_the_same_bits() -> None:
    torch.manual_seed(0)
    x, weight = bfloat(2, 100, 8 * 32), torch.rand(256)
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            leaf, scale = x.clone().requires_grad_(), weight.clone().requires_grad_()
            normed = native_training.norm(leaf, scale, None, 1e-5, centered=False)
            native_training.attention(normed, native_training.Heads(4, 2, 32, 0.2)).square().sum().backward()
            found.append((leaf.grad, scale.grad))
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(one, two) for one, two in zip(found[0], other, strict=True))


@pytest.mark.parametrize("vocabulary", [3, 16, 1000])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy(vocabulary: int, smoothing: float) -> None:
    torch.manual_seed(0)
    logits, targets = bfloat(20, vocabulary, scale=3.0), torch.randint(vocabulary, (20,))
    exact = logits.float().requires_grad_()
    slow = torch.nn.functional.cross_entropy(exact, targets, reduction="none", label_smoothing=smoothing)
    (0.5 * slow.sum()).backward()
    before = logits.clone()
    losses = native_training.cross_entropy(logits, targets, 0.5, smoothing, slopes=False)
    assert torch.equal(logits, before)
    assert torch.equal(losses, native_training.cross_entropy(logits, targets, 0.5, smoothing))
    torch.testing.assert_close(losses, slow.detach(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(logits.float(), exact.grad, rtol=5e-3, atol=1e-6)
    with pytest.raises(IndexError, match="outside"):
        native_training.cross_entropy(logits, targets + vocabulary, 1.0)


@pytest.mark.parametrize("rows, outputs, inputs", [(1, 16, 16), (7, 48, 80), (600, 208, 400)])
def test_gradients_of_weights(rows: int, outputs: int, inputs: int) -> None:
    torch.manual_seed(0)
    gradient, x = bfloat(rows, outputs + 16)[:, 16:], bfloat(rows, inputs)
    slow = gradient.float().T @ x.float()
    found = native_training.weight_gradient(gradient, x)
    torch.testing.assert_close(found, slow, rtol=1e-5, atol=1e-4)
    native_training.weight_gradient(gradient, x, found, add=True)
    torch.testing.assert_close(found, 2 * slow, rtol=1e-5, atol=2e-4)


QWEN_3 = ModelConfig(
    architecture="qwen3", vocabulary_size=50, context_length=96, hidden_size=64, layers=2, heads=4,
    key_value_heads=2, head_width=32, feed_forward_size=96, attention_scale=32**-0.5, query_key_norm=True,
    rope=RopeConfig(100.0, 32),
)  # fmt: skip
GPT_2 = replace(
    QWEN_3, architecture="gpt2", key_value_heads=4, norm="layer", gated=False, activation="gelu", rope=None,
    learned_positions=96, query_key_norm=False,
)  # fmt: skip


@pytest.mark.parametrize("config", [QWEN_3, GPT_2], ids=["qwen3", "gpt2"])
def test_a_whole_model_in_bfloat16(config: ModelConfig) -> None:
    """Every gradient points where that of the plain float32 model does."""
    plain = GPT(config)
    initialize(plain, 0)
    with torch.no_grad():
        for parameter in plain.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    fast = GPT(config, fast=True)
    fast.load_state_dict(plain.state_dict())
    computing = ComputeCopy(fast, torch.bfloat16)
    tokens = torch.randint(50, (3, 80))
    documents = torch.arange(80).expand(3, -1) // 30
    positions = torch.arange(80).expand(3, -1) % 30
    for model in (plain, computing.module):
        logits = model(tokens, positions, documents).float()
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens.roll(1, 1).flatten()).backward()
    for (name, one), other in zip(plain.named_parameters(), fast.parameters(), strict=True):
        likeness = torch.nn.functional.cosine_similarity(one.grad.flatten(), other.grad.flatten(), dim=0)
        if one.grad.norm() > 1e-6:  # a key's bias changes nothing
            assert likeness > 0.995, name


@pytest.mark.parametrize(("rows", "outputs", "inputs"), [(1, 16, 16), (77, 208, 400), (600, 48, 32)])
def test_sums_over_rows_come_with_the_gradient_of_a_weight(rows: int, outputs: int, inputs: int) -> None:
    torch.manual_seed(4)
    gradient, x = torch.randn(rows, outputs).bfloat16(), torch.randn(rows, inputs).bfloat16()
    bias = torch.empty(outputs)
    found = native_training.weight_gradient(gradient, x, bias=bias)
    torch.testing.assert_close(found, gradient.float().T @ x.float(), rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(bias, gradient.float().sum(0), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("count", [1, 16, 1000])
def test_lowering_rounds_as_pytorch_does(count: int) -> None:
    values = torch.randn(count)
    out = torch.empty(count, dtype=torch.bfloat16)
    native_training.lower_into(values, out)
    assert torch.equal(out, values.bfloat16())
