"""The forward step of every architecture as a table, executed natively.

`build_runner` turns a ModelConfig and a checkpoint's tensors into the native core's plan: stages that each
end in a sweep of all threads (matmuls that share an input, or attention) and begin with operations on single
tokens' rows. Read `_block` beside `models/gpt.py`: it is the same block, said to the native core instead of
computed.

Tensor names are GGUF's.  H: hidden size, Q and K: widths of all query and of all key heads, F: feed-forward
size.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Protocol

import numpy as np
import numpy.typing as npt

from octavo import _native
from octavo.errors import FormatError, UnsupportedError
from octavo.model_config import ModelConfig, RopeConfig
from octavo.weights.untrusted import forget_pages, mapped_files

BLOCK_TOKENS = 32
MAX_STEP_TOKENS = 256
# Nats below a position's largest logit from where on 4 of an 8-bit head's bits suffice: docs/native_step.md.
LOGIT_MARGIN = 14.0

Place = tuple[int, int]  # a native buffer and the column where a part of its rows begins


class TensorLike(Protocol):
    """What the plan needs of a checkpoint's tensor: `weights.tensor.Tensor` is one."""

    @property
    def type(self) -> int: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def data(self) -> npt.NDArray[np.uint8]: ...
    def numpy(self) -> npt.NDArray[np.float32]: ...


class NativeRunner:
    """The native model behind `decoding.runner.Runner`: one step at a time, without Python's lock."""

    def __init__(
        self,
        model: _native.Model,
        config: ModelConfig,
        *,
        block_count: int,
        bytes_per_token: int,
        matrices: Mapping[str, int],
    ) -> None:
        self._model = model
        self._matrices = matrices
        self.config = config
        self.vocabulary_size = config.vocabulary_size
        self.hidden_size = config.hidden_size
        self.block_size = BLOCK_TOKENS
        self.block_count = block_count
        self.max_step_tokens = (
            MAX_STEP_TOKENS if config.causal else max(MAX_STEP_TOKENS, config.context_length)
        )
        # What one step reads of the weights: the bound on generation is the bandwidth divided by it.
        self.bytes_per_token = bytes_per_token
        self.weight_bytes: int = model.weight_bytes
        self.cache_bytes: int = model.cache_bytes
        self.threads: int = model.threads
        # The native call, without a Python frame between: arguments as in Runner.step.
        self.step = model.step
        self.cancel = model.cancel
        self.copy_block = model.copy_block

    def set_adapter(
        self, adapter: int, pairs: Mapping[str, tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]]
    ) -> None:
        """Sequences of this adapter get up @ down added to linear layers, by their names (blk.0.attn_q).

        pairs: down [rank, inputs] and up [outputs, rank], the scale in it, rows in the order of the file;
        kept in 8 bits.  Raises UnsupportedError for a layer that is not computed by a matrix of its own.
        """
        self._model.set_adapter(
            adapter,
            [
                (*self._rows_of(name), np.ascontiguousarray(down), np.ascontiguousarray(up))
                for name, (down, up) in pairs.items()
            ],
        )

    def _rows_of(self, name: str) -> tuple[int, int]:
        """The native matrix that computes a linear layer, and the layer's first row in it."""
        first = 0
        matrix = self._matrices.get(f"{name}.weight")
        stem, _, part = name.rpartition(".")
        if matrix is None and part in ("attn_q", "attn_k", "attn_v"):
            matrix = self._matrices.get(f"{stem}.attn_qkv.weight")
            keys = self.config.key_value_heads * self.config.head_width
            queries = self.config.heads * self.config.head_width
            first = {"attn_q": 0, "attn_k": queries, "attn_v": queries + keys}[part]
        if matrix is None:
            raise UnsupportedError(f"{name}: this model has no such matrix: merge the adapter instead")
        return matrix, first

    def remove_adapter(self, adapter: int) -> None:
        """Give its memory back; no sequence may use it any more."""
        self._model.clear_adapter(adapter)

    def hidden(
        self,
        tokens: npt.NDArray[np.int32],
        positions: npt.NDArray[np.int32],
        rows: npt.NDArray[np.int32],
        block_tables: npt.NDArray[np.int32],
        outputs: npt.NDArray[np.int32],
        out: npt.NDArray[np.float32],
    ) -> None:
        """As `step`, but writes the last hidden states of the outputs, float32 [R, H], and no logits."""
        self._model.step(tokens, positions, rows, block_tables, outputs, None, out)


