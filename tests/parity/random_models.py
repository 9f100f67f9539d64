"""Tiny random models of every architecture in every weight type, for the native core and the reference."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from unittest import mock

import numpy as np
import torch
from numpy.typing import NDArray

from octavo.decoding.plan import LOGIT_MARGIN, build_runner
from octavo.layers.attention import naive_attention
from octavo.model_config import ModelConfig, RopeConfig
from octavo.models.bert import BERT
from octavo.models.gpt import GPT
from octavo.models.loading import BLOCK_MODULE_NAMES, MODULE_NAMES, build_model
from octavo.weights.tensor import Tensor, TensorType

VOCABULARY = 163  # no multiple of a panel's 16 rows; tokens are drawn from the first 160
CONTEXT = 1024
BLOCK_COUNT = 160
OUTLIER = 2.0  # kOutlier in native/ops/rows.h

# --- random weights in every format ---

# Where the float16 scales of a block are, and what they are relative to the first: with mins at these ratios
# to the scale, the values of random codes have a mean near 0.
SCALES: Mapping[TensorType, Sequence[tuple[int, float]]] = {
    TensorType.Q4_0: [(0, 1.0)],
    TensorType.Q4_1: [(0, 1.0), (2, -7.5)],
    TensorType.Q5_0: [(0, 1.0)],
    TensorType.Q5_1: [(0, 1.0), (2, -15.5)],
    TensorType.Q8_0: [(0, 1.0)],
    TensorType.Q2_K: [(80, 1.0), (82, 1.5)],
    TensorType.Q3_K: [(108, 1.0)],
    TensorType.Q4_K: [(0, 1.0), (2, 7.5)],
    TensorType.Q5_K: [(0, 1.0), (2, 15.5)],
    TensorType.Q6_K: [(208, 1.0)],
    TensorType.IQ4_NL: [(0, 1.0)],
    TensorType.IQ4_XS: [(0, 1.0)],
    TensorType.TQ1_0: [(52, 1.0)],
    TensorType.TQ2_0: [(64, 1.0)],
}
FLOATS = (TensorType.F32, TensorType.F16, TensorType.BF16)


def random_tensor(
    name: str, type: TensorType, shape: tuple[int, ...], deviation: float, random: np.random.Generator
) -> Tensor:
    """Random blocks whose values have about the given standard deviation."""
    if type in FLOATS:
        values = (deviation * random.standard_normal(shape)).astype(np.float32)
        return float_tensor(name, values, type)
    blocks = random.integers(0, 256, (int(np.prod(shape)) // type.block_elements, type.block_bytes), np.uint8)
    if type is TensorType.TQ2_0:  # four codes of two bits in a byte, each 0, 1 or 2
        codes = random.integers(0, 3, (len(blocks), 64, 4), np.uint8)
        blocks[:, :64] = (codes << np.array([0, 2, 4, 6], np.uint8)).sum(axis=2, dtype=np.uint8)
    if type is TensorType.MXFP4:  # a power of two for each block: values of deviation 5.6 * 2^(e - 128)
        blocks[:, 0] = 128 + round(np.log2(deviation / 5.6)) + random.integers(-1, 2, len(blocks))
    else:
        spread = random.uniform(0.5, 1.5, len(blocks))
        _write_scales(blocks, type, spread)
        unit = Tensor(name, type, shape, blocks.reshape(-1)).numpy().std()
        _write_scales(blocks, type, spread * (deviation / unit))
    return Tensor(name, type, shape, blocks.reshape(-1))


def _write_scales(blocks: NDArray[np.uint8], type: TensorType, scales: NDArray[np.float64]) -> None:
    for offset, ratio in SCALES[type]:
        blocks[:, offset : offset + 2] = (scales * ratio).astype("<f2").view(np.uint8).reshape(-1, 2)


def float_tensor(name: str, values: NDArray[np.float32], type: TensorType = TensorType.F32) -> Tensor:
    if type is TensorType.BF16:
        raw = (values.view(np.uint32) >> 16).astype(np.uint16)
    else:
        raw = values.astype(np.float16 if type is TensorType.F16 else np.float32)
    return Tensor(name, type, values.shape, np.ascontiguousarray(raw).reshape(-1).view(np.uint8))


def random_tensors(config: ModelConfig, type: TensorType, *, biases: bool = False) -> dict[str, Tensor]:
    """Weights of a whole model under GGUF's names: matrices and embeddings in `type`, the rest in F32."""
    random = np.random.default_rng(11)
    with torch.device("meta"):
        model = BERT(config) if config.is_encoder else GPT(config)
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    if biases:
        shapes |= {
            name.replace("weight", "bias"): shape[:1]
            for name, shape in shapes.items()
            if len(shape) == 2 and name.startswith("blocks")
        }
    tensors = {}
    for parameter, shape in shapes.items():
        name = gguf_name(parameter)
        if len(shape) == 1:
            center = 0.0 if name.endswith("bias") else 1.0 - config.norm_offset
            values = center + 0.3 * random.standard_normal(shape)
            tensors[name] = float_tensor(name, values.astype(np.float32))
        else:
            embedding = name.split(".")[0] in ("token_embd", "position_embd", "token_types")
            deviation = 0.15 if embedding else 1.5 / np.sqrt(shape[1])
            tensors[name] = random_tensor(name, type, shape, deviation, random)
    return tensors


