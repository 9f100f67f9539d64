"""Rotary position embedding (Su et al. 2021, RoFormer, section 3.2.2).

Legend: B sequences, H heads, T tokens, D head width, W rotated width (W <= D).
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from octavo.errors import UnsupportedError
from octavo.model_config import RopeConfig


def rope_angles(config: RopeConfig, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine and sine [..., T, W/2] of the angle by which each pair turns at the positions int[..., T].

    Computed in float64 (an angle of many turns loses digits), returned in float32 and multiplied by
    `attention_factor`.
    """
    pairs = config.width // 2
    if len(config.divisors) not in (0, pairs):
        raise UnsupportedError(
            f"rope has {len(config.divisors)} divisors for {pairs} pairs: give one for each pair, or none"
        )
    divisors = config.divisors or (1.0,) * pairs
    frequencies = [config.theta ** (-2 * pair / config.width) / divisors[pair] for pair in range(pairs)]
    exact = torch.tensor(frequencies, dtype=torch.float64, device=positions.device)
    angles = positions.to(torch.float64)[..., None] * exact
    cosine, sine = angles.cos() * config.attention_factor, angles.sin() * config.attention_factor
    return cosine.to(torch.float32), sine.to(torch.float32)


@functools.lru_cache(maxsize=8)
def _angle_table(config: RopeConfig, length: int) -> tuple[Tensor, Tensor]:
    return rope_angles(config, torch.arange(length))


def looked_up_angles(config: RopeConfig, positions: Tensor) -> tuple[Tensor, Tensor]:
    """`rope_angles` from a table that is made once: training asks for the same angles in every step."""
    length = int(positions.max()) + 1 if positions.numel() else 1
    cosine, sine = _angle_table(config, 1 << (length - 1).bit_length())
    return cosine[positions], sine[positions]


def rotate(x: Tensor, cosine: Tensor, sine: Tensor, style: str) -> Tensor:
    """Turns the pairs of x [B, H, T, D] by the angles [T, W/2] or [B, T, W/2]; the rest passes through.

    style "half" pairs element i with i + W/2, "interleaved" pairs 2i with 2i + 1.
    """
    width = 2 * cosine.shape[-1]
    if cosine.dim() == 3:
        cosine, sine = cosine[:, None], sine[:, None]
    turned, rest = x[..., :width], x[..., width:]
    if style == "half":
        first, second = turned.chunk(2, dim=-1)
    else:
        first, second = turned[..., 0::2], turned[..., 1::2]
    pair = (first * cosine - second * sine, second * cosine + first * sine)
    turned = torch.cat(pair, dim=-1) if style == "half" else torch.stack(pair, dim=-1).flatten(-2)
    return torch.cat((turned, rest), dim=-1)