def build_runner(
    config: ModelConfig,
    tensors: Mapping[str, TensorLike],
    threads: int,
    block_count: int,
    kv_type: str = "f16",
    isa: str | None = None,
    logit_margin: float | None = None,
    coarse: bool = False,
) -> NativeRunner:
    """Packs the weights and makes the plan.

    block_count: blocks of 32 tokens in the cache's pool.  kv_type: "f16" or "int8".  isa: None for OCTAVO_ISA
    or the best.  logit_margin: infinity computes every logit with all bits; None chooses.  coarse: weights
    of more than 4.5 bits are rounded to that, but for the output matrix, for a model that only drafts.  The
    tensors' data must stay mapped as long as the runner lives: embedding rows are read from it.
    Raises UnsupportedError for sizes that the kernels lack, FormatError for a missing tensor.
    """
    return _Planner(config, tensors, threads, block_count, kv_type, isa or "", logit_margin, coarse).plan()


class _Planner:
    def __init__(
        self,
        config: ModelConfig,
        tensors: Mapping[str, TensorLike],
        threads: int,
        block_count: int,
        kv_type: str,
        isa: str,
        logit_margin: float | None,
        coarse: bool = False,
    ) -> None:
        for name, value in (
            ("hidden size", config.hidden_size),
            ("head width", config.head_width),
            ("feed-forward size", config.feed_forward_size),
        ):
            if value % 16:
                raise UnsupportedError(
                    f"a {name} of {value} cannot be run: the kernels need a multiple of 16"
                )
        self.config = config
        self.tensors = tensors
        self.block_count = block_count
        self.logit_margin = logit_margin
        self.coarse = coarse
        self.query_width = config.heads * config.head_width
        self.key_width = config.key_value_heads * config.head_width
        max_tokens = MAX_STEP_TOKENS if config.causal else max(MAX_STEP_TOKENS, config.context_length)
        self.model = _native.Model(threads, max_tokens, isa)
        self.bytes_per_token = 0
        self.matrices: dict[str, int] = {}
        self.ropes: dict[RopeConfig, int] = {}
        # An encoder sees a text in one step and needs no earlier keys: its layers share one layer of cache.
        self.model.cache(
            config.layers if config.causal else 1,
            config.heads,
            config.key_value_heads,
            config.head_width,
            block_count,
            kv_type,
        )
        buffer = self.model.buffer
        self.residual: Place = (buffer(config.hidden_size), 0)
        self.normed: Place = (buffer(config.hidden_size), 0)
        self.projected: Place = (buffer(config.hidden_size), 0)
        self.attended: Place = (buffer(self.query_width), 0)
        qkv = buffer(self.query_width + 2 * self.key_width)
        self.query: Place = (qkv, 0)
        self.key: Place = (qkv, self.query_width)
        self.value: Place = (qkv, self.query_width + self.key_width)
        wide = buffer(config.feed_forward_size * (2 if config.gated else 1))
        self.gate: Place = (wide, 0)
        self.up: Place = (wide, config.feed_forward_size if config.gated else 0)

    # --- tensors ---

    def tensor(self, name: str) -> TensorLike:
        try:
            return self.tensors[name]
        except KeyError:
            raise FormatError(f"the model has no tensor '{name}'") from None

    def vector(self, name: str, offset: float = 0.0) -> int:
        """A native vector, or -1 where the model has no such tensor."""
        if name not in self.tensors:
            return -1
        values = self.tensors[name].numpy().astype(np.float32, copy=False).reshape(-1)
        return self.model.vector(np.ascontiguousarray(values + np.float32(offset)))

    def matrix(self, name: str) -> int:
        tensor = self.tensor(name)
        rows, columns = tensor.shape
        packing, size = "exact", tensor.data.nbytes
        coarse_bytes, pair_bytes = rows * columns // 32 * 18, rows * columns * 2
        if self.coarse and columns % 32 == 0 and name.startswith("blk.") and size > coarse_bytes:
            packing, size = "coarse", coarse_bytes
        elif (
            not self.config.causal and columns % 32 == 0 and size >= pair_bytes and self.model.bfloat_products
        ):
            # An encoder's vectors bear bfloat16 (docs/native_step.md); logits would not.
            packing, size = "pairs", pair_bytes
        self.bytes_per_token += size
        self.matrices[name] = self.model.matrix(int(tensor.type), rows, columns, tensor.data, packing)
        return self.matrices[name]

    def table(self, name: str) -> int:
        tensor = self.tensor(name)
        rows, columns = tensor.shape
        return self.model.table(int(tensor.type), rows, columns, tensor.data)

    # --- the plan ---

    def plan(self) -> NativeRunner:
        config, model = self.config, self.model
        self._embed()
        for layer in range(config.layers):
            self._block(layer, f"blk.{layer}")
        model.select_outputs(self.residual, config.hidden_size)
        if config.norm_position != "post":
            self._norm("output_norm", self.residual, self.residual)
        if config.causal:
            name = "output.weight" if "output.weight" in self.tensors else "token_embd.weight"
            blocks = self.bytes_per_token
            head = self.matrix(name)
            margin = self.logit_margin
            if margin is None:  # two passes pay only where the head is most of what a step reads
                margin = LOGIT_MARGIN if self.bytes_per_token > 2 * blocks else math.inf
            model.logits(self.residual, config.hidden_size, head, config.logit_softcap, margin)
        # As the weights are packed, so that memory never holds all of them twice.
        files = mapped_files(tensor.data for tensor in self.tensors.values())
        model.finish(lambda: forget_pages(files))
        bytes_per_token = self.bytes_per_token - model.deferred_bytes
        return NativeRunner(
            model,
            config,
            block_count=self.block_count,
            bytes_per_token=bytes_per_token,
            matrices=self.matrices,
        )

    def _embed(self) -> None:
        config, model = self.config, self.model
        model.embed(self.table("token_embd.weight"), self.residual)
        if config.embedding_scale != 1.0:
            model.row("scale", self.residual, count=config.hidden_size, number=config.embedding_scale)
        if config.learned_positions:
            model.embed_positions(self.table("position_embd.weight"), self.projected)
            self._add(self.projected)
        if config.token_types:  # every token is of the first type: one text, not a pair
            first = np.ascontiguousarray(self.tensor("token_types.weight").numpy()[0], dtype=np.float32)
            model.add_vector(self.residual, model.vector(first), config.hidden_size)
        if config.embedding_norm:
            self._norm("token_embd_norm", self.residual, self.residual)

    def _block(self, layer: int, prefix: str) -> None:
        """One layer: attention, then the feed-forward network, with norms where the config puts them."""
        position = self.config.norm_position
        source = self.residual
        if position != "post":
            self._norm(f"{prefix}.attn_norm", self.residual, self.normed)
            source = self.normed
        self._attention(layer, prefix, source)
        if position == "both":
            self._norm(f"{prefix}.post_attention_norm", self.projected, self.projected)
        self._add(self.projected)
        if position == "post":
            self._norm(f"{prefix}.attn_output_norm", self.residual, self.residual)
        else:
            self._norm(f"{prefix}.ffn_norm", self.residual, self.normed)
        self._feed_forward(prefix, source)
        if position == "both":
            self._norm(f"{prefix}.post_ffw_norm", self.projected, self.projected)
        self._add(self.projected)
        if position == "post":
            self._norm(f"{prefix}.layer_output_norm", self.residual, self.residual)

    def _attention(self, layer: int, prefix: str, source: Place) -> None:
        config, model = self.config, self.model
        parts = (("attn_qkv", self.query),)
        if f"{prefix}.attn_qkv.weight" not in self.tensors:
            parts = (("attn_q", self.query), ("attn_k", self.key), ("attn_v", self.value))  # type: ignore[assignment]
        self._matmul(prefix, source, config.hidden_size, parts)
        if config.query_key_norm:
            for name, place, width in (
                ("attn_q_norm", self.query, self.query_width),
                ("attn_k_norm", self.key, self.key_width),
            ):
                weight = self.vector(f"{prefix}.{name}.weight", config.norm_offset)
                model.row(
                    "head_norm",
                    place,
                    weight=weight,
                    count=width,
                    width=config.head_width,
                    number=config.norm_epsilon,
                )
        rope = config.layer_rope(layer)
        if rope is not None:
            for place, heads in ((self.query, config.heads), (self.key, config.key_value_heads)):
                model.rotate(
                    place, self._rope(rope), heads, config.head_width, rope.width, rope.style == "interleaved"
                )
        cache_layer = layer if config.causal else 0
        model.store_cache(cache_layer, self.key, self.value)
        model.attention(
            cache_layer,
            self.query,
            self.attended,
            window=config.window(layer),
            causal=config.causal,
            scale=config.attention_scale,
            softcap=config.attention_softcap,
        )
        self._matmul(prefix, self.attended, self.query_width, (("attn_output", self.projected),))

    def _feed_forward(self, prefix: str, source: Place) -> None:
        config, model = self.config, self.model
        parts = (("ffn_up", self.gate),)  # alone, or gate and up in one matrix (Phi 3)
        if config.gated and f"{prefix}.ffn_gate.weight" in self.tensors:
            parts = (("ffn_gate", self.gate), ("ffn_up", self.up))  # type: ignore[assignment]
        self._matmul(prefix, source, config.hidden_size, parts)
        if config.gated:
            model.row(
                f"gated_{config.activation}", self.gate, self.gate, self.up, count=config.feed_forward_size
            )
        else:
            model.row(config.activation, self.gate, self.gate, count=config.feed_forward_size)
        self._matmul(prefix, self.gate, config.feed_forward_size, (("ffn_down", self.projected),))

    # --- words of the plan ---

    def _matmul(self, prefix: str, source: Place, columns: int, parts: tuple[tuple[str, Place], ...]) -> None:
        self.model.matmul(
            source,
            columns,
            [
                (self.matrix(f"{prefix}.{name}.weight"), self.vector(f"{prefix}.{name}.bias"), place)
                for name, place in parts
            ],
        )

    def _norm(self, name: str, source: Place, out: Place) -> None:
        config = self.config
        weight = self.vector(f"{name}.weight", config.norm_offset)
        if weight < 0:
            raise FormatError(f"the model has no tensor '{name}.weight'")
        bias = -1
        if config.norm == "layer":
            bias = self.vector(f"{name}.bias")
            if bias < 0:
                bias = self.model.vector(np.zeros(config.hidden_size, np.float32))
        self.model.row(
            f"{config.norm}_norm",
            out,
            source,
            weight=weight,
            bias=bias,
            count=config.hidden_size,
            number=config.norm_epsilon,
        )

    def _add(self, source: Place) -> None:
        self.model.row("add", self.residual, source, count=self.config.hidden_size)

    def _rope(self, rope: RopeConfig) -> int:
        if rope not in self.ropes:
            pairs = np.arange(rope.width // 2, dtype=np.float64)
            frequencies = rope.theta ** (-2.0 * pairs / rope.width)
            if rope.divisors:
                frequencies /= np.asarray(rope.divisors, np.float64)
            self.ropes[rope] = self.model.rope(frequencies.astype(np.float32).tolist(), rope.attention_factor)
        return self.ropes[rope]
