"""4D-STEM: diffraction patterns of a focused probe at many positions, through one slice or several.

The forward model that simulation and ptychography share. Positions are those of the probe in the field of
the object, which is periodic; the probe has a window of its own, which may be smaller. Between pixels the
probe is moved by Fourier interpolation, so that patterns depend smoothly on positions.
"""

from __future__ import annotations

import torch
from torch import Tensor

from exitwave.errors import InputError
from exitwave.optics.aberrations import Aberrations
from exitwave.optics.grids import Value, frequency_grid, sampling_pair
from exitwave.optics.transfer import Edge, transfer_function

_NONE = Aberrations()


def probe(
    shape: tuple[int, int], sampling: float | tuple[float, float], *, energy: float, semiangle: Value,
    aberrations: Aberrations = _NONE, edge: Edge = "pixel", dtype: torch.dtype = torch.complex64,
    device: torch.device | str | None = None,
) -> Tensor:  # fmt: skip
    """Return a focused probe, the inverse transform of its aperture times exp(-iχ).

    Parameters
    ----------
    shape : (int, int)
        Pixels (y, x) of its window.
    sampling : float or (float, float)
        Å.
    energy : float
        eV.
    semiangle : float or Tensor
        Of the aperture, rad.
    aberrations : Aberrations
        Å and rad.
    edge : float or "pixel"
        See :func:`exitwave.optics.aperture`.
    dtype, device
        Of the result.

    Returns
    -------
    Tensor, shape (y, x), complex
        FFT order: its middle is at pixel (0, 0). The sum of its intensity is 1.

    Raises
    ------
    InputError
        As :func:`exitwave.optics.transfer_function`.
    """
    pupil = transfer_function(
        shape, sampling, energy=energy, aberrations=aberrations, aperture=semiangle, aperture_edge=edge,
        dtype=dtype, device=device,
    )  # fmt: skip
    return torch.as_tensor(torch.fft.ifft2(pupil / pupil.abs().square().sum().sqrt(), norm="ortho"))


def patterns(
    slices: Tensor, probe: Tensor, positions: Tensor, sampling: float | tuple[float, float], *,
    propagator: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Return diffraction patterns, |F(ψ)|², of a probe at some positions.

    Parameters
    ----------
    slices : Tensor, shape (slice, field_y, field_x), complex
        Transmission functions, the first one is met first; the field repeats.
    probe : Tensor, shape (y, x), complex
        FFT order, as :func:`probe` has it; at most as large as the field.
    positions : Tensor, shape (position, 2), real
        (y, x) of the middle of the probe, Å; pixel (0, 0) of the field is at 0.
    sampling : float or (float, float)
        Of field and probe, Å.
    propagator : Tensor, shape (y, x), complex, optional
        From slice to slice, FFT order (:func:`exitwave.optics.propagator`); needed for more than one.

    Returns
    -------
    Tensor, shape (position, ky, kx), real
        FFT order. A probe of intensity 1 gives a sum of 1 where nothing absorbs.

    Raises
    ------
    InputError
        For shapes that do not match, a probe larger than the field, positions that are not finite, or
        several slices without a propagator.
    """
    _check(slices, probe, positions, propagator)
    steps = torch.tensor(sampling_pair(sampling), dtype=positions.dtype, device=positions.device)
    nearest = (positions.detach() / steps).round()
    wave = _moved(probe, positions - nearest * steps, sampling)
    rows, columns = (
        (nearest[:, axis, None].long() + _offsets(size, positions.device)) % slices.shape[1 + axis]
        for axis, size in enumerate(probe.shape)
    )
    for i, one in enumerate(slices):
        if i and propagator is not None:
            wave = torch.fft.ifft2(torch.fft.fft2(wave) * propagator)
        wave = wave * one[rows[:, :, None], columns[:, None, :]]
    return torch.as_tensor(torch.fft.fft2(wave, norm="ortho").abs().square())


def _offsets(size: int, device: torch.device) -> Tensor:
    """Return the pixels of a window in FFT order, from its middle."""
    found: Tensor = torch.fft.fftfreq(size, 1 / size, device=device).round().long()
    return found


def _moved(probe: Tensor, shifts: Tensor, sampling: float | tuple[float, float]) -> Tensor:
    """Return a probe (y, x) moved by some shifts (position, 2), Å: shape (position, y, x)."""
    ky, kx = frequency_grid((probe.shape[0], probe.shape[1]), sampling, probe.device, shifts.dtype)
    turns = -2 * torch.pi * (shifts[:, 0, None, None] * ky + shifts[:, 1, None, None] * kx)
    ramp = torch.polar(torch.ones_like(turns), turns).to(probe.dtype)
    return torch.as_tensor(torch.fft.ifft2(torch.fft.fft2(probe) * ramp))


def _check(slices: Tensor, probe: Tensor, positions: Tensor, propagator: Tensor | None) -> None:
    if slices.ndim != 3 or not slices.is_complex() or probe.ndim != 2 or not probe.is_complex():
        raise InputError(
            f"slices {tuple(slices.shape)} and probe {tuple(probe.shape)}: give complex (slice, y, x) and "
            "(y, x)"
        )
    if any(one > two for one, two in zip(probe.shape, slices.shape[1:], strict=True)):
        raise InputError(
            f"a probe of {tuple(probe.shape)} pixels in a field of {tuple(slices.shape[1:])}: enlarge the "
            "field"
        )
    if positions.ndim != 2 or positions.shape[1] != 2 or positions.is_complex():
        raise InputError(f"positions of shape {tuple(positions.shape)}: give (position, 2), y and x in Å")
    if not bool(positions.detach().isfinite().all()):
        bad = int((~positions.detach().isfinite().all(1)).nonzero()[0])
        raise InputError(f"position {bad} is not finite: leave it out")
    if len(slices) > 1 and (propagator is None or propagator.shape != probe.shape):
        given = None if propagator is None else tuple(propagator.shape)
        raise InputError(
            f"{len(slices)} slices and a propagator of shape {given}: give one of {tuple(probe.shape)}"
        )
