"""Errors of waves and phases, after the global phase or offset that images cannot fix."""

from __future__ import annotations

import torch
from torch import Tensor

from exitwave.errors import InputError
from exitwave.metrics.arrays import Array, centred, intensity, pair, pixel_sum, sampling_pair


def _aligned(wave: Tensor, reference: Tensor) -> Tensor:
    overlap = (wave * reference.conj()).sum(dim=(-2, -1), keepdim=True)
    turn = torch.sgn(overlap).conj()
    return wave * torch.where(overlap == 0, torch.ones_like(turn), turn)


def align_phase(wave: Array, reference: Array) -> Array:
    """Return the wave times the global phase factor that brings it nearest to the reference.

    The factor exp(-i arg Σ ψ conj(ψ0)) minimises Σ |ψ - ψ0|²; it is 1 if that sum vanishes. Amplitudes
    are left as they are.

    Parameters
    ----------
    wave, reference : array, shape (..., y, x), complex

    Returns
    -------
    array, shape (..., y, x)

    Raises
    ------
    InputError
        If values are not finite or shapes do not match.
    """
    a, b, back = pair(wave, reference)
    result: Array = back(_aligned(a, b))
    return result


def wave_rmse(wave: Array, reference: Array, *, aligned: bool = True) -> Array:
    """Return the root mean square error of a wave, sqrt(mean |ψ - ψ0|²).

    The mean is over pixels. Over pixels and the two channels Re and Im, as networks are often scored, it
    is smaller by √2.

    Parameters
    ----------
    wave, reference : array, shape (..., y, x), complex
    aligned : bool
        Take the error after the optimal global phase, :func:`align_phase`.

    Returns
    -------
    array, shape (...)

    Raises
    ------
    InputError
        If values are not finite or shapes do not match.
    """
    a, b, back = pair(wave, reference)
    difference = (_aligned(a, b) if aligned else a) - b
    result: Array = back(intensity(difference).mean(dim=(-2, -1)).sqrt())
    return result


def relative_wave_error(wave: Array, reference: Array, *, aligned: bool = False) -> Array:
    """Return Δ = ∫|ψ - ψ0|² / ∫|ψ0 - 1|², Leth Larsen et al. 2022, Eq. A.1.

    The denominator is the scattered signal, so the vacuum around a specimen does not dilute the error. As
    printed no phase is optimised: vacuum must be 1 in both waves. `aligned` turns `wave` by the optimal
    global phase first.

    Parameters
    ----------
    wave, reference : array, shape (..., y, x), complex

    Returns
    -------
    array, shape (...)

    Raises
    ------
    InputError
        If a reference is 1 everywhere, values are not finite or shapes do not match.
    """
    a, b, back = pair(wave, reference)
    signal = pixel_sum(intensity(b - 1.0))
    if bool((signal == 0).any()):
        raise InputError("a reference wave is 1 everywhere: its relative error is undefined, use wave_rmse")
    difference = (_aligned(a, b) if aligned else a) - b
    result: Array = back(pixel_sum(intensity(difference)) / signal)
    return result


def phase_rmse(phase: Array, reference: Array) -> Array:
    """Return the root mean square error of a phase in rad, after the optimal constant offset.

    The phases are compared as they are, not modulo 2π: unwrap them first.

    Parameters
    ----------
    phase, reference : array, shape (..., y, x), real
        rad.

    Returns
    -------
    array, shape (...)

    Raises
    ------
    InputError
        If values are complex or not finite, or shapes do not match.
    """
    a, b, back = pair(phase, reference, real=True)
    result: Array = back(centred(a - b).square().mean(dim=(-2, -1)).sqrt())
    return result


def gradient_rmse(phase: Array, reference: Array, sampling: float | tuple[float, float] = 1.0) -> Array:
    """Return the relative error of the phase gradient, sqrt(Σ|∇φ - ∇φ0|² / Σ|∇φ0|²).

    Central differences, one-sided at the borders. The gradient of a magnetic phase is the induction, so
    this is the relative error of the induction map; unlike :func:`phase_rmse` it hardly sees errors of
    long wavelength.

    Parameters
    ----------
    phase, reference : array, shape (..., y, x), real
        rad, unwrapped, two pixels or more along each axis.
    sampling : float or (float, float)
        Pixel size, Å, one number or (y, x); it matters if the two differ.

    Returns
    -------
    array, shape (...)

    Raises
    ------
    InputError
        If a reference is flat, values are complex or not finite, or shapes do not match.
    """
    a, b, back = pair(phase, reference, real=True)
    if min(a.shape[-2:]) < 2:
        raise InputError(f"shape {tuple(a.shape)} is too small for a gradient: give at least 2 x 2 pixels")
    spacing = sampling_pair(sampling)

    def power(values: Tensor) -> Tensor:
        dy, dx = torch.gradient(values, spacing=spacing, dim=(-2, -1))
        return pixel_sum(dy.square() + dx.square())

    signal = power(b)
    if bool((signal == 0).any()):
        raise InputError(
            "a reference phase is flat: its relative gradient error is undefined, use phase_rmse"
        )
    result: Array = back((power(a - b) / signal).sqrt())
    return result
