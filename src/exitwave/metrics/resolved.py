"""What is resolved: Fourier ring correlation, its threshold, the width of an edge."""

from __future__ import annotations

import math
import warnings
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from exitwave.errors import InputError
from exitwave.metrics.arrays import Array, NumpyArray, intensity, pair, ratio, sampling_pair

_FWHM = 2.0 * math.sqrt(2.0 * math.log(2.0))  # of a Gaussian of unit standard deviation


def _rings(
    shape: tuple[int, int], sampling: float | tuple[float, float], bins: int | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return for the whole grid the ring of each frequency (-1: none), then per ring its mean and count."""
    dy, dx = sampling_pair(sampling)
    ky = torch.fft.fftfreq(shape[0], dy, dtype=torch.float64)
    kx = torch.fft.fftfreq(shape[1], dx, dtype=torch.float64)
    q = torch.hypot(ky[:, None], kx[None, :])
    highest = 0.5 / max(dy, dx)
    step = max(1.0 / (shape[0] * dy), 1.0 / (shape[1] * dx))
    finest = max(int(highest / step - 0.5 + 1e-9), 1)
    count = finest if bins is None else bins
    if not isinstance(count, int) or count < 1:
        raise InputError(f"bins is {bins!r}: give a positive number of rings")
    # A frequency on the border of two rings belongs to the inner one, whatever the rounding.
    ring = torch.ceil(q / (highest / count) * (1.0 - 1e-9)).long() - 1
    ring[ring >= count] = -1
    inside = ring >= 0
    counts = torch.bincount(ring[inside], minlength=count)
    if bool((counts == 0).any()):
        raise InputError(
            f"{count} rings for {shape[0]} x {shape[1]} pixels leave some empty: use {finest} at most"
        )
    mean = torch.bincount(ring[inside], weights=q[inside], minlength=count) / counts
    return ring, mean, counts


def ring_counts(
    shape: tuple[int, int], sampling: float | tuple[float, float], bins: int | None = None
) -> NumpyArray:
    """Return how many frequencies each ring of :func:`fourier_ring_correlation` holds, shape (bins,).

    Both of each pair ±q are counted, also for real images.
    """
    return np.asarray(_rings(shape, sampling, bins)[2].numpy())


def fourier_ring_correlation(
    a: Array, b: Array, sampling: float | tuple[float, float], bins: int | None = None
) -> tuple[Array, Array]:
    """Return the Fourier ring correlation Re Σ A conj(B) / sqrt(Σ|A|² Σ|B|²) over rings of frequency.

    The rings are of equal width from 0 to the Nyquist frequency, the lower one if pixels are oblong, and
    without the mean. Images are taken as periodic; put a window on those that are not. It sees the
    global phase of a wave: take :func:`align_phase` first. M. van Heel and M. Schatz, J. Struct. Biol.
    151 (2005) 250.

    Parameters
    ----------
    a, b : array, shape (..., y, x), real or complex
    sampling : float or (float, float)
        Pixel size, Å, one number or (y, x).
    bins : int, optional
        Number of rings; by default each is one Fourier pixel wide, the coarser one.

    Returns
    -------
    frequency : array, shape (bins,)
        Mean frequency of the samples of each ring, 1/Å.
    frc : array, shape (..., bins)
        From -1 to 1; 0 for a ring where an image has no power beyond rounding.

    Raises
    ------
    InputError
        If values are not finite, shapes do not match, or a ring would be empty.
    """
    first, second, back = pair(a, b)
    ring, frequency, counts = _rings((first.shape[-2], first.shape[-1]), sampling, bins)
    index = ring.flatten().to(first.device)
    chosen, index = index >= 0, index[index >= 0]

    def over_rings(values: Tensor) -> Tensor:
        total = torch.zeros(*values.shape[:-2], len(counts), dtype=values.dtype, device=values.device)
        return total.index_add(-1, index, values.flatten(-2)[..., chosen])

    def norm(spectrum: Tensor) -> Tensor:
        # Rounding spreads over all rings; what does not exceed it counts as nothing.
        density = intensity(spectrum)
        rounding = (20.0 * torch.finfo(density.dtype).eps) ** 2 * density.mean(dim=(-2, -1))[..., None]
        power = over_rings(density)
        return torch.where(power > rounding * counts.to(power), power, 0.0).sqrt()

    A, B = torch.fft.fft2(first), torch.fft.fft2(second)
    frc = ratio(over_rings((A * B.conj()).real), norm(A) * norm(B))
    return back(frequency.to(frc)), back(frc)


def _plain(values: Tensor | NumpyArray) -> NumpyArray:
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)


def resolution(
    frequency: Tensor | NumpyArray,
    frc: Tensor | NumpyArray,
    threshold: float | Literal["1/7", "half-bit"] = "1/7",
    *,
    counts: NumpyArray | None = None,
) -> float:
    """Return the resolution in Å: one over the frequency where the curve first falls below a threshold.

    Parameters
    ----------
    frequency, frc : array, shape (bins,)
        One curve of :func:`fourier_ring_correlation`, 1/Å.
    threshold : float, "1/7" or "half-bit"
        "half-bit" is (0.2071 + 1.9102/√n) / (1.2071 + 0.9102/√n), n frequencies in the ring (van
        Heel and Schatz 2005).
    counts : array, shape (bins,)
        n, for "half-bit", from :func:`ring_counts`.

    Returns
    -------
    float
        Linear in frequency between the two rings around the crossing. Infinity if the first ring is below
        already; if none is, the best that the sampling lets one say, one over the last frequency.

    Raises
    ------
    InputError
        For an unknown threshold, missing counts, unequal lengths or values that are not finite.
    """
    q, curve = _plain(frequency).astype(float), _plain(frc).astype(float)
    if q.ndim != 1 or q.shape != curve.shape or not q.size:
        raise InputError(f"frequency {q.shape} and curve {curve.shape} are not one curve: pass one at a time")
    if not (np.isfinite(q).all() and np.isfinite(curve).all()):
        raise InputError("the curve has values that are not finite: recompute it")
    excess = curve - _threshold(threshold, counts, q.shape)
    below = np.flatnonzero(excess < 0)
    if not below.size:
        return float(1.0 / q[-1])
    i = int(below[0])
    if i == 0:
        return math.inf
    crossing = q[i - 1] + (q[i] - q[i - 1]) * excess[i - 1] / (excess[i - 1] - excess[i])
    return float(1.0 / crossing)


def _threshold(
    threshold: float | str, counts: NumpyArray | None, shape: tuple[int, ...]
) -> float | NumpyArray:
    if threshold == "1/7":
        return 1.0 / 7.0
    if threshold == "half-bit":
        if counts is None or np.shape(counts) != shape:
            raise InputError(
                "half-bit needs the number of frequencies in each ring: pass counts=ring_counts(...)"
            )
        root = np.sqrt(np.asarray(counts, dtype=float))
        return np.asarray((0.2071 + 1.9102 / root) / (1.2071 + 0.9102 / root))
    if isinstance(threshold, str) or not math.isfinite(threshold):
        raise InputError(f"unknown threshold {threshold!r}: use '1/7', 'half-bit' or a number")
    return float(threshold)


def edge_fwhm(profile: NumpyArray | Tensor, sampling: float) -> float:
    """Return the full width at half maximum of the peak that an edge makes in |phase gradient|.

    A Gaussian on a linear background is fitted, as in Zhou et al. 2020, Methods B; a phase that rises as
    an error function gives such a peak.

    Parameters
    ----------
    profile : array, shape (n,)
        |phase gradient| across the edge, any unit, 6 points or more.
    sampling : float
        Distance between the points, Å.

    Returns
    -------
    float
        FWHM, Å; never below `sampling`, since a narrower peak is not resolved. NaN if no peak can be
        fitted: the fit does not converge, its centre or width leaves the profile, or the Gaussian
        improves on the straight line by no more than noise would (F test, p >= 1e-4).

    Raises
    ------
    InputError
        If the profile is not one line of at least 6 finite real values or the sampling is not positive.
    """
    step = sampling_pair(sampling)[0]
    y = _plain(profile)
    if y.ndim != 1 or y.size < 6 or np.iscomplexobj(y):
        raise InputError(
            f"profile of shape {y.shape} and type {y.dtype}: give at least 6 real values on a line"
        )
    if not np.isfinite(y).all():
        raise InputError("the profile has values that are not finite: mask or replace them")
    y = y.astype(float)
    if np.ptp(y) == 0:
        return math.nan
    fitted = _fit_peak((y - y.min()) / np.ptp(y))
    return math.nan if fitted is None else float(fitted * step)


def _peak(
    x: NumpyArray, height: float, centre: float, fwhm: float, offset: float, slope: float
) -> NumpyArray:
    return np.asarray(height * np.exp(-0.5 * ((x - centre) * _FWHM / fwhm) ** 2) + offset + slope * x)


def _fit_peak(y: NumpyArray) -> float | None:
    """Return the FWHM in points of a Gaussian on a line, fitted to values between 0 and 1, or None."""
    from scipy.optimize import curve_fit
    from scipy.special import fdtrc

    x = np.arange(y.size, dtype=float)
    line = np.polynomial.Polynomial.fit(x, y, 1)(x)
    unexplained = float(np.sum((y - line) ** 2))
    if unexplained < 1e-20:
        return None
    above = y > 0.5 * (1.0 + np.median(y))
    start = (1.0 - np.median(y), float(np.argmax(y)), max(1.5, float(above.sum())), float(np.median(y)), 0.0)
    bounds = ([0.0, 0.0, 1.0, -np.inf, -np.inf], [np.inf, y.size - 1.0, 10.0 * y.size, np.inf, np.inf])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that the covariance is singular: it is not used
            best, _ = curve_fit(_peak, x, y, p0=start, bounds=bounds)
    except RuntimeError:
        return None
    remaining = max(float(np.sum((y - _peak(x, *best)) ** 2)), 1e-20)
    freedom = y.size - 5
    chance = float(fdtrc(3, freedom, max(unexplained - remaining, 0.0) / 3 / (remaining / freedom)))
    inside = 0.5 <= best[1] <= y.size - 1.5 and best[2] <= y.size - 1
    return float(best[2]) if inside and chance < 1e-4 else None
