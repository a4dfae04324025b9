r"""Off-axis electron holography: the image wave from the side band of a hologram.

The Fourier transform of a hologram (:mod:`exitwave.simulate.holograms`) has three parts: the centre band of
what both waves are alone, and two side bands, the wave around -q and its conjugate around +q, q the carrier.
One of these is cut out by a soft aperture, brought to the centre and divided by that of a hologram without
specimen, which takes away distortions of the fringes and what is left of the carrier (G. Möllenstedt and
H. Wahl, Naturwissenschaften 55, 340 (1968); M. Lehmann and H. Lichte, Microsc. Microanal. 8, 447 (2002)).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from exitwave.errors import InputError
from exitwave.optics import frequency_grid
from exitwave.optics.grids import sampling_pair
from exitwave.retrieve.carrier import check_image
from exitwave.retrieve.carrier import find_carrier as find_carrier
from exitwave.simulate.holograms import Carrier, checked_carrier, reference_wave

EDGE = 0.2  # of the aperture, over its radius
# Fringes of more pixels are looked for where they are told to be: there the centre band is strong.
WIDEST = 20.0
_SHARE = (
    1 / 3
)  # of the carrier: the aperture then stays clear of all that a strong object puts into the centre
_LEAST_PIXELS = 16
_LEAST_STEPS = 2.0  # of the frequency grid in the radius of an aperture
_QUANTILE = 0.25  # of the coefficients beside a side band that are surely noise


@dataclass(frozen=True, eq=False)
class Retrieved:
    """What a hologram tells.

    Attributes
    ----------
    wave : Tensor, shape (y, x), complex
        Image wave. With a reference hologram over the wave in vacuum; without one its median modulus is 1.
    carrier : (float, float)
        q as (y, x), 1/Å: the wave was taken from the side band at -q.
    radius : float
        Of the aperture, 1/Å, where it lets one half of the modulus through.
    resolution : float
        The shortest period that passes by one half, Å.
    contrast : float
        Contrast of the fringes of the hologram, mean over the field, 0 to 1.
    reference_contrast : float or None
        That of the reference hologram.
    electrons : float
        In an element of resolution of the hologram, both waves together.
    deviation : float
        Standard deviation of the phase by counting, rad, where the hologram has its mean contrast
        (:func:`phase_deviation`); the reference's share included.
    """

    wave: Tensor
    carrier: tuple[float, float]
    radius: float
    resolution: float
    contrast: float
    reference_contrast: float | None
    electrons: float
    deviation: float


def phase_deviation(electrons: float, contrast: float) -> float:
    r"""Return the standard deviation of a phase by counting, ``sqrt(2 / N) / contrast``, rad.

    W. J. de Ruijter and J. K. Weiss, Ultramicroscopy 50, 269 (1993): the detection limit of off-axis
    holography, for a detector that counts every electron.

    Parameters
    ----------
    electrons : float
        N, in one element of resolution of the hologram, both waves together.
    contrast : float
        Of its fringes, 0 to 1.
    """
    return math.sqrt(2 / electrons) / contrast if electrons > 0 and contrast > 0 else math.inf


def retrieve_wave(
    hologram: Tensor,
    *,
    sampling: float | tuple[float, float],
    carrier: Carrier | None = None,
    reference: Tensor | None = None,
    radius: float | None = None,
    edge: float = EDGE,
    dose: float | None = None,
    reference_dose: float | None = None,
) -> Retrieved:
    """Retrieve the image wave from the side band of an off-axis hologram.

    Parameters
    ----------
    hologram : Tensor, shape (y, x), real
        Intensity in any unit.
    sampling : float or (float, float)
        Pixel size, Å, one number or (y, x).
    carrier : (float, float), optional
        q as (y, x), 1/Å, taken as it is; the wave is taken from the side band at -q. By default that of the
        reference, or of the hologram (:func:`find_carrier`). The other sign gives the conjugate wave.
    reference : Tensor, shape (y, x), optional
        Hologram without specimen, at the same exposure.
    radius : float, optional
        Of the aperture, 1/Å; by default a third of the carrier, or less where the conjugate is nearer. A weak
        object allows one half.
    edge : float
        Width of the edge of the aperture over its radius, 0 to 1: half a period of a cosine.
    dose : float, optional
        Electrons per Å² through the specimen (:mod:`exitwave.simulate.holograms`); the reference wave brings
        as many. By default the noise is that of the spectrum around the side band.
    reference_dose : float, optional
        Of the reference hologram; by default `dose`; ``inf`` for one without noise.

    Returns
    -------
    Retrieved
        The wave has the pixels of the hologram; what lies closer to its border than the resolution is
        not to be trusted unless the field repeats. Its dtype is that of the hologram, made complex, and it
        is differentiable in hologram and reference.

    Raises
    ------
    InputError
        For images that are not real and finite or differ in shape, no side band, one too near the centre
        band, an aperture that reaches the centre or the other side band, or a dose that is not positive.
    """
    steps = sampling_pair(sampling)
    check_image(hologram, "hologram")
    if reference is not None:
        check_image(reference, "reference")
        if reference.shape != hologram.shape:
            raise InputError(
                f"reference of shape {tuple(reference.shape)}, but hologram of {tuple(hologram.shape)}: "
                "crop or bin both alike"
            )
    if carrier is None:
        carrier = find_carrier(hologram if reference is None else reference, sampling=steps)
    q_y, q_x = (float(each) for each in checked_carrier(carrier, steps))
    shape = (hologram.shape[0], hologram.shape[1])
    radius = _radius(radius, (q_y, q_x), edge, shape, steps)
    doses = _doses(dose, reference_dose)
    band = _Band(shape, steps, (q_y, q_x), radius, edge)
    side, seen = band.cut(hologram, doses[0])
    if reference is None:
        wave, deviation, empty = side / side.abs().median(), seen.deviation, None
    else:
        vacuum, empty = band.cut(reference, doses[1])
        if not bool((vacuum != 0).all()):
            raise InputError("the reference has no fringes in places: give a hologram of the vacuum")
        wave, deviation = side / vacuum, math.hypot(seen.deviation, empty.deviation)
    return Retrieved(
        wave, (q_y, q_x), radius, 1 / radius, seen.contrast, None if empty is None else empty.contrast,
        seen.electrons, deviation,
    )  # fmt: skip


def _doses(dose: float | None, reference_dose: float | None) -> tuple[float | None, float | None]:
    for name, value in {"dose": dose, "reference dose": reference_dose}.items():
        if value is not None and not value > 0:
            raise InputError(f"{name} {value} is not positive: give it in electrons per Å^2")
    return dose, dose if reference_dose is None else reference_dose


def distance_of_conjugate(carrier: tuple[float, float], sampling: tuple[float, float]) -> float:
    """Return how far the side bands lie apart, 1/Å, also over the border of the spectrum, which repeats."""
    apart = (2 * q - round(2 * q * step) / step for q, step in zip(carrier, sampling, strict=True))
    return math.hypot(*apart)


def _radius(
    given: float | None,
    carrier: tuple[float, float],
    edge: float,
    shape: tuple[int, int],
    sampling: tuple[float, float],
) -> float:
    """Return the radius of the aperture, 1/Å; refuse one that lets another band in or hardly anything."""
    if not 0 <= edge <= 1:
        raise InputError(f"edge {edge} of the aperture: give its width over the radius, 0 to 1")
    length, apart = math.hypot(*carrier), distance_of_conjugate(carrier, sampling)
    if given is not None and not (math.isfinite(given) and given > 0):
        raise InputError(f"radius {given} of the aperture is not positive: give it in 1/Å")
    radius = min(_SHARE * length, _SHARE * apart) if given is None else float(given)
    step = max(1 / (n * d) for n, d in zip(shape, sampling, strict=True))
    if radius < _LEAST_STEPS * step:
        raise InputError(
            f"the side band at {length:.4g} 1/Å is too near the centre band or the other side band, or the "
            f"radius {radius:.4g} 1/Å is too small: a field with steps of {step:.4g} 1/Å needs "
            f"{_LEAST_STEPS:g} of them in the radius; take more and finer fringes"
        )
    outer = radius * (1 + edge / 2)
    if outer >= min(length, apart):
        other = "centre band" if length <= apart else "other side band"
        raise InputError(
            f"radius {radius:.4g} 1/Å of the aperture reaches the {other}, {min(length, apart):.4g} 1/Å "
            f"away: give one up to {0.5 * min(length, apart):.4g}"
        )
    return radius


@dataclass(frozen=True)
class _Seen:
    """What one hologram shows beside its wave."""

    contrast: float
    electrons: float

    @property
    def deviation(self) -> float:
        return phase_deviation(self.electrons, self.contrast)


@dataclass(frozen=True)
class _Band:
    """The side band at -q and the aperture around it."""

    shape: tuple[int, int]
    sampling: tuple[float, float]
    carrier: tuple[float, float]
    radius: float
    edge: float

    def cut(self, image: Tensor, dose: float | None) -> tuple[Tensor, _Seen]:
        """Return a side band at the centre, in the unit of the image, and what else the hologram shows."""
        image = image if image.is_floating_point() else image.double()
        dtype = torch.complex128 if image.dtype == torch.float64 else torch.complex64
        carrier = reference_wave(
            self.shape, sampling=self.sampling, carrier=self.carrier, dtype=dtype, device=image.device
        )
        mean = image.mean()
        # Without the mean, whose transform has arms where the field does not hold whole fringes.
        spectrum = torch.fft.fft2((image - mean) * carrier)
        k = torch.hypot(*frequency_grid(self.shape, self.sampling, device=image.device))
        aperture = self._aperture(k)
        side: Tensor = torch.fft.ifft2(spectrum * aperture.to(image.dtype))
        return side, self._seen(side.detach(), spectrum.detach(), k, aperture, float(mean.detach()), dose)

    def _aperture(self, k: Tensor) -> Tensor:
        """Return the aperture around the centre: one half at the radius."""
        if self.edge == 0:
            return (k <= self.radius).to(k.dtype)
        place = ((k / self.radius - 1) / self.edge).clamp(-0.5, 0.5)
        return 0.5 - 0.5 * torch.sin(math.pi * place)

    def _seen(
        self, side: Tensor, spectrum: Tensor, k: Tensor, aperture: Tensor, mean: float, dose: float | None
    ) -> _Seen:
        """Return contrast and electrons in an element of resolution: its area is one over the aperture's."""
        share = float(aperture.square().mean())
        outer = self.radius * (1 + self.edge / 2)
        beside = spectrum[(k > outer) & (k < 2 * outer)].abs().double().square()
        # The squares of noisy coefficients are exponentially distributed; those of an object lie above.
        rank = 1 + int(_QUANTILE * beside.numel())
        level = float(beside.kthvalue(rank).values) / -math.log1p(-_QUANTILE)
        noise = share * level / spectrum.numel()  # variance of the side band by noise
        power = float(side.abs().double().square().mean())
        contrast = 2 * math.sqrt(max(power - noise, 0.0)) / mean if mean > 0 else math.nan
        if dose is None:
            electrons = mean**2 / noise if noise > 0 else math.inf
        else:
            electrons = 2 * dose * self.sampling[0] * self.sampling[1] / share
        return _Seen(contrast, electrons)


def correct(wave: Tensor, transfer: Tensor) -> Tensor:
    r"""Return the exit wave of an image wave whose lens is known: aberrations are turned back.

    Parameters
    ----------
    wave : Tensor, shape (\*batch, y, x), complex
        The field is taken as periodic.
    transfer : Tensor, shape (y, x) or (\*batch, y, x), complex
        In FFT order (:func:`exitwave.optics.transfer_function`). Only its phase is undone: what an envelope
        damped stays so, and no noise is raised.
    """
    turned: Tensor = torch.fft.ifft2(torch.fft.fft2(wave) * torch.sgn(transfer).conj())
    return turned
