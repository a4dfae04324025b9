"""A 4D-STEM scan, line by line: what a detector expects to count, and what it counts.

Each line has random numbers of its own, so that lines may be made in any order and in any place, and are the
same. All lines share the scattering matrices of the specimen, one for each arrangement of vibrating atoms.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy.fft import next_fast_len
from torch import Tensor

from exitwave.errors import InputError
from exitwave.optics import wavelength
from exitwave.optics.aberrations import Aberrations
from exitwave.simulate.exit_waves import BAND, Multislice
from exitwave.simulate.scattering_matrix import (
    ScatteringMatrix,
    detected,
    layers,
    patterns,
    scattering_matrix,
    transmissions,
)

# Å: largest pixel of the potential.
_SAMPLING = 0.1
# Waves beyond the edge of the detector, in its pixels or in those of the finer patterns.
_MARGIN = 2


@dataclass(frozen=True)
class Box:
    """Atoms in a box that repeats across the beam; hashable, for it goes to other processes.

    Attributes
    ----------
    numbers : tuple of int
        Atomic numbers.
    positions : tuple of (float, float, float)
        x, y, z, Å; z from 0 to `thickness`.
    size : (float, float)
        (y, x), Å.
    thickness, spacing : float
        Of the specimen and of its slices, Å.
    """

    numbers: tuple[int, ...]
    positions: tuple[tuple[float, float, float], ...]
    size: tuple[float, float]
    thickness: float
    spacing: float


@dataclass(frozen=True)
class ScanSetup:
    """How a specimen is scanned.

    Attributes
    ----------
    energy : float
        eV.
    semiangle : float
        Of the aperture, rad.
    scan : (int, int)
        Positions (y, x).
    step : (float, float)
        (y, x), Å.
    detector : int
        Pixels along each side.
    pixel : float
        Of the detector, rad.
    defocus : float
        Å, underfocus positive.
    spherical_aberration : float
        C30, Å.
    drift : (float, float)
        Of the specimen from the first to the last position (y, x), Å.
    dose : float or None
        Electrons per Å²; None for what is expected of one electron at each position.
    phonons : int
        Arrangements of vibrating atoms; 0 for atoms at rest that are smeared.
    displacement : float
        Mean square displacement along each axis, Å².
    seed : int
    """

    energy: float
    semiangle: float
    scan: tuple[int, int]
    step: tuple[float, float]
    detector: int
    pixel: float
    defocus: float = 0.0
    spherical_aberration: float = 0.0
    drift: tuple[float, float] = (0.0, 0.0)
    dose: float | None = None
    phonons: int = 0
    displacement: float = 0.005
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.scan) < 1 or self.detector < 1:
            raise InputError(
                f"a scan of {self.scan} positions, {self.detector} pixels: give at least one of each"
            )
        for name in ("semiangle", "pixel"):
            value = getattr(self, name)
            if not 0 < value < math.pi / 2:
                raise InputError(f"{name} {value:g} rad: give an angle between 0 and π/2, such as 20mrad")
        if not all(math.isfinite(each) and each > 0 for each in self.step):
            raise InputError(f"step {self.step} Å: give positive lengths")
        if self.dose is not None and not 0 < self.dose < math.inf:
            raise InputError(f"dose {self.dose:g} electrons per Å²: give a positive number, or none")
        if self.phonons < 0 or not 0 <= self.displacement < math.inf:
            raise InputError(
                f"{self.phonons} arrangements of atoms displaced by {self.displacement:g} Å²: use 0 or more"
            )

    @property
    def probe_width(self) -> float:
        """About how wide the probe is, Å: out of focus the disk of confusion and ten widths of the beam."""
        length = float(wavelength(self.energy))
        return 2 * self.semiangle * abs(self.defocus) + 10 * 0.61 * length / self.semiangle

    def grid_of(self, size: tuple[float, float]) -> Multislice:
        """Return the grid of a box (y, x) in Å: fine enough for the atoms and for what the detector sees."""
        length = float(wavelength(self.energy))
        reach = self._reach(size)
        sampling = min(_SAMPLING, BAND * length / (2 * reach))
        counts = [next_fast_len(math.ceil(side / sampling) + 1, real=False) for side in size]
        return Multislice(
            self.energy, (size[0] / counts[0], size[1] / counts[1]), (counts[0], counts[1]),
            displacement=0.0 if self.phonons else self.displacement,
        )  # fmt: skip

    def _reach(self, size: tuple[float, float]) -> float:
        finer = float(wavelength(self.energy)) / min(size)
        return self.pixel * self.detector / 2 + _MARGIN * max(self.pixel, finer)


def matrices(box: Box, setup: ScanSetup, device: str = "cpu") -> list[ScatteringMatrix]:
    """Return the scattering matrix of each arrangement of the atoms, in float32.

    Parameters
    ----------
    box : Box
    setup : ScanSetup
    device : str

    Raises
    ------
    InputError
        If atoms are outside of the box along the beam, or a pattern's pixels are larger than the detector's.
    """
    how = setup.grid_of(box.size)
    numbers, positions = np.array(box.numbers), np.array(box.positions, float).reshape(-1, 3)
    sorted_in = layers(numbers, positions, box.thickness, box.spacing)
    found = []
    for arrangement in range(max(1, setup.phonons)):
        moved = positions.copy()
        if setup.phonons:
            generator = np.random.default_rng((setup.seed, 0, arrangement))
            moved[:, :2] += setup.displacement**0.5 * generator.standard_normal(moved[:, :2].shape)
        stack = transmissions(numbers, moved, how, sorted_in, device=device)
        found += scattering_matrix(
            stack, how, semiangle=setup.semiangle, spacing=box.spacing, largest=setup._reach(box.size)
        )
    return found


def line(
    number: int, box: Box, setup: ScanSetup, specimen: list[ScatteringMatrix] | None = None,
    device: str = "cpu",
) -> Tensor:  # fmt: skip
    """Return the patterns of one line of a scan.

    Parameters
    ----------
    number : int
        From 0.
    box : Box
    setup : ScanSetup
    specimen : list of ScatteringMatrix, optional
        Of :func:`matrices`, which are made here otherwise.
    device : str

    Returns
    -------
    Tensor, shape (scan_x, ky, kx), float32
        Frequency 0 in the middle (pixel n // 2). Counts, or without a dose the share of the electrons.
    """
    specimen = matrices(box, setup, device) if specimen is None else specimen
    rows, columns = setup.scan
    index = torch.arange(columns, dtype=torch.float64)
    share = (number * columns + index) / max(1, rows * columns - 1)
    drift, step = (torch.tensor(each, dtype=torch.float64) for each in (setup.drift, setup.step))
    # The probe is where it should be, and the specimen elsewhere.
    where = torch.stack([torch.full_like(index, number), index], 1) * step - drift * share[:, None]
    lens = Aberrations(C10=-setup.defocus, C30=setup.spherical_aberration)
    total: Tensor = torch.zeros(columns, setup.detector, setup.detector)
    for each in specimen:
        fine = patterns(each, where.to(device), lens)
        total += detected(
            fine, box.size, energy=setup.energy, pixel=setup.pixel, count=setup.detector
        ).cpu() / len(specimen)
    total = torch.fft.fftshift(total, (-2, -1))
    if setup.dose is None:
        return total
    generator = torch.Generator().manual_seed(
        int(np.random.SeedSequence((setup.seed, 1, number)).generate_state(1, np.uint64)[0] >> 1)
    )
    counted: Tensor = torch.poisson(total * (setup.dose * setup.step[0] * setup.step[1]), generator=generator)
    return counted
