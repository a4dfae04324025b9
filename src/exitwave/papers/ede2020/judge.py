"""How near phases are to the truth: as Table 2 has it, and by what respects the cycle and a global phase."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from exitwave.errors import InputError


def components(phase: Tensor) -> Tensor:
    """Return (cos θ, sin θ), shape (sample, 2, y, x), of phases (sample, y, x)."""
    return torch.stack([phase.cos(), phase.sin()], 1)


def component_error(made: Tensor, phase: Tensor) -> Tensor:
    """Return the mean absolute error of phase components of each sample (Table 2), shape (sample,).

    Over all pixels and both components; the table has the mean and standard deviation over samples.

    Parameters
    ----------
    made : Tensor, shape (sample, 2, y, x)
        cos and sin, of modulus 1 or not.
    phase : Tensor, shape (sample, y, x)
        rad.

    Raises
    ------
    InputError
        For shapes that do not match.
    """
    if made.ndim != 4 or made.shape[1] != 2 or made.shape[:1] + made.shape[2:] != phase.shape:
        raise InputError(
            f"components {tuple(made.shape)} and phases {tuple(phase.shape)}: give (n, 2, y, x) and (n, y, x)"
        )
    return (made - components(phase)).abs().mean((1, 2, 3))


def cyclic_error(made: Tensor, phase: Tensor) -> Tensor:
    """Return the mean absolute phase error of each sample, rad, after the best global phase; shape (sample,).

    Differences are taken the short way around the circle. The global phase is that of the mean of
    exp(i difference). Phases that know nothing err by π/2.

    Parameters
    ----------
    made : Tensor, shape (sample, 2, y, x)
    phase : Tensor, shape (sample, y, x)
    """
    apart = torch.atan2(made[:, 1], made[:, 0]) - phase
    turned = torch.polar(torch.ones_like(apart), apart)
    mean = turned.mean((-2, -1), keepdim=True)
    return (turned * mean.conj()).angle().abs().mean((-2, -1))


def random_components(like: Tensor, generator: torch.Generator) -> Tensor:
    """Return components from U(-1, 1), the baseline of Eq. 25, for phases (sample, y, x)."""
    shape = (len(like), 2, *like.shape[1:])
    return 2 * torch.rand(shape, generator=generator, dtype=like.dtype) - 1


def random_phases(like: Tensor, generator: torch.Generator) -> Tensor:
    """Return components of phases from U(-π, π), which the paper calls that baseline, but is not."""
    return components(2 * math.pi * torch.rand(like.shape, generator=generator, dtype=like.dtype))
