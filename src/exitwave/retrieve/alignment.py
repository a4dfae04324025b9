"""How far the images of a focal series of atoms are displaced against each other.

Two images at different defocus hardly correlate: their contrasts have other signs at other frequencies. So
each image is compared with what the ones before it predict: from the first one a wave is fitted
(:func:`exitwave.retrieve.focal_series.retrieve_wave`), its image at the next defocus is correlated with the
next image, both are fitted together, displacement included, and so on.

A lattice repeats, and an image that is displaced by a period nearly is the same. Every displacement of about
the best correlation is tried, then, and the one kept that all images together are explained best by: what
breaks the lattice, edges and defects, decides. Of displacements that explain them alike the smallest is
taken, and said to be in doubt. A perfect lattice that goes on beyond the field favours small displacements,
for nothing is known of what comes into the field: those of more than half a period are wrong then.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from exitwave.errors import InputError
from exitwave.retrieve.focal_series import Fit, retrieve_wave
from exitwave.retrieve.lens import FreeLens, Lens
from exitwave.retrieve.registration import LARGEST
from exitwave.units import length_text

# Images are binned to pixels of at most so much, Å, and of these at most so many in the middle are used, but
# no fewer than the last.
_COARSE, _MOST, _FEWEST = 0.3, 192, 32
# Around the field, and between displacements that are tried, Å.
_MARGIN, _APART = 3.2, 0.6
# Evaluations of the first fit and of the others.
_FIRST, _NEXT = 40, 25
# Of the field, what must be common to two images.
_COMMON = 0.4
# In standard deviations of the correlation of noise, what says something. Correlations above a share of the
# best are tried, but no more than so many.
_LEAST, _RIVAL, _TRIED = 6.0, 0.8, 5
# Deviances that differ by less are alike, for fits end that far from their best, or leave a doubt.
_ALIKE, _DOUBT = 0.01, 0.02


@dataclass(frozen=True)
class Alignment:
    """Displacements of images.

    Attributes
    ----------
    shift : Tensor, shape (image, 2), float64
        (y, x) against the first image, Å, positive towards larger indices.
    doubt : dict of int to (float, float)
        Of an image (from 0), by how much its displacement may differ from what was found, (y, x), Å.
    deviance : float
        Of all images from the last fit, over their noise: 1 if nothing but noise is left.
    """

    shift: Tensor
    doubt: dict[int, tuple[float, float]]
    deviance: float


def align(images: Tensor, lens: Lens, *, dose: float, periodic: bool = False) -> Alignment:
    """Find how far each image of a focal series is displaced against the first.

    Parameters
    ----------
    images : Tensor, shape (image, y, x)
        Over vacuum, in any order of defocus.
    lens : Lens
        One defocus for each image; its shift is not used. Astigmatism and coma are fitted with the rest.
    dose : float
        Electrons per pixel and image.
    periodic : bool
        Whether the field repeats beyond its borders.

    Returns
    -------
    Alignment

    Raises
    ------
    InputError
        If an image is displaced by more than a quarter of the field.

    Notes
    -----
    Translation only. Of large images only the middle is used.
    """
    small, coarse, counted = coarser(images, lens, dose)
    chain = _Chain(small, replace(coarse, shift=None), counted, periodic)
    shift, deviance = chain.run()
    for i, (y, x) in enumerate((shift / lens.sampling).tolist()):
        if abs(y) > LARGEST * images.shape[-2] or abs(x) > LARGEST * images.shape[-1]:
            raise InputError(
                f"image {i + 1} at {length_text(float(lens.defocus[i]))} seems displaced by "
                f"({y:.0f}, {x:.0f}) of {tuple(images.shape[-2:])} pixels, more than a quarter of the field: "
                "check the defoci, align and crop the images before, or use register=False"
            )
    return Alignment(shift, chain.doubt, deviance)


class _Chain:
    """A fit of more and more images of a series, in the order of their defoci."""

    def __init__(self, images: Tensor, lens: Lens, dose: float, periodic: bool) -> None:
        self.images, self.lens, self.dose, self.periodic = images, lens, dose, periodic
        # The end where the contrast of phases is stronger comes first.
        order = lens.defocus.argsort().tolist()
        strong = lens.defocus.abs()
        self.order = order if strong[order[0]] >= strong[order[-1]] else order[::-1]
        self.shift = torch.zeros(len(images), 2, dtype=torch.float64)
        self.doubt: dict[int, tuple[float, float]] = {}

    def run(self) -> tuple[Tensor, float]:
        """Return the displacements against the first image, and the mean deviance of the last fit."""
        fit = self._fit(self.order[:1], self.shift[self.order[:1]], self.lens, _FIRST)
        for i in range(1, len(self.order)):
            fit = self._add(self.order[: i + 1], fit)
        return self.shift - self.shift[0], float(fit.deviance.mean())

    def _fit(self, used: list[int], shift: Tensor, found: Lens, evaluations: int) -> Fit:
        free = ("astigmatism", "coma", "shift")[: 2 if len(used) == 1 else 3]
        lens = replace(
            self.lens, defocus=self.lens.defocus[used], shift=shift - shift[0], astigmatism=found.astigmatism,
            coma=found.coma,
        )  # fmt: skip
        reach = _MARGIN + float((shift - shift[0]).abs().max())
        margin = 0 if self.periodic else math.ceil(reach / lens.sampling)
        return retrieve_wave(
            self.images[used], lens, dose=self.dose, free=free, planes=1, margin=margin,
            evaluations=evaluations,
        )  # fmt: skip

    def _add(self, used: list[int], fit: Fit) -> Fit:
        """Find the displacement of the last image, and return the fit of all."""
        last, new = used[-2:]
        seen = replace(fit.lens, defocus=self.lens.defocus[[new]], shift=self.shift[[last]])
        size = (int(fit.wave.shape[0]), int(fit.wave.shape[1]))
        predicted = FreeLens(seen, (), size, fit.wave.device).images(fit.wave)[0]
        steps = _candidates(predicted, self.images[new], self.lens.sampling)
        room = LARGEST * self.lens.sampling * torch.tensor(self.images.shape[-2:])
        near = [each for each in steps if bool(((self.shift[last] + each).abs() <= room).all())]
        fits = []
        for step in _some(near or steps):
            shift = self.shift[used]
            shift[-1] = self.shift[last] + step
            fits.append((float(step.norm()), self._fit(used, shift, fit.lens, _NEXT)))
        best = min(_badness(each) for _, each in fits)
        alike = [(far, each) for far, each in fits if _badness(each) <= (1 + _ALIKE) * best]
        _, chosen = min(alike, key=lambda pair: pair[0])
        place = _shift_of(chosen)
        for _, each in sorted(fits, key=lambda pair: _badness(pair[1])):
            other = _shift_of(each)[-1] - place[-1]
            if _badness(each) < (1 + _DOUBT) * best and float(other.norm()) > _APART:
                self.doubt[new] = (float(other[0]), float(other[1]))
                break
        self.shift[used] = place
        return chosen


def _some(steps: list[Tensor]) -> list[Tensor]:
    """Return the first few of several displacements, and the smallest."""
    smallest = min(steps, key=lambda each: float(each.norm()))
    few = steps[:_TRIED]
    return few if any(each is smallest for each in few) else [*few[:-1], smallest]


def _badness(fit: Fit) -> float:
    return float(fit.deviance.sum())


def _shift_of(fit: Fit) -> Tensor:
    assert fit.lens.shift is not None
    return fit.lens.shift


def _candidates(predicted: Tensor, image: Tensor, sampling: float) -> list[Tensor]:
    """Return displacements (y, x), Å, that an image may have against its prediction, the likeliest first."""
    correlation = correlations(predicted, image)
    height, width = image.shape
    down, right = (torch.fft.fftfreq(2 * side, 1 / (2 * side)).abs() for side in (height, width))
    common = (height - down)[:, None] * (width - right)
    correlation = torch.where(correlation * common.to(correlation).sqrt() > _LEAST, correlation, -1.0)
    reach = max(1, round(_APART / sampling))
    around = torch.nn.functional.pad(correlation[None, None], (reach,) * 4, mode="circular")
    highest = torch.nn.functional.max_pool2d(around, 2 * reach + 1, 1)[0, 0]
    best = float(correlation.max())
    if best < 0:
        return [torch.zeros(2, dtype=torch.float64)]
    peaks = torch.nonzero((correlation == highest) & (correlation >= _RIVAL * best))
    order = correlation[peaks[:, 0], peaks[:, 1]].argsort(descending=True)
    half = torch.tensor(correlation.shape) // 2
    steps = (((peaks[order].cpu() + half) % torch.tensor(correlation.shape)) - half).double() * sampling
    return list(steps)


def correlations(reference: Tensor, moved: Tensor) -> Tensor:
    """Return the correlation coefficient of two images, where they overlap, for every displacement.

    D. Padfield, IEEE Trans. Image Process. 21 (2012) 2706, for images that are known everywhere.

    Parameters
    ----------
    reference, moved : Tensor, shape (y, x)

    Returns
    -------
    Tensor, shape (2 y, 2 x), float64
        At [d] that of ``reference[r]`` and ``moved[r + d]``, negative d from the end; -1 where too little
        overlaps.
    """
    height, width = reference.shape
    size = (2 * height, 2 * width)
    x, y = (each.double() - each.double().mean() for each in (reference, moved))
    one = torch.ones_like(x)

    def summed(a: Tensor, b: Tensor) -> Tensor:
        made: Tensor = torch.fft.irfft2(
            torch.fft.rfft2(a, s=size).conj() * torch.fft.rfft2(b, s=size), s=size
        )
        return made

    pixels = summed(one, one).round().clamp_min(1)
    of_x, of_y = summed(x, one), summed(one, y)
    spread_x = summed(x.square(), one) - of_x.square() / pixels
    spread_y = summed(one, y.square()) - of_y.square() / pixels
    floor = 1e-9 * float(x.square().sum() + y.square().sum()) + 1e-30
    both = (spread_x.clamp_min(floor) * spread_y.clamp_min(floor)).sqrt()
    found = (summed(x, y) - of_x * of_y / pixels) / both
    return torch.where(pixels >= _COMMON * height * width, found, -1.0)


def coarser(images: Tensor, lens: Lens, dose: float) -> tuple[Tensor, Lens, float]:
    """Return the middle of images in larger pixels, in which fits are quick.

    Parameters
    ----------
    images : Tensor, shape (image, y, x)
    lens : Lens
    dose : float
        Electrons per pixel and image.

    Returns
    -------
    images : Tensor, shape (image, y, x)
        Of pixels up to 0.3 Å, at most 192 along each side; small images as they are.
    lens : Lens
        With these pixels, whose size blurs.
    dose : float
        Electrons per pixel and image.
    """
    factor = max(1, int(_COARSE / lens.sampling + 1e-9))
    if min(images.shape[-2:]) < factor * _FEWEST:
        factor = 1
    height, width = (min(_MOST, side // factor) * factor for side in images.shape[-2:])
    top, left = (images.shape[-2] - height) // 2, (images.shape[-1] - width) // 2
    middle = images[:, top : top + height, left : left + width]
    if factor == 1:
        return middle, lens, dose
    size = lens.sampling * factor
    wider = replace(lens, sampling=size, blur=math.hypot(lens.blur, size / math.sqrt(12)))
    return torch.nn.functional.avg_pool2d(middle[:, None], factor)[:, 0], wider, dose * factor**2
