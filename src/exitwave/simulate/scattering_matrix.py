"""4D-STEM of atoms in a periodic box by their scattering matrix.

Every plane wave of the aperture goes through the specimen once; what a probe becomes at any position, with
any aberrations, is then a sum of what its plane waves became (PRISM with all plane waves: Ophus, Adv. Struct.
Chem. Imaging 3, 13 (2017)). It is exact, and cheaper than to carry each probe through where there are more
positions than plane waves.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from exitwave.errors import InputError
from exitwave.optics import aperture, frequency_grid, interaction_constant, propagator, wavelength
from exitwave.optics.aberrations import Aberrations, aberration_phase
from exitwave.records import Array
from exitwave.simulate.exit_waves import Multislice, band_limit, projected_potential

_NONE = Aberrations()
# Bytes that the waves of a batch take, and those of the patterns of one.
_WAVES, _PATTERNS = 2**25, 2**27


@dataclass(frozen=True, eq=False)
class ScatteringMatrix:
    """What each plane wave of an aperture becomes behind a specimen.

    Attributes
    ----------
    waves : Tensor, shape (beam, ky, kx), complex
        Spectra at the frequencies that the detector sees, FFT order. The plane waves have the weights of a
        probe of intensity 1.
    beams : Tensor, shape (beam, 2), float64
        Frequencies ky, kx of the plane waves, 1/Å.
    energy : float
        eV.
    semiangle : float
        rad.
    size : (float, float)
        Of the box (y, x), Å: pixels of the patterns are its inverse.
    """

    waves: Tensor
    beams: Tensor
    energy: float
    semiangle: float
    size: tuple[float, float]


def layers(numbers: Array, positions: Array, thickness: float, spacing: float) -> list[Array]:
    """Sort atoms into slices of equal spacing.

    Parameters
    ----------
    numbers : array of int, shape (atom,)
    positions : array, shape (atom, 3)
        x, y, z, Å.
    thickness : float
        Of the specimen, from z = 0 on, Å.
    spacing : float
        Of the slices, Å.

    Returns
    -------
    list of ndarray of int
        Numbers of the atoms of each slice.

    Raises
    ------
    InputError
        For atoms outside, or numbers that are not positive.
    """
    if not (thickness > 0 and spacing > 0):
        raise InputError(f"thickness {thickness:g} Å in slices of {spacing:g} Å: use positive numbers")
    heights = np.asarray(positions, float)[:, 2]
    if len(heights) != len(numbers):
        raise InputError(f"{len(numbers)} atomic numbers for {len(heights)} positions: give one for each")
    count = math.ceil(thickness / spacing - 1e-9)
    index = np.floor(heights / spacing + 1e-9).astype(int)
    if len(index) and not (index.min() >= 0 and index.max() < count):
        raise InputError(
            f"atoms between z = {heights.min():g} and {heights.max():g} Å in a specimen from 0 to "
            f"{thickness:g} Å: move them, or enlarge the thickness"
        )
    return [np.flatnonzero(index == i) for i in range(count)]


def transmissions(
    numbers: Array, positions: Array, how: Multislice, slices: Sequence[Array], *,
    dtype: torch.dtype = torch.complex64, device: str | torch.device = "cpu",
) -> Tensor:  # fmt: skip
    """Return transmission functions exp(iσV) of slices, shape (slice, y, x), without what wraps around.

    Parameters
    ----------
    numbers, positions : array
        As :func:`layers` takes them.
    how : Multislice
        Its spacing of slices and distance behind the last atom do not count here.
    slices : sequence of arrays of int
        As :func:`layers` returns them.
    """
    band = band_limit(how, device)
    places = torch.as_tensor(np.array(positions, float), dtype=torch.float64, device=device)
    species = np.asarray(numbers, np.int64)
    made = torch.ones(len(slices), *how.shape, dtype=dtype, device=device)
    for i, each in enumerate(slices):
        if len(each):
            phase = interaction_constant(how.energy) * projected_potential(
                species[each], places[each][:, :2], how
            )
            spectrum = torch.fft.fft2(torch.polar(torch.ones_like(phase), phase)) * band
            made[i] = torch.fft.ifft2(spectrum).to(dtype)
    return made


def scattering_matrix(
    transmission: Tensor, how: Multislice, *, semiangle: float, spacing: float, largest: float,
    exits: Sequence[int] | None = None,
) -> list[ScatteringMatrix]:  # fmt: skip
    """Carry every plane wave of an aperture through slices.

    Parameters
    ----------
    transmission : Tensor, shape (slice, y, x), complex
        The first one is met first; met again and again where an exit lies behind the last.
    how : Multislice
        Energy, pixel size and grid.
    semiangle : float
        Of the aperture, rad.
    spacing : float
        From slice to slice, Å.
    largest : float
        Angle that the square detector reaches along its sides, rad.
    exits : sequence of int, optional
        After how many slices the waves are wanted; by default after the last.

    Returns
    -------
    list of ScatteringMatrix
        One for each exit, in their order.

    Raises
    ------
    InputError
        If the detector or the aperture is beyond the band of the grid, or an exit is no positive number.
    """
    wanted = [len(transmission)] if exits is None else list(exits)
    if not wanted or min(wanted) < 1:
        raise InputError(f"exits after {wanted} slices: give positive numbers")
    length = wavelength(how.energy)
    ky, kx = frequency_grid(how.shape, how.sampling, transmission.device)
    band = band_limit(how, transmission.device)
    limit = float((torch.hypot(ky, kx) * band).max()) * length
    if not 0 < largest <= limit * (1 + 1e-6):
        raise InputError(
            f"a detector to {1e3 * largest:.4g} mrad, but waves of this grid end at {1e3 * limit:.4g} mrad: "
            "use smaller pixels"
        )
    rows, columns = ((each.flatten().abs() * length <= largest).nonzero().flatten() for each in (ky, kx))
    pupil = aperture(how.shape, how.sampling, energy=how.energy, semiangle=semiangle, dtype=torch.float64)
    weights = (pupil / pupil.square().sum().sqrt()).to(transmission.device)
    inside = weights.nonzero()
    kind = transmission.dtype
    free = propagator(
        how.shape, how.sampling, spacing, how.energy, dtype=kind, device=transmission.device
    ) * band.to(transmission.real.dtype)
    found = [
        torch.empty(len(inside), len(rows), len(columns), dtype=kind, device=transmission.device)
        for _ in wanted
    ]
    pixels = how.shape[0] * how.shape[1]
    batch = max(1, _WAVES // (pixels * transmission.element_size()))
    for first in range(0, len(inside), batch):
        some = inside[first : first + batch]
        spectra = torch.zeros(len(some), *how.shape, dtype=kind, device=transmission.device)
        spectra[torch.arange(len(some)), some[:, 0], some[:, 1]] = weights[some[:, 0], some[:, 1]].to(kind)
        wave = torch.fft.ifft2(spectra)
        for done in range(1, max(wanted) + 1):
            spectra = torch.fft.fft2(wave * transmission[(done - 1) % len(transmission)]) * free
            for i, after in enumerate(wanted):
                if after == done:
                    found[i][first : first + batch] = spectra[:, rows[:, None], columns]
            if done < max(wanted):
                wave = torch.fft.ifft2(spectra)
    beams = torch.stack([ky[inside[:, 0], 0], kx[0, inside[:, 1]]], 1)
    return [ScatteringMatrix(each, beams, how.energy, semiangle, how.size) for each in found]


def patterns(matrix: ScatteringMatrix, positions: Tensor, aberrations: Aberrations = _NONE) -> Tensor:
    """Return the diffraction patterns of a probe.

    Parameters
    ----------
    matrix : ScatteringMatrix
    positions : Tensor, shape (position, 2)
        (y, x) of the probe, Å.
    aberrations : Aberrations
        Å and rad.

    Returns
    -------
    Tensor, shape (position, ky, kx), real
        FFT order; pixels of one over the size of the box.

    Raises
    ------
    InputError
        For positions of another shape.
    """
    if positions.ndim != 2 or positions.shape[1] != 2:
        raise InputError(f"positions of shape {tuple(positions.shape)}: give (position, 2), y and x in Å")
    ky, kx = matrix.beams.T
    chi = aberration_phase(ky, kx, energy=matrix.energy, aberrations=aberrations)
    where = positions.to(matrix.beams)
    made = torch.empty(
        len(where), *matrix.waves.shape[1:], dtype=matrix.waves.real.dtype, device=matrix.waves.device
    )
    flat = matrix.waves.flatten(1)
    batch = max(1, _PATTERNS // (flat.shape[1] * flat.element_size()))
    for first in range(0, len(where), batch):
        phase = -chi - 2 * math.pi * where[first : first + batch] @ matrix.beams.T
        turned = torch.polar(torch.ones_like(phase), phase).to(flat.dtype)
        made[first : first + batch] = (turned @ flat).abs().square().reshape(-1, *made.shape[1:])
    return made


def detected(
    patterns: Tensor, size: tuple[float, float], *, energy: float, pixel: float, count: int
) -> Tensor:
    """Return what square pixels of a detector count.

    Parameters
    ----------
    patterns : Tensor, shape (..., ky, kx)
        FFT order, with pixels of one over `size`, in each of which electrons are spread evenly.
    size : (float, float)
        Of the box (y, x), Å.
    energy : float
        eV.
    pixel : float
        Of the detector, rad; the beam is in the middle of one.
    count : int
        Pixels along each side.

    Returns
    -------
    Tensor, shape (..., count, count)
        FFT order.

    Raises
    ------
    InputError
        If the detector is larger than the patterns, or has no pixel.
    """
    if count < 1 or not pixel > 0:
        raise InputError(f"a detector of {count} pixels of {1e3 * pixel:g} mrad: use positive numbers")
    for axis, length in zip((-2, -1), size, strict=True):
        shares = _shares(patterns.shape[axis], wavelength(energy) / length, count, pixel).to(patterns)
        patterns = torch.movedim(torch.movedim(patterns, axis, -1) @ shares.T, -1, axis)
    return patterns


def _shares(fine: int, step: float, count: int, pixel: float) -> Tensor:
    """Return the share of each of `fine` pixels in each of `count` larger ones, both in FFT order."""
    at, wanted = (torch.fft.fftfreq(n, 1 / n, dtype=torch.float64).round() for n in (fine, count))
    upper = torch.minimum((at + 0.5) * step, (wanted[:, None] + 0.5) * pixel)
    lower = torch.maximum((at - 0.5) * step, (wanted[:, None] - 0.5) * pixel)
    shares = (upper - lower).clamp_min(0) / step
    for sign in (-1, 1):
        reach, there = (float((sign * each).max()) + 0.5 for each in (wanted, at))
        if reach * pixel > there * step * (1 + 1e-9):
            raise InputError(
                f"a detector to {1e3 * reach * pixel:.4g} mrad on patterns to {1e3 * there * step:.4g} mrad: "
                "use fewer or smaller pixels"
            )
    return shares
