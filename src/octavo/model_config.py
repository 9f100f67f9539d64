"""One description of every architecture that octavo runs or trains.

A frozen dataclass without torch or numpy: the checkpoint readers fill it (`weights/`), the plan of the
native step is made from it (`decoding/plan.py`), and so are the readable models (`models/`).
An architecture is a set of values here, not a class of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

ARCHITECTURES = ("llama", "qwen2", "qwen3", "gemma2", "gemma3", "gpt2", "phi3", "bert")


@dataclass(frozen=True, slots=True)
class RopeConfig:
    """Rotary position embedding (Su et al. 2021, RoFormer, section 3.2.2).

    theta: base of the frequencies; pair i of `width` rotates by position * theta^(-2i/width) / divisors[i].
    style: "half" pairs element i with i + width/2 (Hugging Face); "interleaved" pairs 2i with 2i+1
        (llama.cpp's "norm" style: GGUF files of the llama architecture have q and k permuted for it).
    width: how many leading elements of a head are rotated (the rest pass through).
    divisors: per pair, what the frequency is divided by (Llama 3, longrope and linear scaling end here);
        empty means 1 for all.
    attention_factor: cos and sin are multiplied by it (longrope, yarn).
    """

    theta: float
    width: int
    style: Literal["half", "interleaved"] = "half"
    divisors: tuple[float, ...] = ()
    attention_factor: float = 1.0


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Everything about a model but its weights.  Sizes count elements; lengths count tokens."""

    architecture: str
    vocabulary_size: int
    context_length: int
    hidden_size: int
    layers: int
    heads: int
    key_value_heads: int
    head_width: int
    feed_forward_size: int

    norm: Literal["rms", "layer"] = "rms"
    norm_epsilon: float = 1e-5
    # What is added to each weight of an RMS norm (Hugging Face's Gemma stores weight - 1; GGUF does not).
    norm_offset: float = 0.0
    # Where the norms of a block stand: "pre" (GPT-2 on), "post" (2017 Transformer, BERT), "both" (Gemma 2,
    # 3).
    norm_position: Literal["pre", "post", "both"] = "pre"
    query_key_norm: bool = False  # an RMS norm over each head's query and key (Qwen 3, Gemma 3)

    activation: Literal["silu", "gelu", "gelu_tanh"] = "silu"
    gated: bool = True  # activation(gate) * up, or activation(up)

    rope: RopeConfig | None = None
    # Layers with a window may have a rope of their own (Gemma 3); None means they use `rope`.
    window_rope: RopeConfig | None = None
    learned_positions: int = 0  # rows of a learned position table (GPT-2, BERT); 0 means none
    token_types: int = 0  # rows of a token-type table (BERT)

    # Per layer: 0 for full attention, else the sliding window (a query sees itself and window-1 before it).
    windows: tuple[int, ...] = ()
    causal: bool = True
    attention_scale: float = 0.0  # what q.k is multiplied by; never 0 in a finished config
    attention_softcap: float = 0.0  # scores become cap * tanh(score / cap); 0 means none (Gemma 2)
    logit_softcap: float = 0.0
    embedding_scale: float = 1.0
    embedding_norm: bool = False  # a layer norm right after the embeddings (BERT)
    tied_embeddings: bool = True

    # For encoders: how the hidden states of a text become one vector, and whether it gets length 1.
    pooling: Literal["", "mean", "cls"] = ""
    normalize_embeddings: bool = False

    beginning_token: int | None = None
    end_tokens: tuple[int, ...] = field(default=())
    add_beginning_token: bool = False

    @property
    def is_encoder(self) -> bool:
        return not self.causal

    def window(self, layer: int) -> int:
        """The sliding window of a layer in tokens, 0 for full attention."""
        return self.windows[layer] if self.windows else 0

    def layer_rope(self, layer: int) -> RopeConfig | None:
        """The rotary embedding that a layer uses."""
        return self.window_rope if self.window(layer) and self.window_rope is not None else self.rope