def gguf_name(parameter: str) -> str:
    module, kind = parameter.rsplit(".", 1)
    if module.startswith("blocks."):
        _, layer, module = module.split(".", 2)
        names = {ours: theirs for theirs, ours in BLOCK_MODULE_NAMES.items()}
        return f"blk.{layer}.{names[module]}.{kind}"
    return f"{ {ours: theirs for theirs, ours in MODULE_NAMES.items()}[module] }.{kind}"


def fuse(tensors: Mapping[str, Tensor], layers: int) -> dict[str, Tensor]:
    """Phi 3's and GPT-2's files have q, k and v in one matrix; Phi 3's gate and up, too."""
    fused = dict(tensors)
    for layer in range(layers):
        for whole, parts in (
            ("attn_qkv", ("attn_q", "attn_k", "attn_v")),
            ("ffn_up", ("ffn_gate", "ffn_up")),
        ):
            names = [f"blk.{layer}.{part}.weight" for part in parts]
            if not all(name in fused for name in names):
                continue
            pieces = [fused.pop(name) for name in names]
            shape = (sum(piece.shape[0] for piece in pieces), pieces[0].shape[1])
            name = f"blk.{layer}.{whole}.weight"
            fused[name] = Tensor(
                name, pieces[0].type, shape, np.concatenate([piece.data for piece in pieces])
            )
    return fused


# --- the architectures, at sizes that every format can have ---

