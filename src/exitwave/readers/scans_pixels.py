"""What the sum of all patterns of a 4D-STEM scan tells of its detector: bad pixels, the bright disk."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from exitwave.errors import InputError

_REACH = 2  # neighbours within 5 x 5 pixels
# A pixel is hot with so many times the upper quartile of its neighbours, and dead with this share of the
# lower one; both only where it matters beside the brightest of them.
_HOT, _DEAD = 3.0, 0.1
_MATTERS, _BRIGHT = 1e-3, 0.2
_MOST_BAD = 0.1


@dataclass(frozen=True)
class Disk:
    """The bright disk on the detector, pixels: its centre (y, x), the first pixel at 0, and its radius."""

    centre: tuple[float, float]
    radius: float


def _quartiles(total: Tensor) -> tuple[Tensor, Tensor]:
    """Return the lower and the upper quartile of the neighbours of each pixel, itself left out."""
    side = 2 * _REACH + 1
    if total.ndim != 2 or total.is_complex() or min(total.shape) <= _REACH:
        raise InputError(
            f"pattern of shape {tuple(total.shape)}: give real (ky, kx) of {side} pixels or more"
        )
    values = total.double().nan_to_num(0.0, 0.0, 0.0)
    padded = torch.nn.functional.pad(values[None, None], [_REACH] * 4, mode="reflect")
    near = torch.nn.functional.unfold(padded, side)[0]
    near = torch.cat([near[: side * side // 2], near[side * side // 2 + 1 :]]).sort(0).values
    count = len(near)
    low, high = near[count // 4], near[count - 1 - count // 4]
    return low.reshape(total.shape), high.reshape(total.shape)


def bad_pixels(total: Tensor) -> Tensor:
    """Return the pixels of a detector that are dead or hot.

    Parameters
    ----------
    total : Tensor, shape (ky, kx)
        Sum or mean of all patterns.

    Returns
    -------
    Tensor, shape (ky, kx), bool
        Hot is what has three times the upper quartile of its 24 neighbours; dead is what has less than a
        tenth of the lower quartile within the bright disk; and bad what is not finite. Quartiles, since a
        median takes the rim of a disk for hot. Only differences above a thousandth of the brightest
        neighbourhood count. A disk or spot less than five pixels across looks like hot pixels.

    Raises
    ------
    InputError
        For another shape.
    """
    low, high = _quartiles(total)
    top = float(high.max())
    hot = (total > _HOT * high) & (total - high > _MATTERS * top)
    dead = (low > _BRIGHT * top) & (total < _DEAD * low)
    return hot | dead | ~total.isfinite()


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


def bright_disk(total: Tensor) -> Disk:
    """Return the bright disk of the sum of all patterns: what has more than half of its intensity.

    Raises
    ------
    InputError
        If the pattern is empty.
    """
    low, _ = _quartiles(total)
    top = float(low.max())
    if not top > 0:
        raise InputError("the sum of the patterns is 0: check the scan shape, detector shape and dtype")
    inside = ((total > 0.5 * top) & torch.isfinite(total)).nonzero().double()
    y, x = (float(each) for each in inside.mean(0))
    return Disk((y, x), math.sqrt(len(inside) / math.pi))


def saturated_share(maximum: Tensor, largest: float | None) -> float:
    """Return the share of the pixels that reach the largest count there can be in some pattern.

    Parameters
    ----------
    maximum : Tensor, shape (ky, kx)
        Largest count of each pixel.
    largest : float, optional
        Of the counter; without one nothing saturates.
    """
    return 0.0 if largest is None else float((maximum >= largest).double().mean())


def detector_warnings(total: Tensor, maximum: Tensor, largest: float | None) -> list[str]:
    """Return a line, with the remedy, for bad pixels, saturation, and a disk that is not all there."""
    lines = []
    bad = int(bad_pixels(total).sum())
    if bad:
        lines.append(
            f"{bad} dead or hot pixels: they are filled from their neighbours unless --no-mend is given"
        )
    share = saturated_share(maximum, largest)
    if share:
        lines.append(
            f"{100 * share:.2g} % of the pixels reach {largest:.0f}, the most their counter holds: they may "
            "be cut off; record with less current, or in a deeper mode"
        )
    disk = bright_disk(total)
    room = min(*disk.centre, *(size - 1 - at for size, at in zip(total.shape, disk.centre, strict=True)))
    if room < disk.radius:
        lines.append(
            f"the bright disk, {disk.radius:.1f} pixels in radius at (y, x) = ({disk.centre[0]:.1f}, "
            f"{disk.centre[1]:.1f}), is not all on the detector: angles and centres of mass are wrong; use a "
            "longer or centred camera"
        )
    return lines


def fft_order(patterns: Tensor, centre: tuple[float, float]) -> Tensor:
    """Return patterns (..., ky, kx) with the pixel that is nearest to a centre (y, x) first: FFT order."""
    shifts = [-round(each) for each in centre]
    return patterns.roll(shifts, (-2, -1))
