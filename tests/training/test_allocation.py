"""Denormal numbers are zero while a step runs, on each thread of PyTorch, and only then."""

from __future__ import annotations

import platform

import pytest

torch = pytest.importorskip("torch")

from octavo.training.allocation import flushed_denormals  # noqa: E402


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="set on one thread only there")
def test_denormals_are_flushed_on_all_threads_and_only_meanwhile() -> None:
    small = torch.full((1 << 20,), 1e-38)  # so many that PyTorch shares them out
    assert bool((small * 0.01 != 0).all())
    with flushed_denormals():
        assert bool((small * 0.01 == 0).all())
        with flushed_denormals():
            pass
        assert bool((small * 0.01 == 0).all())
    assert bool((small * 0.01 != 0).all())
