"""A series of high-resolution images as the retrieval of waves wants it: over vacuum, its detector undone."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from exitwave import records
from exitwave.errors import InputError
from exitwave.optics import frequency_grid, mtf
from exitwave.retrieve.focal_series import is_blank
from exitwave.retrieve.lens import Lens, noise_below, restored
from exitwave.retrieve.registration import shifted
from exitwave.units import length_text

_SQUARE = 1e-3  # by which the sides of a pixel may differ
_LEAST_SIDE = 16  # pixels

Detector = tuple[float, float, float]


@dataclass(frozen=True)
class WaveSeries:
    """Images over vacuum and what took them.

    Attributes
    ----------
    images : Tensor, shape (image, y, x), float32
        As recorded.
    number : Tensor, shape (image,), int64
        Which image of the record each is, from 1.
    exposure : Tensor, shape (image,), float64
        Mean of each image over that of the first.
    lens : Lens
        One defocus for each image, and, once they are known, the displacements.
    detector : (float, float, float), optional
        c1, c2, c3 of :func:`exitwave.optics.mtf`.
    electrons : float, optional
        Per pixel and image; None if not known.
    """

    images: Tensor
    number: Tensor
    exposure: Tensor
    lens: Lens
    detector: Detector | None = None
    electrons: float | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Pixels (y, x)."""
        return int(self.images.shape[1]), int(self.images.shape[2])

    @property
    def response(self) -> Tensor | None:
        """MTF of the detector, shape (y, x), FFT order; None for a perfect one."""
        if self.detector is None:
            return None
        c1, c2, c3 = self.detector
        return mtf(self.shape, c1=c1, c2=c2, c3=c3, device=self.images.device)

    def sharp(self) -> tuple[Tensor, float]:
        """Return the images with the MTF undone, and their largest frequency, cycles per pixel."""
        response = self.response
        return (self.images, math.inf) if response is None else restored(self.images, response)

    def quiet(self) -> tuple[Tensor, float]:
        """Return the sharp images with less noise, and their largest frequency, cycles per pixel.

        Wiener's filter: each frequency keeps the share of its power that is not noise, by rings, alike for
        all images. For methods that take what an image says for true.
        """
        sharp, limit = self.sharp()
        height, width = self.shape
        frequency = torch.hypot(*frequency_grid(self.shape, 1.0, device=sharp.device))
        ring = (frequency * max(height, width)).round().long()
        means = sharp.mean((1, 2), keepdim=True)
        spectra = torch.fft.fft2(sharp - means)
        power = spectra.abs().square().mean(0)
        counts = torch.bincount(ring.flatten())
        of_ring = torch.zeros(len(counts)).to(power).index_add_(0, ring.flatten(), power.flatten()) / counts
        noise = height * width * float(self.noise().square().mean())
        share = (1 - noise / of_ring.clamp_min(1e-30)).clamp(0, 1)
        return torch.fft.ifft2(spectra * share[ring]).real + means, limit

    def noise(self) -> Tensor:
        """Return the standard deviation of the noise of each sharp image, as if it were white."""
        if self.electrons is not None:
            return torch.full((len(self.images),), self.electrons**-0.5)
        return noise_below(*self.sharp()).cpu()

    @property
    def dose(self) -> float:
        """Electrons per pixel and image, from the noise where they are not known."""
        return float(1 / self.noise().square().mean())

    def in_place(self) -> WaveSeries:
        """Return the series with its images displaced back, the field taken as periodic."""
        if self.lens.shift is None:
            return self
        back = shifted(self.images, -self.lens.shift / self.lens.sampling)
        return replace(self, images=back, lens=replace(self.lens, shift=None))

    def common(self) -> tuple[WaveSeries, tuple[int, int]]:
        """Return what all images show, displaced back, and its first pixel (y, x) in the first image."""
        if self.lens.shift is None:
            return self, (0, 0)
        pixels = (self.lens.shift / self.lens.sampling).numpy()
        # Of half a pixel nothing is said.
        top, left = (math.ceil(max(0.0, -each - 0.5)) for each in pixels.min(0))
        bottom, right = (math.ceil(max(0.0, each - 0.5)) for each in pixels.max(0))
        height, width = self.shape
        placed = self.in_place()
        return replace(placed, images=placed.images[:, top : height - bottom, left : width - right]), (
            top,
            left,
        )


def read_series(
    record: xr.Dataset, lens: Lens, *, vacuum: float | None = None, detector: Detector | None = None,
    dose: float | None = None, device: str = "cpu",
) -> WaveSeries:  # fmt: skip
    """Return the images of a record of layout ``images`` over vacuum.

    Parameters
    ----------
    record : xarray.Dataset
        Layout ``images``, intensities in any unit.
    lens : Lens
        Its energy, sampling and defoci are replaced by those of the record.
    vacuum : float, optional
        Intensity of vacuum in the unit of the images; by default the mean of each image.
    detector : (float, float, float), optional
        c1, c2, c3 of :func:`exitwave.optics.mtf`.
    dose : float, optional
        Electrons per Å² and image.
    device : str

    Raises
    ------
    InputError
        For pixels that are not square, a blank image, images that are too small, or several that all have one
        defocus.

    Notes
    -----
    Where the specimen absorbs nothing, and all that it scatters is recorded, the mean of an image is vacuum.
    """
    records.validate(record, "images")
    dy, dx = records.sampling_of(record)
    if abs(dy / dx - 1) > _SQUARE:
        raise InputError(f"pixels of {dy:g} x {dx:g} Å (y, x): resample the images to square ones")
    intensity = torch.as_tensor(record["intensity"].values.astype(np.float64))
    defocus = torch.as_tensor(record["defocus"].values.astype(float))
    _check(intensity, defocus)
    means = intensity.mean((1, 2))
    images = intensity / (means[:, None, None] if vacuum is None else vacuum)
    return WaveSeries(
        images.float().to(device), torch.arange(1, len(images) + 1), means / means[0],
        replace(lens, energy=float(record["energy"]), sampling=dx, defocus=defocus, shift=None),
        detector, None if dose is None else dose * dx**2,
    )  # fmt: skip


def _check(intensity: Tensor, defocus: Tensor) -> None:
    for i, image in enumerate(intensity):
        if is_blank(image):
            raise InputError(f"image {i + 1} at {length_text(float(defocus[i]))} is blank: leave it out")
    if min(intensity.shape[1:]) < _LEAST_SIDE:
        raise InputError(
            f"images of {tuple(intensity.shape[1:])} pixels: give at least {_LEAST_SIDE} along each side"
        )
    if len(defocus) > 1 and bool((defocus == defocus[0]).all()):
        raise InputError(
            f"all {len(defocus)} defoci are {length_text(float(defocus[0]))}: give images at different ones"
        )
