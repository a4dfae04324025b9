"""Exit waves of atoms in a box by multislice, with slices only where there are atoms.

Each slice holds the projected potentials of the atoms between two planes and stands at their mean height. A
projected atom scatters as the whole one does but for the curvature of the Ewald sphere, so that what limits
accuracy is the distance of an atom to its slice, not the number of slices.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from exitwave.errors import InputError
from exitwave.optics import (
    ELECTRON_MASS,
    ELEMENTARY_CHARGE,
    PLANCK,
    frequency_grid,
    interaction_constant,
    propagator,
)
from exitwave.optics.grids import checked, sampling_pair
from exitwave.optics.scattering import ScatteringTable, scattering_factor
from exitwave.optics.transfer import mirror
from exitwave.records import Array

# h² / 2π m0 e, V Å²: from a scattering factor (Å) to a potential (Kirkland 2010, Eq. C.1).
POTENTIAL = PLANCK**2 / (2 * math.pi * ELECTRON_MASS * ELEMENTARY_CHARGE) * 1e20
# Largest frequency of a wave, over that of the grid: behind a slice little wraps around (Kirkland 2010, 6.8).
BAND = 2 / 3


@dataclass(frozen=True)
class Multislice:
    """How an exit wave is computed.

    Attributes
    ----------
    energy : float
        eV.
    sampling : float or (float, float)
        Pixel size, Å, one number or (y, x).
    shape : (int, int)
        Pixels (y, x); the box is periodic.
    thickness : float
        Greatest extent of a slice along the beam, Å; 0 for a slice at each height where there is an atom.
    displacement : float
        Mean square displacement of the atoms along each axis, Å², which smears the potential.
    beyond : float
        Distance from the last atom to the plane of the exit wave, Å.
    table : {"kirkland", "lobato"}
    """

    energy: float = 50e3
    sampling: float | tuple[float, float] = 0.05
    shape: tuple[int, int] = (512, 512)
    thickness: float = 0.2
    displacement: float = 0.0
    beyond: float = 2.0
    table: ScatteringTable = "kirkland"

    def __post_init__(self) -> None:
        checked(self.energy, "beam energy (eV)", positive=True)
        sampling_pair(self.sampling)
        for name in ("thickness", "displacement", "beyond"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise InputError(f"{name} {value:g} of a multislice calculation: use 0 or more")
        if len(self.shape) != 2 or min(self.shape) < 2:
            raise InputError(f"a grid of {self.shape} pixels: give two numbers of at least 2, y and x")

    @property
    def size(self) -> tuple[float, float]:
        """Size of the box (y, x), Å."""
        dy, dx = sampling_pair(self.sampling)
        return self.shape[0] * dy, self.shape[1] * dx


def simulate(
    numbers: Array | Sequence[int],
    positions: Tensor | Array,
    how: Multislice,
    *,
    dtype: torch.dtype = torch.complex64,
    device: str | torch.device = "cpu",
) -> Tensor:
    """Return the exit wave of atoms for an incident plane wave of amplitude 1.

    Parameters
    ----------
    numbers : array of int, shape (atom,)
        Atomic numbers.
    positions : array or Tensor, shape (atom, 3)
        x, y, z in Å; z along the beam. The box repeats along x and y. Gradients flow to x and y of a tensor.
    how : Multislice
    dtype : torch.complex64 or torch.complex128
    device : str or torch.device

    Returns
    -------
    Tensor, shape (y, x), complex
        In the plane ``beyond`` the last atom; without atoms the plane wave.

    Raises
    ------
    InputError
        If numbers and positions do not match, positions are not finite, or an element is unknown.
    """
    species, places = _checked(numbers, positions, device)
    wave = torch.ones(how.shape, dtype=dtype, device=device)
    if not len(species):
        return wave
    heights = places[:, 2].detach()
    slices, planes = slices_of(heights, how.thickness)
    steps = [*(planes[1:] - planes[:-1]).tolist(), float(heights.max() - planes[-1]) + how.beyond]
    band = band_limit(how, device).to(wave.real.dtype)
    atoms = _Atoms(species, how, places.device)
    shared: dict[float, Tensor] = {}
    for i, step in enumerate(steps):
        inside = slices == i
        projected = _projected(species[inside.cpu().numpy()], places[inside, :2], how, atoms)
        phase = projected.mul_(interaction_constant(how.energy)).to(wave.real.dtype)
        key = round(step, 6)
        if key not in shared:
            shared[key] = band * propagator(
                how.shape, how.sampling, step, how.energy, dtype=dtype, device=device
            )
        spectrum = torch.fft.fft2(wave * torch.polar(torch.ones_like(phase), phase))
        wave = torch.fft.ifft2(spectrum * shared[key])
    return wave


def _checked(
    numbers: Array | Sequence[int], positions: Tensor | Array, device: str | torch.device
) -> tuple[np.ndarray, Tensor]:
    species = np.asarray(numbers, np.int64)
    # A copy: arrays of specimens are read-only, of which torch knows nothing.
    places = torch.as_tensor(
        positions if isinstance(positions, Tensor) else np.array(positions, float),
        dtype=torch.float64,
        device=device,
    )
    if species.ndim != 1 or places.shape != (len(species), 3):
        raise InputError(
            f"atomic numbers {species.shape} and positions {tuple(places.shape)}: give (n,) and (n, 3)"
        )
    if not bool(torch.isfinite(places).all()):
        raise InputError("positions of the atoms are not all finite: give x, y, z in Å")
    return species, places


def slices_of(heights: Tensor, thickness: float) -> tuple[Tensor, Tensor]:
    """Sort atoms into slices of at most a thickness, from the first atom on.

    Parameters
    ----------
    heights : Tensor, shape (atom,)
        Å.
    thickness : float
        Å.

    Returns
    -------
    index : Tensor of int, shape (atom,)
        Slice of each atom.
    planes : Tensor, shape (slice,)
        Mean height of the atoms of each slice, Å, in increasing order.
    """
    order = torch.argsort(heights)
    ordered = heights[order]
    edges, start = [], 0
    while start < len(ordered):
        edges.append(start)
        start = int(torch.searchsorted(ordered, ordered[start] + thickness + 1e-9, right=True))
    counts = torch.diff(torch.tensor([*edges, len(ordered)]))
    index = torch.empty_like(order)
    index[order] = torch.repeat_interleave(torch.arange(len(edges)), counts).to(order.device)
    planes = torch.zeros(len(edges), dtype=heights.dtype, device=heights.device)
    planes.index_add_(0, index, heights)
    return index, planes / counts.to(planes.device)


def projected_potential(numbers: Array, places: Tensor, how: Multislice) -> Tensor:
    """Return the potential of atoms projected along the beam, with all frequencies of the grid.

    Parameters
    ----------
    numbers : array of int, shape (atom,)
    places : Tensor, shape (atom, 2), float64
        x, y in Å.
    how : Multislice

    Returns
    -------
    Tensor, shape (y, x), float64
        V Å.
    """
    return _projected(numbers, places, how, _Atoms(numbers, how, places.device))


class _Atoms:
    """Scattering factors and smear at the frequencies of half a plane, the same for all slices."""

    def __init__(self, numbers: Array, how: Multislice, device: torch.device) -> None:
        ky, kx = frequency_grid(how.shape, how.sampling, device)
        self.ky, self.kx = ky[:, 0], kx[0, : how.shape[1] // 2 + 1].abs()
        # Even in ky, so that half of these rows has it all.
        squared = ky[: how.shape[0] // 2 + 1] ** 2 + self.kx**2
        self.factors = {
            int(number): mirror(scattering_factor(int(number), squared, how.table), how.shape[0], 0)
            for number in np.unique(numbers)
        }
        self.smear = None
        if how.displacement:
            smear = torch.exp(-2 * math.pi**2 * how.displacement * squared)
            self.smear = mirror(smear, how.shape[0], 0)


def _projected(numbers: Array, places: Tensor, how: Multislice, atoms: _Atoms) -> Tensor:
    total = torch.zeros(len(atoms.ky), len(atoms.kx), dtype=torch.complex128, device=places.device)
    for number in np.unique(numbers):
        x, y = places[torch.as_tensor(numbers == number, device=places.device)].T
        total += (_wave(atoms.ky, y) @ _wave(atoms.kx, x).T).mul_(atoms.factors[int(number)])
    if atoms.smear is not None:
        total *= atoms.smear
    dy, dx = sampling_pair(how.sampling)
    projected: Tensor = torch.fft.irfft2(total, s=how.shape)
    return projected.mul_(POTENTIAL / (dy * dx))


def _wave(frequencies: Tensor, places: Tensor) -> Tensor:
    """Return exp(-2πi k r), shape (frequency, place)."""
    phase = -2 * math.pi * frequencies[:, None] * places
    return torch.polar(torch.ones_like(phase), phase)


def band_limit(how: Multislice, device: str | torch.device | None = None) -> Tensor:
    """Return which frequencies a wave has, shape (y, x), float64, FFT order."""
    ky, kx = frequency_grid(how.shape, how.sampling, device)
    limit = BAND / (2 * max(sampling_pair(how.sampling)))
    return (torch.hypot(ky, kx) <= limit).double()


def smeared(wave: Tensor, sampling: float | tuple[float, float], width: float) -> Tensor:
    """Return a wave folded with a Gaussian of standard deviation `width`, Å.

    Parameters
    ----------
    wave : Tensor, shape (..., y, x), complex
    sampling : float or (float, float)
        Å.
    width : float
    """
    ky, kx = frequency_grid((wave.shape[-2], wave.shape[-1]), sampling, wave.device, wave.real.dtype)
    filtered = torch.fft.fft2(wave) * torch.exp(-2 * math.pi**2 * width**2 * (ky**2 + kx**2))
    made: Tensor = torch.fft.ifft2(filtered)
    return made
