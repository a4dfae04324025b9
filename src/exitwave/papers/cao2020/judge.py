"""How good an image of a scan is, whatever its unit: contrast, resolution, likeness, and the missing atom."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from skimage.metrics import structural_similarity
from torch import Tensor

from exitwave.errors import InputError
from exitwave.metrics import fourier_ring_correlation, resolution
from exitwave.papers.cao2020.scene import Scan, resampled, sampled
from exitwave.records import Array

# Of the Fourier ring correlation with the truth, which has no noise: signal and error are level.
THRESHOLD = 0.5
# Share of the power of the strongest ring that makes a ring count.
_SIGNAL = 0.01
# By which images are made finer before splines go through them.
_FINER = 4


@dataclass(frozen=True)
class Score:
    """What an image is worth beside the truth.

    Attributes
    ----------
    contrast : float
        See :func:`contrast`.
    resolution : float
        Å; where the Fourier ring correlation with the truth falls below 1/2, see :func:`resolved`.
    likeness : float
        Structural similarity with the truth, of the image brought to its scale by least squares.
    error : float
        Standard deviation of the difference from the truth, rad; nan of an image that is no phase.
    scaled_error : float
        That of the image brought to the truth's scale, rad.
    """

    contrast: float
    resolution: float
    likeness: float
    error: float
    scaled_error: float


Region = tuple[slice, slice]


def judge(image: Tensor, scan: Scan, region: Region, *, phase: bool) -> Score:
    """Judge an image (scan_y, scan_x) over a region of the scan.

    Parameters
    ----------
    image : Tensor, shape (scan_y, scan_x)
        In any unit.
    scan : Scan
    region : (slice, slice)
        Rows and columns.
    phase : bool
        The image is a phase, rad, but for a constant.
    """
    seen, truth = image.double().cpu()[region].numpy(), scan.phase[region].numpy()
    scaled = fitted(seen, truth)
    error = seen - truth
    return Score(
        contrast(image.double().cpu().numpy(), scan, region),
        resolved(seen, truth, scan.step),
        likeness(scaled, truth),
        float(error.std()) if phase else math.nan,
        float((scaled - truth).std()),
    )


def contrast(image: Array, scan: Scan, region: Region) -> float:
    """Return how far columns stand out from the hollows between them, over the noise of both.

    :func:`modulation`, over the root mean square of the standard deviations among places that are alike.

    Parameters
    ----------
    image : ndarray, shape (scan_y, scan_x)
    scan : Scan
    region : (slice, slice)
        Where places count.

    Raises
    ------
    InputError
        If there are fewer than two hollows, or no two columns alike, in the region.
    """
    kinds = _of_kinds(image, scan, region)
    noise = float(np.mean([each.var() for each in kinds])) ** 0.5
    return _modulation(kinds) / max(float(noise), 1e-12)


def modulation(image: Array, scan: Scan, region: Region) -> float:
    """Return the mean over kinds of columns less that of hollows, in the unit of the image."""
    return _modulation(_of_kinds(image, scan, region))


def _modulation(kinds: list[Array]) -> float:
    means = [float(each.mean()) for each in kinds]
    return float(np.mean(means[1:])) - means[0]


def _of_kinds(image: Array, scan: Scan, region: Region) -> list[Array]:
    """Return an image at the hollows and at each kind of columns, of which there are two or more."""
    # Finer first: splines err where an image has all frequencies of its pixels.
    times = _FINER * max(image.shape)
    fine = resampled(torch.as_tensor(image), times).numpy()
    finer = np.array([times / n for n in image.shape])
    found = []
    for places in scan.specimen.kinds():
        at = scan.pixels(places)
        found.append(sampled(fine, at[_within(at, region, image.shape)] * finer))
    hollows, *columns = found
    columns = [each for each in columns if len(each) > 1]
    if len(hollows) < 2 or not columns:
        raise InputError(
            f"{len(hollows)} hollows and {len(columns)} kinds of columns in the region: scan a larger field"
        )
    return [hollows, *columns]


def _within(at: Array, region: Region, shape: tuple[int, ...]) -> Array:
    """Tell which places (place, 2), in pixels, are in a region."""
    inside: Array = np.ones(len(at), bool)
    for axis, part in enumerate(region):
        start, stop, _ = part.indices(shape[axis])
        inside &= (at[:, axis] >= start) & (at[:, axis] <= stop - 1)
    return inside


def resolved(image: Array, truth: Array, step: tuple[float, float]) -> float:
    """Return the resolution, Å, of an image that need not be periodic.

    Of the Fourier ring correlation only rings count in which the truth has power: a crystal has none between
    its reflections, where chance decides. Where the first of them is lost, it is the length of the field.

    Parameters
    ----------
    image, truth : ndarray, shape (y, x)
    step : (float, float)
        Å.
    """
    window = np.outer(*(np.hanning(n + 2)[1:-1] for n in image.shape))
    one, two = ((each - each.mean()) * window for each in (image, truth))
    frequency, curve = fourier_ring_correlation(one, two, step)
    ky, kx = (np.fft.fftfreq(n, by) for n, by in zip(image.shape, step, strict=True))
    ring = np.hypot(ky[:, None], kx) * (2 * max(step) * len(frequency))
    density = np.abs(np.fft.fft2(two)) ** 2
    power = np.bincount(ring.astype(int).ravel(), weights=density.ravel(), minlength=len(frequency))
    signal = power[: len(frequency)] >= _SIGNAL * power[: len(frequency)].max()
    found = resolution(frequency[signal], curve[signal], THRESHOLD)
    longest = max(n * by for n, by in zip(image.shape, step, strict=True))
    return float(min(found, longest))


def fitted(image: Array, truth: Array, region: Region = (slice(None), slice(None))) -> Array:
    """Return an image brought to scale and mean of the truth by least squares over a region."""
    seen, wanted = image[region], truth[region]
    centred = seen - seen.mean()
    power = float((centred**2).sum())
    # A negative is no likeness.
    slope = max(0.0, float((centred * (wanted - wanted.mean())).sum())) / power if power > 0 else 0.0
    found: Array = wanted.mean() + slope * (image - seen.mean())
    return found


def likeness(image: Array, truth: Array) -> float:
    """Return the structural similarity (Wang et al., IEEE Trans. Image Process. 13, 600 (2004))."""
    measure: Any = structural_similarity
    return float(measure(image, truth, data_range=float(np.ptp(truth))))


@dataclass(frozen=True)
class Missing:
    """How a missing atom shows.

    Attributes
    ----------
    share : float
        Drop at the column that lacks it, in the image brought to the truth's scale, over the true drop.
    significance : float
        The drop over the standard deviation of whole columns of the kind.
    """

    share: float
    significance: float


def missing(image: Tensor, scan: Scan, region: Region) -> Missing:
    """Judge the column of two sulphur atoms that has one, beside those of a region that have both."""
    specimen = scan.specimen
    if specimen.vacancy is None:
        raise InputError(f"{specimen.name} lacks no atom: give a specimen that does")
    places, charges = specimen.columns()
    apart = np.abs(places - specimen.vacancy)
    apart = np.minimum(apart, specimen.size - apart)
    gone = int(np.hypot(*apart.T).argmin())
    # Whole columns hold twice as much.
    whole = np.isclose(charges, 2 * charges[gone])
    at = scan.pixels(places)
    whole &= _within(at, region, scan.phase.shape)
    truth = scan.phase.numpy()
    scaled = fitted(image.double().cpu().numpy(), truth, region)
    drops = []
    for values in (scaled, truth):
        of_whole, of_gone = sampled(values, at[whole]), sampled(values, at[gone : gone + 1])[0]
        drops.append((of_whole.mean() - of_gone, of_whole.std()))
    (drop, spread), (true_drop, _) = drops
    return Missing(float(drop / true_drop), float(drop / max(spread, 1e-12)))
