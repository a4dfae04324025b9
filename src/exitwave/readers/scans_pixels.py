"""What the mean of all patterns of a 4D-STEM scan tells of single pixels of its detector; their mending."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from exitwave.errors import InputError

_DEAD, _HOT = 0.1, 3.0  # a pixel below or above this share of its neighbours does not count
_MOST_BAD = 0.1


def bad_pixels(pattern: Tensor) -> Tensor:
    """Return the pixels (ky, kx) that stand out alone of a mean pattern: dead, hot or not finite.

    A pixel is compared with the third of its eight neighbours in either direction, so that two bad ones side
    by side are seen, and an edge or a corner is none.

    Raises
    ------
    InputError
        If the pattern is not one real image, or holds nothing.
    """
    if pattern.ndim != 2 or min(pattern.shape) < 4 or pattern.is_complex():
        raise InputError(f"a mean pattern of shape {tuple(pattern.shape)}: give one real (ky, kx)")
    image = pattern.double()
    finite = image.isfinite()
    image = torch.where(finite, image, torch.zeros_like(image))
    around = _neighbours(image).sort(0).values
    level = bright_level(image)
    dead = (around[2] > level / 2) & (image < _DEAD * around[2])
    hot = (image > level / 4) & (image > _HOT * around[-3])
    return ~finite | dead | hot


def _neighbours(image: Tensor) -> Tensor:
    """Return the eight neighbours of each pixel, shape (8, ky, kx); the border wraps, as FFT order does."""
    steps = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dy, dx) != (0, 0)]
    return torch.stack([image.roll(step, (0, 1)) for step in steps])


def bright_level(image: Tensor) -> float:
    """Return the middle intensity of what is bright in a mean pattern (ky, kx); a few hot pixels are not."""
    # What all but three of a neighbourhood of nine reach is no hot pixel, nor a pair of them.
    shared = torch.cat([image[None], _neighbours(image)]).sort(0).values[3]
    top = float(shared.max())
    if not top > 0:
        raise InputError("the mean pattern holds no electrons: check the file and its order of axes")
    for _ in range(20):
        top = float(image[(image > top / 2)].clamp(max=4 * top).median())
    return top


@dataclass(frozen=True)
class Mending:
    """How bad pixels are filled: by the mean of the good ones that are nearest, or by 0.

    Parameters
    ----------
    mask : Tensor, shape (ky, kx), bool
        True where a pixel is bad.
    zero : bool
        Fill with 0, which masks them.

    Raises
    ------
    InputError
        If more than a tenth of the pixels are bad, or the mask is no mask.
    """

    mask: Tensor
    zero: bool = False

    def __post_init__(self) -> None:
        if self.mask.ndim != 2 or self.mask.dtype != torch.bool:
            raise InputError(f"mask of shape {tuple(self.mask.shape)}, {self.mask.dtype}: give bool (ky, kx)")
        share = float(self.mask.double().mean())
        if share > _MOST_BAD and not self.zero:
            raise InputError(
                f"{100 * share:.0f} % of the pixels are bad, too many to fill: check the mask, or use "
                "zero=True"
            )

    def neighbours(self) -> list[tuple[Tensor, Tensor]]:
        """Return, for each bad pixel, (y, x) of the nearest good ones."""
        found = []
        good = ~self.mask
        for y, x in self.mask.nonzero().tolist():
            reach = 1
            while True:
                rows, columns = (
                    slice(max(0, y - reach), y + reach + 1),
                    slice(max(0, x - reach), x + reach + 1),
                )
                near = good[rows, columns].nonzero()
                if len(near):
                    found.append((near[:, 0] + rows.start, near[:, 1] + columns.start))
                    break
                reach += 1
        return found

    def __call__(self, patterns: Tensor) -> Tensor:
        """Return patterns (..., ky, kx) with their bad pixels filled.

        Raises
        ------
        InputError
            For patterns of another shape.
        """
        if patterns.shape[-2:] != self.mask.shape:
            shape = tuple(patterns.shape[-2:])
            raise InputError(
                f"patterns of {shape} pixels and a mask of {tuple(self.mask.shape)}: use one shape"
            )
        if not bool(self.mask.any()):
            return patterns
        filled = patterns.clone()
        if self.zero:
            filled[..., self.mask] = 0
            return filled
        means = [patterns[..., rows, columns].mean(-1) for rows, columns in self.neighbours()]
        filled[..., self.mask] = torch.stack(means, -1)
        return filled


def fft_order(patterns: Tensor, centre: tuple[float, float]) -> Tensor:
    """Return patterns (..., ky, kx) with the pixel that is nearest to a centre (y, x) first: FFT order."""
    shifts = [-round(each) for each in centre]
    return patterns.roll(shifts, (-2, -1))
