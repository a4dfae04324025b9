"""Eq. 1 and Eq. 26 of the paper: a potential from a wave, and what a pixel of a camera measures."""

from __future__ import annotations

import cmath
import math

from torch import Tensor

from exitwave.errors import InputError
from exitwave.optics import wavelength


def two_beam_potential(
    wave: Tensor, energy: float, depth: float, *, extinction: float = math.inf, phase: float = 0.0
) -> Tensor:
    """Return the potential from an exit wave, Eq. 1, for a crystal of two Bloch waves.

    Im(ψ exp(iφ) - <ψ>) / (λ ξ sin(π z/ξ)), with <ψ> turned by the same φ, which the printed equation leaves
    open. For ξ much larger than the depth z the denominator is π λ z: a weak phase object.

    Parameters
    ----------
    wave : Tensor, shape (..., y, x), complex
    energy : float
        eV.
    depth : float
        z, Å.
    extinction : float
        ξ, Å.
    phase : float
        φ, rad.

    Returns
    -------
    Tensor, shape (..., y, x)
        U - <U>, U = 2 m e V / h² (m relativistic), 1/Å², averaged along the beam.

    Raises
    ------
    InputError
        For a depth where the two Bloch waves are in step again, which leaves nothing to divide by.
    """
    beat = 1.0 if math.isinf(extinction) else math.sin(math.pi * depth / extinction)
    if abs(beat) < 1e-6:
        raise InputError(f"depth {depth:g} Å is a multiple of the extinction distance: use another")
    along = math.pi * depth if math.isinf(extinction) else extinction * beat
    scattered = (wave - wave.mean((-2, -1), keepdim=True)) * cmath.exp(1j * phase)
    return scattered.imag / (wavelength(energy) * along)


def pixel_average(wave: Tensor, pixels: int) -> Tensor:
    """Return the intensity averaged over the supports of camera pixels, Eq. 2 (over the area of a pixel).

    Parameters
    ----------
    wave : Tensor, shape (..., y, x), complex
        Sampled so many times finer than the camera, along each side.
    pixels : int
        Samples along a side of a camera pixel; odd, so that one is in its middle.

    Returns
    -------
    Tensor, shape (..., y / pixels, x / pixels)

    Raises
    ------
    InputError
        For an even number, or a size that is no multiple of it.
    """
    if pixels < 1 or pixels % 2 == 0 or any(size % pixels for size in wave.shape[-2:]):
        raise InputError(
            f"{pixels} samples to a pixel of {tuple(wave.shape[-2:])}: give an odd divisor of both"
        )
    intensity = wave.abs().square()
    shape = (*wave.shape[:-2], wave.shape[-2] // pixels, pixels, wave.shape[-1] // pixels, pixels)
    return intensity.reshape(shape).mean((-3, -1))


def middle_intensity(wave: Tensor, pixels: int) -> Tensor:
    """Return the intensity in the middle of each camera pixel, Eq. 26; arguments as :func:`pixel_average`."""
    first = pixels // 2
    intensity: Tensor = wave[..., first::pixels, first::pixels].abs().square()
    return intensity


def roughness(wave: Tensor, pixels: int) -> Tensor:
    """Return the root mean square difference of Eq. 26 from Eq. 2, over the mean intensity, shape (...)."""
    averaged = pixel_average(wave, pixels)
    apart = (middle_intensity(wave, pixels) - averaged).square().mean((-2, -1)).sqrt()
    return apart / averaged.mean((-2, -1))


def supports(pixels: int, sampling: float, finer: int) -> tuple[int, float, float]:
    """Return size, sampling and first place of a grid so many times finer, whose pixels share middles."""
    return pixels * finer, sampling / finer, -sampling * (finer // 2) / finer
