"""Scans of both specimens: patterns that are expected, electrons that are counted, and the truth."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from exitwave.optics import Aberrations, interaction_constant
from exitwave.papers.cao2020.parameters import Parameters
from exitwave.papers.cao2020.specimens import Specimen, block, monolayer, praseodymium_scandate
from exitwave.records import Array
from exitwave.simulate.exit_waves import Multislice, projected_potential
from exitwave.simulate.scattering_matrix import (
    detected,
    layers,
    patterns,
    scattering_matrix,
    transmissions,
)
from exitwave.specimens.layers import mos2

# Arrangements of atoms are the same for every dose and network.
_PHONON_SEED = 2020
# Repetitions by which places are found in a scan that drifts, each of which gains the drift over the field.
_DRIFTS = 4
# What has nothing to do with the patterns that are expected.
_OF_NETWORKS = (
    "seed", "dose", "inner", "iterations", "cluster", "channels", "dropout", "epochs", "batch",
    "rate", "rings",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Scan:
    """A specimen and its expected patterns.

    Attributes
    ----------
    specimen : exitwave.papers.cao2020.specimens.Specimen
    patterns : Tensor, shape (scan_y, scan_x, ky, kx), float32
        Shares of the electrons of a position, FFT order.
    step : (float, float)
        Of the scan (y, x), Å.
    phase : Tensor, shape (scan_y, scan_x), float64
        Projected potential of the atoms, smeared by their motion, times the interaction constant, rad: with
        the frequencies that the scan can carry, at the positions of the probe.
    drift : float
        Of the positions along y and x, from the first to the last, Å.
    """

    specimen: Specimen
    patterns: Tensor
    step: tuple[float, float]
    phase: Tensor
    drift: float = 0.0

    def pixels(self, places: Array) -> Array:
        """Return where in an image of the scan places (place, 2), y and x in Å, are."""
        rows, columns = self.phase.shape
        at: Array = places / self.step
        for _ in range(_DRIFTS if self.drift else 0):
            share = (at[:, 0] * columns + at[:, 1]) / (rows * columns - 1)
            at = (places - self.drift * share[:, None]) / self.step
        return at

    @property
    def area(self) -> float:
        """Å² for each position."""
        return self.step[0] * self.step[1]


def training_specimen(parameters: Parameters) -> Specimen:
    """Return MoS2, about as large as the field of PrScO3, a sulphur missing in its lower half."""
    return monolayer(mos2(), transfer_specimen(parameters).size, vacancy=True)


def transfer_specimen(parameters: Parameters, thickness: float | None = None) -> Specimen:
    """Return PrScO3 along the long axis of its cell."""
    repeats = (parameters.repeats, parameters.repeats)
    depth = parameters.thickness if thickness is None else thickness
    return block(praseodymium_scandate(), (0, 1, 0), repeats, depth)


def how_of(parameters: Parameters, specimen: Specimen) -> Multislice:
    """Return the grid of a specimen."""
    sampling = specimen.size[0] / parameters.grid, specimen.size[1] / parameters.grid
    return Multislice(parameters.energy, sampling, (parameters.grid, parameters.grid))


def positions_of(parameters: Parameters, specimen: Specimen) -> Tensor:
    """Return the positions of the probe, shape (scan_y * scan_x, 2), y and x in Å; they drift."""
    count = parameters.scan
    line = torch.arange(count, dtype=torch.float64) / count
    grid = torch.stack(torch.meshgrid(line, line, indexing="ij"), -1).reshape(-1, 2)
    share = torch.arange(count**2, dtype=torch.float64) / max(1, count**2 - 1)
    return grid * torch.tensor(specimen.size, dtype=torch.float64) + parameters.drift * share[:, None]


def expected(parameters: Parameters, specimens: list[Specimen], device: str = "cpu") -> list[Scan]:
    """Return the scans of specimens that begin alike and differ in thickness, in one go.

    Parameters
    ----------
    parameters : Parameters
    specimens : list of exitwave.papers.cao2020.specimens.Specimen
        The last is the thickest, and holds the others.
    """
    whole = specimens[-1]
    how = how_of(parameters, whole)
    places = positions_of(parameters, whole)
    reach = parameters.pixel * parameters.detector / 2
    generator = np.random.default_rng(_PHONON_SEED)
    lens = Aberrations(C10=-parameters.defocus)
    exits = [round(each.thickness / each.spacing) for each in specimens]
    # A margin of one pixel of the finer patterns, whose outermost are cut by the detector.
    totals: list[Tensor | float] = [0.0 for _ in specimens]
    for _ in range(parameters.phonons):
        moved = whole.positions.copy()
        moved[:, :2] += parameters.displacement**0.5 * generator.standard_normal(moved[:, :2].shape)
        slices = layers(whole.numbers, moved, whole.thickness, whole.spacing)
        stack = transmissions(whole.numbers, moved, how, slices, device=device)
        found = scattering_matrix(
            stack, how, semiangle=parameters.semiangle, spacing=whole.spacing,
            largest=reach + 2 * parameters.pixel, exits=exits,
        )  # fmt: skip
        for i, matrix in enumerate(found):
            made = patterns(matrix, places, lens)
            counted = detected(
                made, whole.size, energy=parameters.energy, pixel=parameters.pixel, count=parameters.detector
            )
            totals[i] = totals[i] + counted / parameters.phonons
    count = parameters.scan
    step = whole.size[0] / count, whole.size[1] / count
    return [
        Scan(each, torch.as_tensor(total).cpu().reshape(count, count, *[parameters.detector] * 2), step,
             true_phase(parameters, each), parameters.drift)
        for each, total in zip(specimens, totals, strict=True)
    ]  # fmt: skip


def true_phase(parameters: Parameters, specimen: Specimen) -> Tensor:
    """Return the phase of all atoms at once at the positions of the scan, rad; see :class:`Scan`."""
    how = how_of(parameters, specimen)
    smeared = Multislice(how.energy, how.sampling, how.shape, displacement=parameters.displacement)
    places = torch.as_tensor(specimen.positions[:, :2])
    fine = interaction_constant(how.energy) * projected_potential(specimen.numbers, places, smeared)
    still = resampled(fine, parameters.scan)
    if not parameters.drift:
        return still
    # As fine as before, with the frequencies of the scan.
    smooth = resampled(still, parameters.grid).numpy()
    at = positions_of(parameters, specimen).numpy() / how.sampling
    return torch.as_tensor(sampled(smooth, at)).reshape(still.shape)


def sampled(image: Array, at: Array) -> Array:
    """Return an image (y, x) at places (place, 2) in pixels, by cubic splines; the image repeats."""
    from scipy import ndimage

    interpolate: Any = ndimage.map_coordinates
    found: Array = interpolate(image, at.T, order=3, mode="grid-wrap")
    return found


def resampled(image: Tensor, count: int) -> Tensor:
    """Return a periodic image (y, x) with `count` pixels along each side, and the frequencies of both."""
    spectrum = torch.fft.fft2(image)
    for axis, size in enumerate(image.shape):
        # The end of an even band is two frequencies in one.
        most = (min(count, size) - 1) // 2
        kept = torch.arange(-most, most + 1)
        wider = spectrum.new_zeros([count if each == axis else n for each, n in enumerate(spectrum.shape)])
        spectrum = wider.index_copy(axis, kept % count, spectrum.index_select(axis, kept % size))
    found: Tensor = torch.fft.ifft2(spectrum).real * (count**2 / image.numel())
    return found


@lru_cache(maxsize=2)
def _scans(parameters: Parameters, thicknesses: tuple[float, ...], device: str) -> tuple[Scan, ...]:
    thick = [transfer_specimen(parameters, each) for each in sorted({*thicknesses, parameters.thickness})]
    return (
        *expected(parameters, [training_specimen(parameters)], device),
        *expected(parameters, thick, device),
    )


def load(
    parameters: Parameters, thicknesses: tuple[float, ...] = (), device: str = "cpu"
) -> tuple[Scan, ...]:
    """Return the scan of MoS2 and those of PrScO3, thin ones first, which are computed here."""
    plain = type(parameters).at(parameters.scale)
    same = {name: getattr(plain, name) for name in _OF_NETWORKS}
    return _scans(parameters.changed(**same), thicknesses, device)


def counted(parameters: Parameters, scan: Scan, generator: torch.Generator) -> Tensor:
    """Draw electrons, shape (scan_y, scan_x, ky, kx), float32, at the dose of the parameters."""
    return torch.poisson(scan.patterns * (parameters.dose * scan.area), generator=generator)
