"""How large a model is and what a token costs: every convention of the literature, side by side.

Which parameters count moves the exponent of N against C by a third (Porian et al. 2024, Pearce and Song
2024), so a run keeps all of them and a fit says which it used.

Legend: N parameters, D tokens, C FLOPs, L layers, d hidden size, V vocabulary, T context.
"""

from __future__ import annotations

from dataclasses import dataclass

from octavo.model_config import ModelConfig

# FLOPs of one petaflop-day (Kaplan et al. 2020, section 1.3).
PETAFLOP_DAY = 8.64e19
CONVENTIONS = ("active", "total", "nonembedding")


@dataclass(frozen=True, slots=True)
class ModelCount:
    """Parameters by convention, and FLOPs of one training token (forward and backward).

    nonembedding: matrices of the blocks (Kaplan).  active: those and the output layer, every weight that
    takes part in a product: our default.  total: all, a tied embedding once (Chinchilla).
    """

    nonembedding: int
    active: int
    total: int
    flops_per_token: float

    def parameters(self, convention: str) -> int:
        """Raises ValueError for a convention that is not one of CONVENTIONS."""
        if convention not in CONVENTIONS:
            raise ValueError(f"convention: {convention!r}; one of {', '.join(CONVENTIONS)}")
        return int(getattr(self, convention))


def count_model(config: ModelConfig, *, causal_halved: bool = False) -> ModelCount:
    """Exactly this model.  causal_halved: the attention skips what the mask hides."""
    d, width = config.hidden_size, config.head_width
    attention = 2 * d * config.heads * width + 2 * d * config.key_value_heads * width
    feed_forward = (3 if config.gated else 2) * d * config.feed_forward_size
    body = config.layers * (attention + feed_forward)
    head = config.vocabulary_size * d
    embeddings = head if config.tied_embeddings else 2 * head
    score = (6.0 if causal_halved else 12.0) * config.layers * config.context_length * config.heads * width
    active = body + head
    return ModelCount(body, active, body + embeddings + config.learned_positions * d, 6.0 * active + score)


def count_shape(
    layers: int,
    hidden: int,
    vocabulary: int,
    context: int,
    *,
    positions: int = 0,
    causal_halved: bool = False,
) -> ModelCount:
    """The textbook shape: 12 L d^2 in the blocks, a tied embedding, no biases or norms."""
    body, head = 12 * layers * hidden * hidden, vocabulary * hidden
    score = (6.0 if causal_halved else 12.0) * layers * context * hidden
    active = body + head
    return ModelCount(body, active, active + positions * hidden, 6.0 * active + score)


def six_nd(parameters: float, tokens: float) -> float:
    """C = 6 N D, in floats: as 64-bit integers it turns negative above 9.2e18."""
    return 6.0 * float(parameters) * float(tokens)


def kaplan_forward(nonembedding: float, layers: int, context: int, hidden: int) -> float:
    """FLOPs of a token forward: 2 N + 2 L T d (Kaplan et al. 2020, table 1)."""
    return 2.0 * nonembedding + 2.0 * layers * context * hidden


def chinchilla_forward(
    layers: int,
    hidden: int,
    feed_forward: int,
    key_width: int,
    heads: int,
    *,
    vocabulary: int = 32_000,
    context: int = 2048,
    embeddings: bool = True,
) -> float:
    """FLOPs of one sequence forward, term by term (Hoffmann et al. 2022, appendix F).

    embeddings: with the embedding and logits terms.  The printed table A4 leaves them out.
    """
    s, d, width = float(context), float(hidden), float(key_width * heads)
    layer = 6 * s * d * width + 2 * s * s * width + 3 * heads * s * s + 2 * s * s * width + 2 * s * width * d
    layer += 4 * s * d * feed_forward
    return layers * layer + (4 * s * vocabulary * d if embeddings else 0.0)