LLAMA = ModelConfig(
    architecture="llama",
    vocabulary_size=VOCABULARY,
    context_length=CONTEXT,
    hidden_size=256,
    layers=2,
    heads=4,
    key_value_heads=2,
    head_width=64,
    feed_forward_size=512,
    norm_epsilon=1e-6,
    rope=RopeConfig(10000.0, 64),
    attention_scale=64**-0.5,
    tied_embeddings=False,
)
GEMMA = replace(
    LLAMA,
    norm_offset=1.0,
    norm_position="both",
    activation="gelu_tanh",
    embedding_scale=2.0,
    tied_embeddings=True,
)
DIVISORS = tuple(1 + pair / 4 for pair in range(32))
DECODERS: Mapping[str, ModelConfig] = {
    "llama": LLAMA,
    "llama-gguf": replace(LLAMA, rope=RopeConfig(5e5, 64, style="interleaved", divisors=DIVISORS)),
    "mistral": replace(LLAMA, windows=(48, 48), key_value_heads=1),
    "qwen2": replace(LLAMA, architecture="qwen2"),
    "qwen3": replace(LLAMA, architecture="qwen3", query_key_norm=True, head_width=128, heads=2),
    "gemma2": replace(
        GEMMA,
        architecture="gemma2",
        vocabulary_size=160,
        windows=(48, 0),
        attention_softcap=2.0,
        logit_softcap=5.0,
    ),
    "gemma3": replace(
        GEMMA,
        architecture="gemma3",
        layers=3,
        norm_offset=0.0,  # as GGUF has it
        query_key_norm=True,
        key_value_heads=1,
        windows=(48, 0, 48),
        rope=RopeConfig(1e6, 64),
        window_rope=RopeConfig(10000.0, 64),
    ),
    "phi3": replace(
        LLAMA, architecture="phi3", rope=RopeConfig(10000.0, 32, divisors=DIVISORS[:16], attention_factor=1.2)
    ),
    # Whole panels of logits: an 8-bit head is read in two passes.
    "two-pass": replace(LLAMA, vocabulary_size=1024),
    "gpt2": replace(
        LLAMA,
        architecture="gpt2",
        key_value_heads=4,
        norm="layer",
        activation="gelu_tanh",
        gated=False,
        rope=None,
        learned_positions=CONTEXT,
        tied_embeddings=True,
    ),
}
ENCODER = replace(
    DECODERS["gpt2"],
    architecture="bert",
    norm_epsilon=1e-12,
    norm_position="post",
    activation="gelu",
    token_types=2,
    causal=False,
    embedding_norm=True,
    pooling="mean",
    context_length=256,
    learned_positions=256,
)


@dataclass(frozen=True)
class Model:
    """A config with weights, as the native core and as the reference see them."""

    config: ModelConfig
    tensors: Mapping[str, Tensor]

    def runner(
        self,
        *,
        threads: int = 1,
        kv_type: str = "f16",
        isa: str | None = None,
        logit_margin: float = LOGIT_MARGIN,
    ) -> Any:
        return build_runner(self.config, self.tensors, threads, BLOCK_COUNT, kv_type, isa, logit_margin)

    @functools.cached_property
    def reference(self) -> GPT | BERT:
        return build_model(self.config, {name: tensor.numpy() for name, tensor in self.tensors.items()})

    @torch.inference_mode()
    def expected(self, ids: NDArray[np.int32]) -> NDArray[np.float32]:
        result: NDArray[np.float32] = self.reference(torch.from_numpy(ids).long()[None])[0].numpy()
        return result

    def rounded(
        self, ids: NDArray[np.int32], *, int8_inputs: bool, kv_type: str = "f16"
    ) -> NDArray[np.float32]:
        """The reference with the roundings that the native step declares, and no other.

        The cache keeps keys and values as float16, or rotated as int8 with a scale for each head and token;
        the inputs of quantized matmuls are rounded by `round_inputs`.
        """

        def round_cache(x: torch.Tensor) -> torch.Tensor:
            if kv_type == "f16":
                return x.half().float()
            width = x.shape[-1]
            length = width & -width  # the largest power of two that divides it
            rotation = torch.from_numpy(hadamard(length)).float() / length**0.5
            rotated = (x.unflatten(-1, (-1, length)) @ rotation).flatten(-2)
            rounded = round_int8(rotated, width).unflatten(-1, (-1, length))
            return (rounded @ rotation).flatten(-2)

        def attend(query: Any, key: Any, value: Any, mask: Any, **options: float) -> torch.Tensor:
            return naive_attention(query, round_cache(key), round_cache(value), mask, **options)

        hooks = []
        if int8_inputs:
            for module in self.reference.modules():
                if isinstance(module, torch.nn.Linear):
                    hooks.append(
                        module.register_forward_pre_hook(lambda _, inputs: (round_inputs(inputs[0]),))
                    )
            if isinstance(self.reference, GPT):  # the head multiplies what this norm gives
                norm = self.reference.output_norm
                hooks.append(norm.register_forward_hook(lambda _, inputs, output: round_inputs(output)))
        try:
            with mock.patch("octavo.layers.attention.naive_attention", attend):
                return self.expected(ids)
        finally:
            for hook in hooks:
                hook.remove()


