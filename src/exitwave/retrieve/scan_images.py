"""Images straight from 4D-STEM patterns: virtual detectors, centres of mass, their integral."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from exitwave.errors import InputError
from exitwave.optics import wavelength
from exitwave.optics.grids import frequency_grid


def annulus(
    shape: tuple[int, int], sampling: float | tuple[float, float], *, energy: float, inner: float = 0.0,
    outer: float = math.inf,
) -> Tensor:  # fmt: skip
    """Return a round or annular detector.

    Parameters
    ----------
    shape : (int, int)
        Pixels (ky, kx) of the patterns.
    sampling : float or (float, float)
        Of the probe, Å: patterns have pixels of 1 / (shape · sampling).
    energy : float
        eV.
    inner, outer : float
        Angles, rad; what is at least the inner and below the outer one counts.

    Returns
    -------
    Tensor, shape (ky, kx), float64
        1 and 0, FFT order.

    Raises
    ------
    InputError
        If no pixel is between the angles.
    """
    angle = torch.hypot(*frequency_grid(shape, sampling)) * wavelength(energy)
    found = ((angle >= inner) & (angle < outer)).double()
    if not bool(found.any()):
        raise InputError(
            f"no pixel between {1e3 * inner:g} and {1e3 * outer:g} mrad: patterns end at "
            f"{1e3 * float(angle.max()):.3g} mrad"
        )
    return found


def virtual_image(patterns: Tensor, detector: Tensor) -> Tensor:
    """Return the intensity on a detector, shape (...), of patterns (..., ky, kx).

    Raises
    ------
    InputError
        For shapes that do not match.
    """
    _check(patterns, (int(detector.shape[-2]), int(detector.shape[-1])))
    return (patterns * detector.to(patterns)).sum((-2, -1))


def centre_of_mass(patterns: Tensor, sampling: float | tuple[float, float]) -> Tensor:
    """Return centres of mass, shape (..., 2), y and x, 1/Å, of patterns (..., ky, kx) in FFT order.

    Of a pure phase object it is the mean of ∇φ/2π over the intensity of the probe, however strong the phase
    is (Müller et al., Nat. Commun. 5, 5653 (2014)).

    Raises
    ------
    InputError
        If a pattern is empty.
    """
    _check(patterns, None)
    total = patterns.sum((-2, -1))
    if not bool((total > 0).all()):
        raise InputError(
            f"{int((total <= 0).sum())} patterns hold no electrons: leave them out, or sum over neighbours"
        )
    ky, kx = frequency_grid(
        (patterns.shape[-2], patterns.shape[-1]), sampling, patterns.device, patterns.dtype
    )
    sums = [(patterns * k).sum((-2, -1)) for k in (ky, kx)]
    return torch.stack(sums, -1) / total[..., None]


def integrate(centres: Tensor, step: float | tuple[float, float]) -> Tensor:
    """Return the phase whose gradient is 2π times centres of mass: iCOM.

    Parameters
    ----------
    centres : Tensor, shape (scan_y, scan_x, 2)
        1/Å. The scan counts as periodic.
    step : float or (float, float)
        Of the scan, Å.

    Returns
    -------
    Tensor, shape (scan_y, scan_x)
        rad, of mean 0: the phase of the object, blurred by the intensity of the probe (Lazić et al.,
        Ultramicroscopy 160, 265 (2016)).

    Raises
    ------
    InputError
        For another shape.
    """
    if centres.ndim != 3 or centres.shape[-1] != 2:
        raise InputError(f"centres of mass of shape {tuple(centres.shape)}: give (scan_y, scan_x, 2)")
    ky, kx = frequency_grid((centres.shape[0], centres.shape[1]), step, centres.device, centres.dtype)
    spectra = torch.fft.fft2(centres, dim=(0, 1))
    squared = (ky**2 + kx**2).clone()
    squared[0, 0] = 1.0
    spectrum = (ky * spectra[..., 0] + kx * spectra[..., 1]) / (1j * squared)
    return torch.as_tensor(torch.fft.ifft2(spectrum).real)


def _check(patterns: Tensor, shape: tuple[int, int] | None) -> None:
    if patterns.ndim < 2 or patterns.is_complex():
        raise InputError(
            f"patterns of shape {tuple(patterns.shape)}, {patterns.dtype}: give real (..., ky, kx)"
        )
    if shape is not None and tuple(patterns.shape[-2:]) != shape:
        raise InputError(
            f"patterns of {tuple(patterns.shape[-2:])} pixels on a detector of {shape}: use one shape"
        )
    if not bool(patterns.isfinite().all()):
        raise InputError("the patterns hold values that are not finite: mask dead pixels first")
