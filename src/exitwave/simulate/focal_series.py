"""Focal series of given exit waves under microscope conditions drawn at random, on any device."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor
from torch.nn.functional import pad

from exitwave import optics
from exitwave.errors import InputError
from exitwave.simulate import imaging

Range = tuple[float, float]


@dataclass(frozen=True)
class Ranges:
    """What microscope conditions are drawn from, uniformly; by default Table 1 of Leth Larsen et al. 2022.

    Attributes
    ----------
    energy : float
        eV.
    defocus : (float, float)
        Of all images of a series, Å, underfocus positive.
    span : float
        From the first image to the last, Å.
    jitter : float
        By which each step of defocus may differ, Å.
    spherical_aberration, astigmatism, coma : (float, float)
        C30, C12 and C21, Å; the azimuths of the last two are any.
    focal_spread : (float, float)
        Standard deviation times √2, as abTEM has it, Å.
    blur : (float, float)
        Standard deviation of a Gaussian, in `blur_unit`.
    blur_unit : float
        Å. The table gives Å, the authors' earlier code pixels (0.1 Å).
    log_dose : (float, float)
        Decimal logarithm of the electrons per Å² and image.
    sampling : (float, float)
        Pixel size of the images, Å.
    mtf_floor, mtf_scale, mtf_exponent : (float, float)
        c1, c2, c3 of :func:`exitwave.optics.mtf`, which is clipped to 0.
    """

    energy: float = 50e3
    defocus: Range = (-150.0, 150.0)
    span: float = 100.0
    jitter: float = 1.0
    spherical_aberration: Range = (-1.5e5, 1.5e5)
    astigmatism: Range = (0.0, 25.0)
    coma: Range = (0.0, 600.0)
    focal_spread: Range = (5.0, 20.0)
    blur: Range = (0.5, 1.5)
    blur_unit: float = 1.0
    log_dose: Range = (2.5, 5.0)
    sampling: Range = (0.10, 0.11)
    mtf_floor: Range = (-0.6, 0.2)
    mtf_scale: Range = (0.1, 0.2)
    mtf_exponent: Range = (0.6, 1.8)

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, tuple) and not (
                len(value) == 2 and -math.inf < value[0] <= value[1] < math.inf
            ):
                raise InputError(f"range {value} of {field.name}: give the lower end, then the upper")
        if self.span + self.jitter > self.defocus[1] - self.defocus[0]:
            raise InputError(
                f"a span of {self.span:g} Å does not fit into a defocus from {self.defocus[0]:g} to "
                f"{self.defocus[1]:g} Å: widen one or shorten the other"
            )


@dataclass(frozen=True)
class Conditions:
    """Microscope conditions of several series, one of each for a sample; the names are those of `Ranges`.

    Attributes
    ----------
    energy : float
        eV.
    defocus : Tensor, shape (sample, image)
        Å.
    spherical_aberration, astigmatism, astigmatism_azimuth, coma, coma_azimuth : Tensor, shape (sample,)
        Å and rad.
    focal_spread, blur : Tensor, shape (sample,)
        Standard deviations, Å.
    dose : Tensor, shape (sample,)
        Electrons per Å² and image; infinite for none of their noise.
    sampling : Tensor, shape (sample,)
        Å.
    mtf_floor, mtf_scale, mtf_exponent : Tensor, shape (sample,)
    """

    energy: float
    defocus: Tensor
    spherical_aberration: Tensor
    astigmatism: Tensor
    astigmatism_azimuth: Tensor
    coma: Tensor
    coma_azimuth: Tensor
    focal_spread: Tensor
    blur: Tensor
    dose: Tensor
    sampling: Tensor
    mtf_floor: Tensor
    mtf_scale: Tensor
    mtf_exponent: Tensor

    def to(self, device: str | torch.device) -> Conditions:
        """Return them on a device."""
        moved = {f.name: getattr(self, f.name).to(device) for f in fields(self) if f.name != "energy"}
        return replace(self, **moved)

    def transfer(self, shape: tuple[int, int], sampling: float) -> Tensor:
        """Return the transfer functions on a grid, shape (sample, image, y, x), complex64."""
        per_image = {"C10": -self.defocus}
        per_series = {
            "C30": self.spherical_aberration, "C12": self.astigmatism, "phi12": self.astigmatism_azimuth,
            "C21": self.coma, "phi21": self.coma_azimuth,
        }  # fmt: skip
        aberrations = optics.Aberrations(
            **per_image, **{name: value[:, None] for name, value in per_series.items()}
        )
        return optics.transfer_function(
            shape, sampling, energy=self.energy, aberrations=aberrations,
            focal_spread=self.focal_spread[:, None], device=self.defocus.device,
        )  # fmt: skip


def draw(ranges: Ranges, samples: int, images: int, generator: torch.Generator) -> Conditions:
    """Draw the conditions of several series.

    Parameters
    ----------
    ranges : Ranges
    samples, images : int
        Series, and images of each; the span of defocus is the same for any number above one.
    generator : torch.Generator
        On the CPU.

    Raises
    ------
    InputError
        For less than one series or image.
    """
    if samples < 1 or images < 1:
        raise InputError(f"{samples} series of {images} images: ask for one or more of each")

    def uniform(ends: Range, *shape: int) -> Tensor:
        low, high = ends
        return low + (high - low) * torch.rand(samples, *shape, generator=generator)

    steps = ranges.span / max(1, images - 1) + uniform((-ranges.jitter, ranges.jitter), max(0, images - 1))
    offsets = pad(steps.cumsum(1), (1, 0))
    low, high = ranges.defocus
    first = low + (high - low - offsets[:, -1]) * torch.rand(samples, generator=generator)
    turn = (0.0, 2 * math.pi)
    return Conditions(
        energy=ranges.energy, defocus=first[:, None] + offsets,
        spherical_aberration=uniform(ranges.spherical_aberration),
        astigmatism=uniform(ranges.astigmatism), astigmatism_azimuth=uniform(turn) / 2,
        coma=uniform(ranges.coma), coma_azimuth=uniform(turn),
        focal_spread=uniform(ranges.focal_spread) / math.sqrt(2),
        blur=uniform(ranges.blur) * ranges.blur_unit, dose=10 ** uniform(ranges.log_dose),
        sampling=uniform(ranges.sampling), mtf_floor=uniform(ranges.mtf_floor),
        mtf_scale=uniform(ranges.mtf_scale), mtf_exponent=uniform(ranges.mtf_exponent),
    )  # fmt: skip


def simulate(
    waves: Tensor,
    sampling: float,
    conditions: Conditions,
    pixels: int,
    generator: torch.Generator,
    *,
    origin: Tensor | None = None,
) -> Tensor:
    """Return focal series: transfer function, intensity, blur, pixels of another size, electrons, MTF.

    Parameters
    ----------
    waves : Tensor, shape (sample, y, x), complex64
        Exit waves in a periodic box, on the device where all is computed.
    sampling : float
        Of the waves, Å.
    conditions : Conditions
    pixels : int
        Along each side of the images, of the size ``conditions.sampling``.
    generator : torch.Generator
        Draws the electrons; on the device of the waves.
    origin : Tensor, shape (sample, 2), optional
        Where in the box (y, x) the first pixel of each series is, Å; by default the images are in the middle.

    Returns
    -------
    Tensor, shape (sample, image, y, x), float32
        Over the intensity of vacuum.

    Raises
    ------
    InputError
        If the numbers of waves and conditions differ.
    """
    shape = (waves.shape[-2], waves.shape[-1])
    if len(waves) != len(conditions.dose):
        raise InputError(f"{len(waves)} waves and {len(conditions.dose)} conditions: give one for each")
    intensity = imaging.images(waves, conditions.transfer(shape, sampling))
    ky, kx = optics.frequency_grid(shape, sampling, waves.device, torch.float32)
    blur = torch.exp(-2 * math.pi**2 * conditions.blur[:, None, None] ** 2 * (ky**2 + kx**2))
    spectrum = torch.fft.fft2(intensity) * blur[:, None]
    sharp = resampled(spectrum, sampling, conditions.sampling, pixels, origin).real.clamp_min(0)
    per_pixel = (conditions.dose * conditions.sampling**2)[:, None, None, None]
    counted = torch.poisson(sharp * per_pixel.nan_to_num(posinf=0.0), generator=generator) / per_pixel
    counted = torch.where(per_pixel.isinf(), sharp, counted)
    transfer = optics.mtf(
        (pixels, pixels), c1=conditions.mtf_floor, c2=conditions.mtf_scale, c3=conditions.mtf_exponent,
        device=waves.device,
    )  # fmt: skip
    return optics.apply_mtf(counted, transfer[:, None])


def resampled(
    spectrum: Tensor, sampling: float, wanted: Tensor, pixels: int, origin: Tensor | None = None
) -> Tensor:
    """Return periodic images, given by their spectra, at pixels of another size: their exact Fourier series.

    Parameters
    ----------
    spectrum : Tensor, shape (sample, ..., y, x), complex64
        Discrete Fourier transforms.
    sampling : float
        Å.
    wanted : Tensor, shape (sample,)
        Pixel size, Å.
    pixels : int
        Along each side.
    origin : Tensor, shape (sample, 2), optional
        Of the first pixel (y, x), Å; by default the images are in the middle of the box.

    Returns
    -------
    Tensor, shape (sample, ..., pixels, pixels), complex64
    """
    factors = []
    for axis, size in ((0, spectrum.shape[-2]), (1, spectrum.shape[-1])):
        k = torch.fft.fftfreq(size, sampling, dtype=torch.float64, device=spectrum.device)
        step = wanted.to(spectrum.device, torch.float64)[:, None]
        middle = (size * sampling - pixels * step) / 2
        first = middle if origin is None else origin[:, axis, None].to(step)
        at = first + step * torch.arange(pixels, device=spectrum.device)
        turn = 2 * math.pi * torch.remainder(at[:, :, None] * k, 1.0)
        factors.append(torch.polar(torch.ones_like(turn), turn).to(spectrum.dtype) / size)
    extra = (1,) * (spectrum.ndim - 3)
    along_y, along_x = (each.view(len(each), *extra, *each.shape[1:]) for each in factors)
    return along_y @ spectrum @ along_x.mT
