"""What each microscope records of the specimen: images, a hologram, a scan; as many electrons in all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from exitwave.optics import mtf, transfer_function
from exitwave.optics.aberrations import Aberrations
from exitwave.papers.cao2020.parameters import Parameters as ScanParameters
from exitwave.papers.comparison.parameters import Parameters
from exitwave.papers.comparison.specimens import grid_of, make
from exitwave.retrieve.lens import Lens
from exitwave.simulate import exit_waves, focal_series, holograms, imaging
from exitwave.simulate.focal_series import Conditions
from exitwave.simulate.scattering_matrix import (
    ScatteringMatrix,
    detected,
    layers,
    patterns,
    scattering_matrix,
    transmissions,
)

# Of the detector of images: the middle of Table 1 of Leth Larsen et al. (2022).
_MTF = (-0.2, 0.15, 1.2)
# What nobody is told, Å.
UNTOLD_FOCUS, UNTOLD_ASTIGMATISM = -30.0, 20.0
# Of the grid of a scan's waves, and between slices, Å: atoms of MoS2 are in the middle of theirs.
_COARSE, _SLICE = 0.1, 1.56


def untold(parameters: Parameters) -> Aberrations:
    """Return the aberrations of the lens that no method is told."""
    if parameters.trouble == "focus":
        return Aberrations.from_defocus(UNTOLD_FOCUS)
    return Aberrations(C12=UNTOLD_ASTIGMATISM if parameters.trouble == "astigmatism" else 0.0, phi12=0.5)


@lru_cache(maxsize=4)
def _wave(parameters: Parameters, energy: float) -> Tensor:
    specimen = make(parameters)
    return exit_waves.simulate(specimen.numbers, specimen.positions, grid_of(parameters, energy))


def _same_atoms(parameters: Parameters) -> Parameters:
    """Return the parameters that decide what is recorded before an electron is counted, others by default."""
    plain = type(parameters).at(parameters.scale)
    changes = (
        "kind", "trouble", "box", "diameter", "vacancies", "displacement", "scan", "seed", "energy",
        "semiangle",
    )  # fmt: skip
    return plain.changed(**{name: getattr(parameters, name) for name in changes})


def wave(parameters: Parameters, energy: float) -> Tensor:
    """Return the exit wave, shape (y, x), complex64, pixels of :data:`FINE`."""
    return _wave(_same_atoms(parameters), energy)


@dataclass(frozen=True, eq=False)
class Series:
    """Images, and what is told of how they were taken.

    Attributes
    ----------
    images : Tensor, shape (image, y, x), float32
        Over vacuum.
    lens : Lens
    response : Tensor, shape (y, x)
        MTF of the detector.
    dose : float
        Electrons per Å² and image.
    """

    images: Tensor
    lens: Lens
    response: Tensor
    dose: float

    @property
    def per_pixel(self) -> float:
        """Electrons of a pixel of an image."""
        return self.dose * self.lens.sampling**2


def foci(parameters: Parameters, count: int) -> list[float]:
    """Return the defoci of a series; of one image, its own."""
    if count == 1:
        return [parameters.alone]
    return [parameters.defocus + parameters.span * i / (count - 1) for i in range(count)]


def series(
    parameters: Parameters, told: Sequence[float], generator: torch.Generator, energy: float | None = None
) -> Series:
    """Take images that share the dose.

    Parameters
    ----------
    parameters : Parameters
    told : sequence of float
        Defoci, Å.
    generator : torch.Generator
    energy : float, optional
        eV; by default that of the parameters.
    """
    energy = parameters.energy if energy is None else energy
    hidden, each = untold(parameters), parameters.dose / len(told)
    one = torch.ones(1)
    conditions = Conditions(
        energy=energy, defocus=torch.tensor([told]) - float(hidden.C10), spherical_aberration=0 * one,
        astigmatism=float(hidden.C12) * one, astigmatism_azimuth=float(hidden.phi12) * one, coma=0 * one,
        coma_azimuth=0 * one, focal_spread=parameters.focal_spread * one, blur=parameters.blur * one,
        dose=each * one, sampling=parameters.pixel * one, mtf_floor=_MTF[0] * one,
        mtf_scale=_MTF[1] * one, mtf_exponent=_MTF[2] * one,
    )  # fmt: skip
    pixels = round(parameters.box / parameters.pixel)
    made = wave(parameters, energy)[None]
    images = focal_series.simulate(made, parameters.box / made.shape[-1], conditions, pixels, generator)[0]
    lens = Lens(
        energy, parameters.pixel, torch.tensor(told, dtype=torch.float64),
        focal_spread=parameters.focal_spread, blur=parameters.blur,
    )  # fmt: skip
    response = mtf((pixels, pixels), c1=_MTF[0], c2=_MTF[1], c3=_MTF[2])
    return Series(images, lens, response, each)


@dataclass(frozen=True, eq=False)
class Hologram:
    """A hologram in focus, and what is told of how it was taken.

    Attributes
    ----------
    intensity, empty : Tensor, shape (y, x)
        With the specimen, and without it and without noise, which costs the specimen nothing; over the
        intensity of one wave.
    sampling : float
        Å.
    carrier : (float, float)
        1/Å.
    transfer : Tensor, shape (y, x), complex
        Of the lens.
    """

    intensity: Tensor
    empty: Tensor
    sampling: float
    carrier: tuple[float, float]
    transfer: Tensor


def hologram(parameters: Parameters, generator: torch.Generator) -> Hologram:
    """Take a hologram in focus, of finer pixels than an image, for its fringes."""
    made = wave(parameters, parameters.energy)
    sampling, size = parameters.box / made.shape[-1], (made.shape[0], made.shape[1])
    # Whole fringes, for the box repeats.
    carrier = 0.0, round(parameters.fringes * parameters.box) / parameters.box
    told, true = (
        transfer_function(
            size, sampling, energy=parameters.energy, aberrations=each, focal_spread=parameters.focal_spread
        )
        for each in (Aberrations(), untold(parameters))
    )
    how: dict[str, Any] = {"sampling": sampling, "carrier": carrier, "contrast": parameters.contrast}
    seen = holograms.simulate(made, transfer=true, **how)
    return Hologram(
        imaging.add_poisson_noise(seen, parameters.dose, (sampling, sampling), generator),
        holograms.simulate(torch.ones_like(made), **how), sampling, carrier, told,
    )  # fmt: skip


def scan_of(parameters: Parameters, defocus: float) -> ScanParameters:
    """Return the 4D-STEM microscope, in the words of that chapter, as it is told."""
    return ScanParameters.at(
        "workshop", energy=parameters.energy, semiangle=parameters.semiangle, defocus=defocus,
        dose=parameters.dose, scan=parameters.scan, iterations=parameters.epochs,
    )  # fmt: skip


@lru_cache(maxsize=2)
def _matrix(parameters: Parameters) -> ScatteringMatrix:
    specimen, how = make(parameters), grid_of(parameters, parameters.energy, _COARSE)
    scan = scan_of(parameters, 0.0)
    positions = specimen.positions + [0, 0, _SLICE / 2]
    cut = layers(specimen.numbers, positions, specimen.depth + _SLICE, _SLICE)
    stack = transmissions(specimen.numbers, positions, how, cut)
    reach = scan.pixel * (scan.detector / 2 + 2)
    [found] = scattering_matrix(stack, how, semiangle=parameters.semiangle, spacing=_SLICE, largest=reach)
    return found


@lru_cache(maxsize=4)
def _expected(parameters: Parameters, defocus: float) -> Tensor:
    scan, count = scan_of(parameters, defocus), parameters.scan
    lens = untold(parameters)
    lens = Aberrations(C10=float(lens.C10) - defocus, C12=float(lens.C12), phi12=float(lens.phi12))
    made = patterns(_matrix(parameters), positions(parameters), lens)
    size = parameters.box, parameters.box
    seen = detected(made, size, energy=parameters.energy, pixel=scan.pixel, count=scan.detector)
    return seen.reshape(count, count, scan.detector, scan.detector)


def positions(parameters: Parameters) -> Tensor:
    """Return the positions of the probe, shape (scan * scan, 2), y and x in Å."""
    line = torch.arange(parameters.scan, dtype=torch.float64) * parameters.step
    return torch.stack(torch.meshgrid(line, line, indexing="ij"), -1).reshape(-1, 2)


def counted(parameters: Parameters, defocus: float, generator: torch.Generator) -> Tensor:
    """Scan the specimen and count electrons, shape (scan_y, scan_x, ky, kx), FFT order."""
    shares = _expected(_same_atoms(parameters), defocus)
    return torch.poisson(shares * (parameters.dose * parameters.step**2), generator=generator)
