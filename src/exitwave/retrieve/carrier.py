"""Where the side bands of an off-axis hologram are."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from exitwave.errors import InputError
from exitwave.optics import frequency_grid
from exitwave.optics.grids import sampling_pair
from exitwave.simulate.holograms import Carrier, checked_carrier

# Fringes of more pixels are looked for where they are told to be: there the centre band is strong.
WIDEST = 20.0
_LEAST_PIXELS = 16
# The largest of a million noisy coefficients is some 4.5 times their median.
_STANDS_OUT = 8.0
_BLANK = 1e-9  # of the sum of an image: fringes below it are rounding
_NEIGHBOURS = 4  # steps of the frequency grid in which a side band is the largest
_REFINEMENTS = (0.5, 0.1, 0.02, 0.004, 0.0008)  # steps of the frequency grid


def check_image(image: Tensor, name: str) -> None:
    """Refuse what is not one real, finite image (y, x) of 16 pixels or more along each side.

    Raises
    ------
    InputError
    """
    if image.ndim != 2 or image.is_complex() or min(image.shape) < _LEAST_PIXELS:
        raise InputError(
            f"{name} of {image.dtype} and shape {tuple(image.shape)}: give one real image (y, x) of "
            f"{_LEAST_PIXELS} pixels or more along each side"
        )
    bad = int(image.numel() - torch.isfinite(image).sum())
    if bad:
        raise InputError(f"{bad} pixels of the {name} are not finite: mask or replace them")


def find_carrier(
    hologram: Tensor, *, sampling: float | tuple[float, float], near: Carrier | None = None
) -> tuple[float, float]:
    """Return the carrier of a hologram to a small part of a pixel of its Fourier transform.

    Both side bands fit: the hologram does not know on which side the reference wave passed. The result is the
    one that is positive along the axis along which it is larger; its negative makes the conjugate wave.

    Parameters
    ----------
    hologram : Tensor, shape (y, x), real
        Best that of the vacuum.
    sampling : float or (float, float)
        Pixel size, Å, one number or (y, x).
    near : (float, float), optional
        Where to look, (y, x), 1/Å: the largest peak that is nearer to it than half its length, with its sign.
        By default the largest whose fringes are narrower than 20 pixels.

    Returns
    -------
    (float, float)
        q as (y, x), 1/Å.

    Raises
    ------
    InputError
        For an image that is not real and finite, and if no side band stands out of what is around it.
    """
    steps = sampling_pair(sampling)
    check_image(hologram, "hologram")
    image = hologram.detach().double().cpu()
    # The window keeps the borders, where a field does not repeat, out of the peak.
    window = _hann(image.shape[0])[:, None] * _hann(image.shape[1])
    windowed = window * (image - (window * image).sum() / window.sum())
    height = torch.fft.fft2(windowed).abs()
    ky, kx = frequency_grid((image.shape[0], image.shape[1]), 1.0)
    if near is None:
        allowed = torch.hypot(ky, kx) > 1 / WIDEST
    else:
        q = torch.as_tensor(checked_carrier(near, steps), dtype=torch.float64) * torch.tensor(steps)
        allowed = torch.hypot(ky - q[0], kx - q[1]) < 0.5 * torch.hypot(q[0], q[1])
    place = _peak(height, allowed, float((window * image).abs().sum()), near is not None)
    start = (float(ky[place[0], 0]), float(kx[0, place[1]]))
    y, x = _refined(windowed, start)
    if near is None and (y if abs(y) >= abs(x) else x) < 0:
        y, x = -y, -x
    return y / steps[0], x / steps[1]


def _hann(n: int) -> Tensor:
    return torch.hann_window(n, periodic=True, dtype=torch.float64)


def _peak(height: Tensor, allowed: Tensor, scale: float, told: bool) -> tuple[int, int]:
    """Return the largest local maximum of a spectrum that stands out of what is as far from the centre."""
    around = 2 * _NEIGHBOURS + 1
    padded = torch.nn.functional.pad(height[None], (_NEIGHBOURS,) * 4, mode="circular")
    # Along rows, then along columns: 18 comparisons a pixel in place of 81.
    along_x = torch.nn.functional.max_pool2d(padded, (1, around), stride=1)
    largest = torch.nn.functional.max_pool2d(along_x, (around, 1), stride=1)[0]
    candidates = torch.where(allowed & (height >= largest), height, 0.0)
    place = divmod(int(candidates.argmax()), height.shape[1])
    found = float(candidates[place])
    ky, kx = frequency_grid((height.shape[0], height.shape[1]), 1.0)
    k = torch.hypot(ky, kx)
    as_far = (k - k[place]).abs() < _NEIGHBOURS / min(height.shape)
    if not found > max(_STANDS_OUT * float(height[as_far].median()), _BLANK * scale):
        where = "near the carrier that was given" if told else f"of fringes of 2 to {WIDEST:g} pixels"
        raise InputError(
            f"no side band {where} stands out of the spectrum: is this an off-axis hologram? Of other "
            "fringes say where the side band is, carrier=(qy, qx) in 1/Å"
        )
    return place


def _refined(windowed: Tensor, start: tuple[float, float]) -> tuple[float, float]:
    """Return where the Fourier transform of an image is largest, cycles per pixel, by parabolas."""
    n_y, n_x = windowed.shape
    y, x = start
    rows, columns = (torch.arange(n, dtype=torch.float64) for n in (n_y, n_x))
    offsets = torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64)
    for step in _REFINEMENTS:
        ky, kx = y + offsets * step / n_y, x + offsets * step / n_x
        turn_y = torch.exp(-2j * math.pi * ky[:, None] * rows)
        turn_x = torch.exp(-2j * math.pi * kx[:, None] * columns)
        level = (turn_y @ windowed.to(turn_y.dtype) @ turn_x.T).abs().log()
        y += step / n_y * _vertex(level[:, 1])
        x += step / n_x * _vertex(level[1])
    return y, x


def _vertex(values: Tensor) -> float:
    """Return where a parabola through values at -1, 0, 1 is largest, one step away at most."""
    low, middle, high = (float(each) for each in values)
    bend = low - 2 * middle + high
    shift = 0.5 * (low - high) / bend if bend < 0 else math.copysign(1.0, high - low)
    return max(-1.0, min(1.0, shift))