def hadamard(size: int) -> NDArray[np.float64]:
    """Sylvester's: [[H, H], [H, -H]] of half the size."""
    if size == 1:
        return np.ones((1, 1))
    half = hadamard(size // 2)
    return np.block([[half, half], [half, -half]])


def round_int8(x: torch.Tensor, group: int) -> torch.Tensor:
    """Each group of the last dimension to the 255 multiples of its largest magnitude / 127."""
    groups = x.unflatten(-1, (-1, group))
    scale = groups.abs().amax(dim=-1, keepdim=True).clamp(min=1e-30) / 127
    return ((groups / scale).round() * scale).flatten(-2)


def round_inputs(x: torch.Tensor) -> torch.Tensor:
    """A matmul's input as native/ops/rows.h quantizes it: in large groups, what rounding leaves is kept too.

    Large: the square of its largest magnitude is above OUTLIER times the mean of those of the row's groups.
    """
    once = round_int8(x, 32)
    largest = x.unflatten(-1, (-1, 32)).abs().amax(dim=-1, keepdim=True)
    is_large = largest.square() > OUTLIER * largest.square().mean(dim=-2, keepdim=True)
    rest = round_int8(x - once, 32).unflatten(-1, (-1, 32))
    return once + (rest * is_large).flatten(-2)


@functools.cache
def model(name: str, type: TensorType, *, biases: bool = False) -> Model:
    config = ENCODER if name == "bert" else DECODERS[name]
    tensors = random_tensors(config, type, biases=biases)
    return Model(config, fuse(tensors, config.layers) if name == "phi3" else tensors)


def random_ids(count: int, seed: int = 0) -> NDArray[np.int32]:
    return np.random.default_rng(seed).integers(0, 160, count, np.int32)


class Sequences:
    """Sequences on a runner: their blocks in the pool (scattered), how far each has come, and its logits."""

    def __init__(self, runner: Any, ids: Sequence[NDArray[np.int32]], seed: int = 0) -> None:
        self.runner, self.ids = runner, ids
        pool = np.random.default_rng(seed).permutation(runner.block_count).astype(np.int32)
        needed = max(-(-len(each) // runner.block_size) for each in ids)
        self.tables = pool[: needed * len(ids)].reshape(len(ids), needed)
        self.done = [0] * len(ids)
        self.logits = [np.full((len(each), runner.vocabulary_size), np.nan, np.float32) for each in ids]

    def step(self, counts: Sequence[int]) -> None:
        """Runs the next counts[i] tokens of each sequence i in one step."""
        spans = [range(at, at + count) for at, count in zip(self.done, counts, strict=True)]
        tokens = np.concatenate([self.ids[row][span.start : span.stop] for row, span in enumerate(spans)])
        positions = np.concatenate([np.arange(span.start, span.stop, dtype=np.int32) for span in spans])
        rows = np.repeat(np.arange(len(spans), dtype=np.int32), counts)
        logits = np.full((len(tokens), self.runner.vocabulary_size), np.nan, np.float32)
        outputs = np.arange(len(tokens), dtype=np.int32)
        self.runner.step(tokens, positions, rows, self.tables, outputs, logits)
        for row, span in enumerate(spans):
            self.logits[row][span.start : span.stop] = logits[rows == row]
            self.done[row] = span.stop

    def finish(self, chunk: int) -> None:
        """Runs all that is left, `chunk` tokens of one sequence at a time."""
        for row, each in enumerate(self.ids):
            while self.done[row] < len(each):
                counts = [0] * len(self.ids)
                counts[row] = min(chunk, len(each) - self.done[row])
                self.step(counts)


def native_logits(runner: Any, ids: NDArray[np.int32], chunk: int = 256) -> NDArray[np.float32]:
    sequences = Sequences(runner, [ids])
    sequences.finish(chunk)
    return sequences.logits[0]
