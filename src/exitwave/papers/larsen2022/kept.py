"""Waves for figures: the middle of them, in 8 bits."""

from __future__ import annotations

import torch
import xarray as xr
from torch import Tensor

from exitwave import records
from exitwave.papers.quantities import quantity

# Of a real (less 1) or an imaginary part.
STEP = 0.005


def middle(values: Tensor, pixels: int) -> Tensor:
    """Return the middle of images or waves, shape (..., y, x), which may have fewer pixels than asked for."""
    first = max(0, (values.shape[-1] - pixels) // 2)
    last = values.shape[-1] - first
    return values[..., first:last, first:last]


def part() -> xr.Variable:
    """Return the coordinate of the parts of such waves."""
    return quantity(list(records.PARTS), "1", "real (less 1) or imaginary part", ("part",))


def in_steps(waves: Tensor, title: str, dimension: str) -> xr.Variable:
    """Return waves, shape (n, y, x), in steps of :data:`STEP`, as int8 along (`dimension`, part, y, x)."""
    parts = torch.stack([waves.real - 1, waves.imag], 1)
    steps = (parts / STEP).round().clamp(-127, 127).to(torch.int8)
    found = quantity(steps.numpy(), "1", title, (dimension, "part", "y", "x"))
    found.attrs["scale_factor_of_steps"] = STEP
    return found
