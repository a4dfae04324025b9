"""4D-STEM: diffraction patterns of a focused probe at many positions, through one slice or several.

The forward model that simulation and ptychography share. Positions are those of the probe in the field of
the object, which is periodic; the probe has a window of its own, which may be smaller. Between pixels the
probe is moved by Fourier interpolation, so that patterns depend smoothly on positions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

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


def raster(shape: tuple[int, int], step: float | tuple[float, float], *, rotation: float = 0.0) -> Tensor:
    """Return the positions of a scan in lines.

    Parameters
    ----------
    shape : (int, int)
        Positions (scan_y, scan_x); x is the fast axis.
    step : float or (float, float)
        (y, x), Å.
    rotation : float
        Of the detector against the scan, rad: turns vectors of the detector from x towards y into those of
        the scan, as :class:`exitwave.retrieve.scan_orientation.Orientation` does. The fast axis then runs
        along (y, x) = (-sin, cos) of it.

    Returns
    -------
    Tensor, shape (scan_y · scan_x, 2), float64
        (y, x), Å, in the axes of the detector, around 0.

    Raises
    ------
    InputError
        For fewer than one position or steps that are not positive.
    """
    if min(shape) < 1:
        raise InputError(f"a scan of {shape} positions: give one or more along y and x")
    y, x = (
        (torch.arange(n, dtype=torch.float64) - (n - 1) / 2) * each
        for n, each in zip(shape, sampling_pair(step), strict=True)
    )
    there = torch.stack(torch.meshgrid(y, x, indexing="ij"), -1).reshape(-1, 2)
    sine, cosine = math.sin(rotation), math.cos(rotation)
    return there @ torch.tensor([[cosine, sine], [-sine, cosine]], dtype=torch.float64)


def framed(
    positions: Tensor, sampling: float | tuple[float, float], shape: tuple[int, int], *, margin: int = 2
) -> tuple[Tensor, tuple[int, int]]:
    """Return positions (position, 2), Å, moved into the smallest field that no window leaves, and its pixels.

    Between the windows (y, x) of `shape` and the edges of the field there are `margin` pixels.
    """
    steps = torch.tensor(sampling_pair(sampling), dtype=positions.dtype, device=positions.device)
    window = torch.tensor(shape, dtype=positions.dtype, device=positions.device)
    first, last = positions.amin(0), positions.amax(0)
    rows, columns = (((last - first) / steps).ceil() + window + 2 * margin).long().tolist()
    return positions - first + ((window / 2).floor() + margin) * steps, (int(rows), int(columns))


def patterns(
    slices: Tensor, probe: Tensor, positions: Tensor, sampling: float | tuple[float, float], *,
    propagator: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Return diffraction patterns, |F(ψ)|², of a probe at some positions.

    Parameters
    ----------
    slices : Tensor, shape (slice, field_y, field_x), complex
        Transmission functions, the first one is met first; the field repeats.
    probe : Tensor, shape (y, x) or (mode, y, x), complex
        FFT order, as :func:`probe` has it; at most as large as the field. Modes are incoherent: their
        intensities add up.
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
    modes = probe if probe.ndim == 3 else probe[None]
    seen = window(positions, sampling, modes.shape[1:], slices.shape[1:])
    wave = moved(modes, seen.rest, sampling)
    for i, one in enumerate(slices):
        if i and propagator is not None:
            wave = torch.fft.ifft2(torch.fft.fft2(wave) * propagator)
        wave = wave * seen.cut(one)[:, None]
    far = torch.fft.fft2(wave, norm="ortho")
    # Not abs().square(), which takes four times as long.
    return torch.as_tensor((far.real.square() + far.imag.square()).sum(1))


@dataclass(frozen=True)
class Window:
    """Where in a field the windows of a probe are.

    Attributes
    ----------
    pixels : Tensor, shape (position, y, x)
        Of the field, counted along its rows; windows are in FFT order from their middle.
    rest : Tensor, shape (position, 2)
        From the middle of that pixel to the position (y, x), Å.
    """

    pixels: Tensor
    rest: Tensor

    def cut(self, field: Tensor) -> Tensor:
        """Return what a field (field_y, field_x) shows in the windows, shape (position, y, x)."""
        return field.reshape(-1).gather(0, self.pixels.reshape(-1)).view(self.pixels.shape)

    def spread(self, values: Tensor, field: Sequence[int]) -> Tensor:
        """Return the sum over the windows of values (position, y, x) or (y, x) in a field (y, x)."""
        each = values.expand(self.pixels.shape).reshape(-1)
        empty = each.new_zeros(field[0] * field[1])
        return empty.scatter_add(0, self.pixels.reshape(-1), each).view(field[0], field[1])


def window(
    positions: Tensor, sampling: float | tuple[float, float], shape: Sequence[int], field: Sequence[int]
) -> Window:
    """Return the windows (y, x) around positions (position, 2), Å, in a field (y, x) that repeats."""
    steps = torch.tensor(sampling_pair(sampling), dtype=positions.dtype, device=positions.device)
    nearest = (positions.detach() / steps).round()
    rows, columns = (
        (nearest[:, axis, None].long() + torch.fft.fftfreq(n, 1 / n, device=positions.device).round().long())
        % m
        for axis, (n, m) in enumerate(zip(shape, field, strict=True))
    )
    return Window(rows[:, :, None] * field[1] + columns[:, None, :], positions - nearest * steps)


def moved(modes: Tensor, shifts: Tensor, sampling: float | tuple[float, float]) -> Tensor:
    """Return modes (mode, y, x), FFT order, moved by shifts (position, 2), Å: (position, mode, y, x)."""
    ky, kx = frequency_grid((modes.shape[-2], modes.shape[-1]), sampling, modes.device, shifts.dtype)
    ramps = [
        torch.polar(torch.ones_like(turns), turns).to(modes.dtype)
        for turns in (-2 * torch.pi * shifts[:, i, None] * k.ravel() for i, k in enumerate((ky, kx)))
    ]
    ramp = ramps[0][:, :, None] * ramps[1][:, None, :]
    return torch.as_tensor(torch.fft.ifft2(torch.fft.fft2(modes) * ramp[:, None]))


def _check(slices: Tensor, probe: Tensor, positions: Tensor, propagator: Tensor | None) -> None:
    if slices.ndim != 3 or not slices.is_complex() or probe.ndim not in (2, 3) or not probe.is_complex():
        raise InputError(
            f"slices {tuple(slices.shape)} and probe {tuple(probe.shape)}: give complex (slice, y, x) and "
            "(y, x) or (mode, y, x)"
        )
    if any(one > two for one, two in zip(probe.shape[-2:], slices.shape[1:], strict=True)):
        raise InputError(
            f"a probe of {tuple(probe.shape[-2:])} pixels in a field of {tuple(slices.shape[1:])}: "
            "enlarge the field"
        )
    if positions.ndim != 2 or positions.shape[1] != 2 or not positions.is_floating_point():
        raise InputError(
            f"positions of shape {tuple(positions.shape)}, {positions.dtype}: give (position, 2), y and x in "
            "Å, as floating point"
        )
    if not bool(positions.detach().isfinite().all()):
        bad = int((~positions.detach().isfinite().all(1)).nonzero()[0])
        raise InputError(f"position {bad} is not finite: leave it out")
    if len(slices) > 1 and (propagator is None or propagator.shape != probe.shape[-2:]):
        given = None if propagator is None else tuple(propagator.shape)
        raise InputError(
            f"{len(slices)} slices and a propagator of shape {given}: give one of {tuple(probe.shape[-2:])}"
        )
