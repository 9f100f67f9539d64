"""The ways of stretching rotary position embeddings, each reduced to divisors of the frequencies.

Pair i of `width` rotates by position * theta^(-2i/width) / divisors[i]; see `RopeConfig`.
"""

from __future__ import annotations

import math


def wavelengths(theta: float, width: int) -> list[float]:
    """Tokens in a full turn of each pair (without scaling)."""
    return [2 * math.pi * theta ** (2 * pair / width) for pair in range(width // 2)]


def linear_divisors(width: int, factor: float) -> tuple[float, ...]:
    """Position interpolation (Chen et al. 2023): every frequency divided by the same factor."""
    return (factor,) * (width // 2)


def llama3_divisors(
    theta: float, width: int, *, factor: float, low: float, high: float, original_context: float
) -> tuple[float, ...]:
    """Llama 3.1's: long waves are divided by `factor`, short ones not, those between smoothly.

    low, high: a wave that turns fewer than `low` times in `original_context` tokens is long, more than `high`
    times is short.
    """
    divisors = []
    for wavelength in wavelengths(theta, width):
        turns = original_context / wavelength
        if turns < low:
            divisors.append(factor)
        elif turns > high:
            divisors.append(1.0)
        else:
            smooth = (turns - low) / (high - low)
            divisors.append(1 / ((1 - smooth) / factor + smooth))
    return tuple(divisors)


def yarn_divisors(
    theta: float,
    width: int,
    *,
    factor: float,
    original_context: float,
    beta_fast: float = 32.0,
    beta_slow: float = 1.0,
    truncate: bool = True,
) -> tuple[float, ...]:
    """YaRN (Peng et al. 2023, section 3.2): as Llama 3's, with a ramp over pairs instead of over turns.

    Pairs that turn more than `beta_fast` times in the original context stay, fewer than `beta_slow` times are
    divided by `factor`.  truncate: the ends of the ramp are whole pairs.
    """

    def pair_that_turns(times: float) -> float:
        return width * math.log(original_context / (times * 2 * math.pi)) / (2 * math.log(theta))

    low, high = pair_that_turns(beta_fast), pair_that_turns(beta_slow)
    if truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, width - 1)
    span = high - low or 0.001
    divisors = []
    for pair in range(width // 2):
        ramp = min(max((pair - low) / span, 0.0), 1.0)
        divisors.append(1 / (ramp / factor + (1 - ramp)))
    return tuple(divisors)


def yarn_attention_factor(factor: float) -> float:
    """YaRN's temperature on cos and sin (equation 22)."""
    return 0.1 * math.log(factor) + 1 if factor > 1 else 1.0


def longrope_attention_factor(factor: float, original_context: float) -> float:
    """LongRoPE's (Ding et al. 2024) temperature on cos and sin, as Phi 3 uses it."""
    return math.sqrt(1 + math.log(factor) / math.log(original_context)) if factor > 1 else 1.0
