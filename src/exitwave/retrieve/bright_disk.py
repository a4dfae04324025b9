"""The bright disk of 4D-STEM patterns: where it is, how large, and which of its pixels do not count.

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

_RAYS = 180  # along which the edge is looked for
_STEP = 0.1  # of a ray, pixels
_DEAD, _HOT = 0.1, 3.0  # a pixel below or above this share of its neighbours does not count
_SMALLEST = 2.0  # pixels; a smaller disk has no edge to fit


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
    image = repaired(pattern, bad_pixels(pattern)).double()
    bright = image > _level(image) / 2
    rough = [_circular_mean(bright.sum(1 - axis)) for axis in (0, 1)]
    shifts = [round(n / 2 - c) for n, c in zip(image.shape, rough, strict=True)]
    rolled = image.roll(shifts, (0, 1))
    level = float(rolled[bright.roll(shifts, (0, 1))].median())
    start = [c + s for c, s in zip(rough, shifts, strict=True)]
    y, x, radius = _circle(rolled.numpy(), start, math.sqrt(float(bright.sum()) / math.pi), level)
    centre = [(c - s + 0.5) % n - 0.5 for c, s, n in zip((y, x), shifts, image.shape, strict=True)]
    return Disk((image.shape[0], image.shape[1]), (centre[0], centre[1]), radius, level)


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
    level = _level(image)
    dead = (around[2] > level / 2) & (image < _DEAD * around[2])
    hot = (image > level / 4) & (image > _HOT * around[-3])
    return ~finite | dead | hot


def repaired(patterns: Tensor, bad: Tensor) -> Tensor:
    """Return patterns (..., ky, kx) whose bad pixels (ky, kx) hold the mean of their good neighbours.

    Raises
    ------
    InputError
        If a bad pixel has no good one among its 24 nearest.
    """
    if not bool(bad.any()):
        return patterns
    rows, columns = patterns.shape[-2:]
    found = patterns.clone()
    for y, x in bad.nonzero().tolist():
        for reach in (1, 2):
            near = [
                ((y + dy) % rows, (x + dx) % columns)
                for dy in range(-reach, reach + 1)
                for dx in range(-reach, reach + 1)
                if not bool(bad[(y + dy) % rows, (x + dx) % columns])
            ]
            if near:
                break
        else:
            raise InputError(f"pixel ({y}, {x}) lies amid dead ones: crop the detector, or bin it")
        at = torch.tensor(near)
        found[..., y, x] = patterns[..., at[:, 0], at[:, 1]].mean(-1)
    return found


def _neighbours(image: Tensor) -> Tensor:
    """Return the eight neighbours of each pixel, shape (8, ky, kx); the border wraps, as FFT order does."""
    steps = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dy, dx) != (0, 0)]
    return torch.stack([image.roll(step, (0, 1)) for step in steps])


def _level(image: Tensor) -> float:
    """Return the middle intensity of what is bright; a few hot pixels are not."""
    # What all but three of a neighbourhood of nine reach is no hot pixel, nor a pair of them.
    shared = torch.cat([image[None], _neighbours(image)]).sort(0).values[3]
    top = float(shared.max())
    if not top > 0:
        raise InputError("the mean pattern holds no electrons: check the file and its order of axes")
    for _ in range(20):
        top = float(image[(image > top / 2)].clamp(max=4 * top).median())
    return top


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
