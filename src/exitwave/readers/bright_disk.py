"""The bright disk of 4D-STEM patterns: where it is, how large, and what is wrong with the detector.

The disk is the image of the aperture, so its radius gives the scale of the detector where the semi-angle is
known, and its middle the direction of the beam.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy.ndimage import map_coordinates
from scipy.optimize import least_squares
from torch import Tensor

from exitwave.errors import InputError
from exitwave.optics import wavelength
from exitwave.optics.grids import checked
from exitwave.readers.scans_pixels import Mending, bad_pixels, bright_level

_RAYS = 180  # along which the edge is looked for
_STEP = 0.1  # of a ray, pixels
_SMALLEST = 2.0  # pixels; a smaller disk has no edge to fit
_EDGE = 1.0  # pixels within the radius that are not whole
_COUNTS = 64  # a highest value below this is shared by many pixels by chance
_SHARED = 0.05  # of the disk's pixels with the same highest value: it was cut
_FULL = frozenset(2**bits - 1 for bits in (8, 10, 12, 14, 15, 16))


@dataclass(frozen=True)
class Disk:
    """The bright disk on the detector.

    Attributes
    ----------
    shape : (int, int)
        Pixels (ky, kx) of the detector.
    centre : (float, float)
        (ky, kx) in pixels, 0 being the middle of the first pixel.
    radius : float
        Pixels.
    level : float
        Its intensity in the pattern it was found in.
    """

    shape: tuple[int, int]
    centre: tuple[float, float]
    radius: float
    level: float

    @property
    def wrapped(self) -> bool:
        """Whether it goes over the border, as it does in FFT order."""
        pairs = zip(self.centre, self.shape, strict=True)
        return any(c - self.radius < -0.5 or c + self.radius > n - 0.5 for c, n in pairs)

    def pixel(self, *, energy: float, semiangle: float) -> float:
        """Return the size of a detector pixel, 1/Å, from the half angle (rad) of the aperture.

        Raises
        ------
        InputError
            For an energy or a half angle that is not positive.
        """
        angle = float(checked(semiangle, "aperture half angle (rad)", positive=True))
        return angle / wavelength(energy) / self.radius

    def offsets(self) -> Tensor:
        """Return how far pixels are from its middle, shape (ky, kx, 2), float64, pixels."""
        axes = []
        for middle, size in zip(self.centre, self.shape, strict=True):
            line = torch.arange(size, dtype=torch.float64) - middle
            axes.append((line + size / 2) % size - size / 2 if self.wrapped else line)
        return torch.stack(torch.meshgrid(*axes, indexing="ij"), -1)

    def inside(self, margin: float = 0.0) -> Tensor:
        """Return which pixels are within its radius less a margin (pixels), shape (ky, kx), bool."""
        found: Tensor = self.offsets().square().sum(-1) <= max(self.radius - margin, 0.0) ** 2
        return found


def find_disk(pattern: Tensor) -> Disk:
    """Return the bright disk of a mean pattern, to a fraction of a pixel.

    A circle is fitted to where rays from its middle fall to half of its level, few of which may be far off.

    Parameters
    ----------
    pattern : Tensor, shape (ky, kx), real
        Centred or in FFT order; single dead, not finite and hot pixels do no harm.

    Raises
    ------
    InputError
        If there is no disk with an edge on the detector.
    """
    image = Mending(bad_pixels(pattern))(pattern).double()
    bright = image > bright_level(image) / 2
    rough = [_circular_mean(bright.sum(1 - axis)) for axis in (0, 1)]
    shifts = [round(n / 2 - c) for n, c in zip(image.shape, rough, strict=True)]
    rolled = image.roll(shifts, (0, 1))
    level = float(rolled[bright.roll(shifts, (0, 1))].median())
    start = [c + s for c, s in zip(rough, shifts, strict=True)]
    y, x, radius = _circle(rolled.numpy(), start, math.sqrt(float(bright.sum()) / math.pi), level)
    centre = [(c - s + 0.5) % n - 0.5 for c, s, n in zip((y, x), shifts, image.shape, strict=True)]
    return Disk((image.shape[0], image.shape[1]), (centre[0], centre[1]), radius, level)


def rough_disk(pattern: Tensor) -> Disk:
    """Return what has more than half of the brightness of a mean pattern, as a disk of equal area.

    For patterns without an edge that :func:`find_disk` could fit; in the order of files, not of the FFT.

    Raises
    ------
    InputError
        If the pattern is empty.
    """
    image = Mending(bad_pixels(pattern))(pattern).double()
    inside = (image > bright_level(image) / 2).nonzero().double()
    y, x = (float(each) for each in inside.mean(0))
    level = bright_level(image)
    return Disk((image.shape[0], image.shape[1]), (y, x), math.sqrt(len(inside) / math.pi), level)


def detector_warnings(
    mean: Tensor, highest: Tensor, largest: float | None, disk: Disk, *, bad: Tensor | None = None
) -> list[str]:
    """Return what is wrong with the detector, and what to do about it, a line each.

    Parameters
    ----------
    mean : Tensor, shape (ky, kx)
        Of all patterns, or their sum.
    highest : Tensor, shape (ky, kx)
        Largest count of each pixel.
    largest : float, optional
        That the counter holds. Without one, what many pixels of the disk reach is taken for its limit.
    disk : Disk
    bad : Tensor, shape (ky, kx), bool, optional
        Pixels that do not count; those that stand out of the mean by default.
    """
    lines = []
    bad = bad_pixels(mean) if bad is None else bad
    inside = disk.inside(_EDGE)
    if bool(bad.any()):
        many, y, x = int(bad.sum()), *bad.nonzero()[0].tolist()
        lines.append(
            f"{many} dead or hot pixels, {int((bad & inside).sum())} of them in the bright disk, the first "
            f"at ({y}, {x}): their neighbours' mean stands for them; record a new gain reference"
        )
    values = highest[inside & ~bad]
    if len(values):
        lines += _saturation(values, largest)
    room = [c - disk.radius for c in disk.centre]
    room += [n - 1 - c - disk.radius for c, n in zip(disk.centre, disk.shape, strict=True)]
    # In FFT order it lies around the first pixel.
    if min(room) < -0.5 and not bool(disk.inside()[0, 0]):
        lines.append(
            f"the bright disk, {disk.radius:.1f} pixels in radius at (y, x) = ({disk.centre[0]:.1f}, "
            f"{disk.centre[1]:.1f}), is not all on the detector: angles and centres of mass are wrong; use a "
            "longer or centred camera"
        )
    return lines


def _saturation(values: Tensor, largest: float | None) -> list[str]:
    """Return a line if many of the highest values of pixels within the disk are the same."""
    top = float(values.max())
    shared = int((values == top).sum())
    limit = (largest is not None and top >= largest) or (top in _FULL and shared > 1)
    if limit or (top >= _COUNTS and shared > max(2, _SHARED * len(values))):
        return [
            f"{shared} of {len(values)} pixels of the bright disk reach the same highest value, {top:g}: "
            "they look saturated; lower the beam current or the exposure"
        ]
    return []


def _circular_mean(weights: Tensor) -> float:
    """Return the middle of weights over a line that closes on itself, pixels."""
    size = len(weights)
    turns = 2 * math.pi * torch.arange(size, dtype=torch.float64) / size
    y, x = (float((weights * each).sum()) for each in (turns.sin(), turns.cos()))
    return math.atan2(y, x) / (2 * math.pi) * size % size


def _circle(
    image: np.ndarray[tuple[int, ...], np.dtype[np.float64]], start: list[float], radius: float, level: float
) -> tuple[float, float, float]:
    """Return (y, x, radius) of the circle through the points where rays fall to half of the level."""
    along = np.arange(max(0.5 * radius, 0.5), min(1.6 * radius + 2, 0.5 * min(image.shape)), _STEP)
    azimuths = 2 * np.pi * np.arange(_RAYS) / _RAYS
    points = []
    for azimuth in azimuths:
        y, x = start[0] + along * np.sin(azimuth), start[1] + along * np.cos(azimuth)
        values = map_coordinates(image, [y, x], order=1, mode="nearest")
        # The last fall: a shadow within the disk is no edge. What is outside counts as the background.
        half = 0.5 * (level + min(values[-1], 0.5 * level))
        above = np.flatnonzero(values > half)
        if len(above) and above[-1] + 1 < len(values):
            i = above[-1]
            part = (values[i] - half) / (values[i] - values[i + 1])
            far = along[i] + _STEP * part
            points.append((start[0] + far * np.sin(azimuth), start[1] + far * np.cos(azimuth)))
    if len(points) < 0.7 * _RAYS or radius < _SMALLEST:
        raise InputError(
            f"no edge of a bright disk along {_RAYS - len(points)} of {_RAYS} rays, some {radius:.1f} pixels "
            "out: give the mean of more patterns, of a detector that holds the disk and what is around it"
        )
    edge = np.array(points)

    def misfit(values: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> Tensor:
        return np.hypot(edge[:, 0] - values[0], edge[:, 1] - values[1]) - values[2]  # type: ignore[no-any-return]

    fit = least_squares(misfit, [*start, radius], loss="soft_l1", f_scale=0.1)
    return float(fit.x[0]), float(fit.x[1]), float(fit.x[2])
